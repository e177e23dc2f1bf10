"""What a model or a loop that fails while it trains is told as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.border.error_texts import account, is_out_of_memory
from verifier.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.errors import VerifierError


def failed(what: str, otherwise: Callable[[str], VerifierError], error: BaseException) -> VerifierError:
    """Memory ran out in `what`; or what `otherwise` makes of an account of the error."""
    if is_out_of_memory(error):
        return OutOfMemoryError(f"out of memory in {what}: {account(error)}. Use a smaller --batch-size.")
    return otherwise(account(error))
