"""What a model or a loop that fails while it trains is told as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.border.error_texts import account, first_line
from verifier.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.errors import VerifierError

# torch raises a plain RuntimeError where the CPU has no memory left.
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


def failed(what: str, otherwise: Callable[[str], VerifierError], error: BaseException) -> VerifierError:
    """Memory ran out in `what`; or what `otherwise` makes of an account of the error."""
    if isinstance(error, MemoryError) or any(sign in first_line(error) for sign in _SIGNS):
        return OutOfMemoryError(f"out of memory in {what}: {account(error)}. Use a smaller --batch-size.")
    return otherwise(account(error))
