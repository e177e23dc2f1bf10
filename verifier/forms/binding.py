"""What a model is given, by the names of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from verifier.errors import InputError
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def bound(
    what: str, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors among arguments, each with the name of the input that it is.

    Args:
        what: The model, for messages.
        names: Its inputs in order.
        args: Tensors in that order, in any nesting.
        kwargs: Further ones, by the inputs' names; others in the order that is left.

    Raises:
        InputError: They are not as many as the model takes.
    """
    by_name = {name: value for name, value in kwargs.items() if name in names and isinstance(value, Tensor)}
    unnamed = {name: value for name, value in kwargs.items() if name not in by_name}
    unknown = [name for name, value in unnamed.items() if isinstance(value, Tensor)]
    if len(unknown) > 1:
        raise InputError(
            f"{what} takes {', '.join(names)}, and was given {', '.join(unknown)} by names that it does not have. "
            "Give them by its names, or in its order as a tuple."
        )
    rest = [*tensors_in((*args, *unnamed.values()))]
    left = [name for name in names if name not in by_name]
    if len(rest) != len(left):
        raise InputError(
            f"{what} takes {len(names)} tensor{'s' * (len(names) != 1)} ({', '.join(names)}), and was given "
            f"{len(rest) + len(by_name)}. "
            "Give as many, by name if some are left out."
        )
    yield from by_name.items()
    yield from zip(left, rest, strict=True)
