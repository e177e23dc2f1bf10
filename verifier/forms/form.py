"""A deployed form, as all else knows it: a program that can be looked into, and what runs where it is shipped."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from verifier.border.error_texts import account
from verifier.border.programs import translating
from verifier.errors import CannotRunError, SourceError, installing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from verifier.forms.quantisers import Quantised
    from verifier.graph import Graph


class Stage(Protocol):
    """The form as it is run: after some of what its runtime does to it before, with nothing observed."""

    @property
    def name(self) -> str:
        """What the runtime calls it: a level of optimisation, a backend."""

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns, with tensors in any nesting."""

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        """What it has inside that the program has, too, in the order of execution.

        Yields:
            The program's site by its index in `graph`, what makes it at this stage, and its tensor.
        """


class Kernel(NamedTuple):
    """What a stage runs at once.

    Attributes:
        name: What the runtime calls it.
        operator: What it computes; several in a row where the program has no counterpart of what is between them.
        sites: Those of the program that it makes, by index.
        dtype: The one that it computes in; empty where the runtime does not tell.
    """

    name: str
    operator: str
    sites: tuple[int, ...]
    dtype: str = ""


@runtime_checkable
class Telling(Protocol):
    """A stage that tells what its runtime has made of the program."""

    def kernels(self, graph: Graph) -> Iterator[Kernel]:
        """Its kernels in the order of execution; no site of `graph` is made by two of them."""


class Rung(Stage, Protocol):
    """A stage that a compiler makes of a program whenever it is run, which takes seconds; values in it can be kept.

    Attributes:
        graph: Whether it runs its graph with torch's own kernels, an operator at a time: then float64 tells whether
            the graph is wrong.
        made: In words, what the compiler has made of it; empty before it has run.
    """

    graph: bool
    made: str

    def keeping(self, args: Sequence[Any], kwargs: Mapping[str, Any], sites: Collection[int]) -> Any:
        """What it returns where the values of some of the program's sites are kept that `values` has yielded.

        Nothing is fused across these.
        """

    def rounding(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns where generated code rounds between operators as torch's own kernels do."""


class Recompiling(Protocol):
    """Makes stages of a program that has other tensors than the form's own, or is in another dtype."""

    def __call__(self, program: nn.Module, /, *, draws: bool) -> tuple[Rung, ...]:
        """The stages, what is shipped last; `draws` says whether the program draws random numbers."""


@dataclass(frozen=True)
class Form:
    """A deployed form.

    Attributes:
        kind: What it is, with an article.
        program: Its program, to be watched operator by operator; its parameters are the form's own.
        stages: How it is run, the least optimised first; the last is how it is shipped.
        owns_weights: Whether it has weights of its own, as a file does.
        dtypes: The dtypes that its runtime computes its floating-point numbers in; empty for any.
        notes: What should be known of it.
        lowered: Of the stages that compute in a narrower dtype than the program, by name: which.
        guarded: Whether it refuses what it was not made for, and tells why.
        captured: Whether it was made by watching one call, of which it holds the way.
        recompiled: Where a compiler makes it of a program when it runs, what makes its stages; they then take the
            place of `stages`.
        quantised: Where it rounds to few bits, what can be left out of that.
        shapes: Sizes of its inputs in their order, as far as it says them; None for any.
    """

    kind: str
    program: nn.Module
    stages: tuple[Stage, ...] = ()
    owns_weights: bool = True
    dtypes: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=())
    lowered: Mapping[str, str] = field(default_factory=dict)
    guarded: bool = False
    captured: bool = False
    recompiled: Recompiling | None = None
    quantised: Quantised | None = None
    shapes: tuple[tuple[int | None, ...], ...] = ()


@contextlib.contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Import what only this form needs.

    Raises:
        CannotRunError: It is not installed; the message has the command.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("verifier"):  # a fault of its own
            raise
        raise CannotRunError(
            f"{what} needs {error.name or extra}, which is not installed: {installing(extra)}."
        ) from error


@contextlib.contextmanager
def reading(spec: str, what: str) -> Iterator[None]:
    """Read a file of a form.

    Raises:
        SourceError: It is none.
    """
    with translating(lambda error: SourceError(f"{spec} cannot be read as {what}: {account(error)}")):
        yield
