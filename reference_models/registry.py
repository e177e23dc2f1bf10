"""Models by name: a dict and three functions. A family's module registers its models when it is imported."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable

    from torch import nn

    Build = TypeVar("Build", bound=Callable[..., nn.Module])


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A registered model and what is published about it. Calling the entry builds the model.

    `depth` counts layers with weights on the main path, as the family's paper does. `baseline` is the
    specification of the trusted twin, or None where there is none. `parameters` is the number of learnable
    numbers and `gflops` the cost of one image in 1e9 multiply-adds, both with the default number of classes and
    both as `source` published them: what was published, not what was measured here. `image_size` is the height and
    width in pixels of the images the network is made for.
    """

    name: str
    build: Callable[..., nn.Module]
    family: str
    depth: int
    baseline: str | None
    parameters: int | None
    gflops: float | None
    source: str
    image_size: int = 224

    def __call__(self, **options: Any) -> nn.Module:
        """Build the model, freshly initialised and in training mode; `options` are the builder's keywords."""
        return self.build(**options)


class DuplicateModelError(ValueError):
    """A second model was registered under a name that is taken."""


class UnknownModelError(LookupError):
    """No model has this name. `suggestions` holds the registered names closest to it, best first."""

    def __init__(self, name: str, suggestions: tuple[str, ...]) -> None:
        """Word the message: what was asked for, and what may have been meant."""
        hint = f"Did you mean {_either(suggestions)}?" if suggestions else f"Known are {', '.join(list())}."
        super().__init__(f"There is no reference model {name!r}. {hint}")
        self.name = name
        self.suggestions = suggestions


_ENTRIES: dict[str, ModelEntry] = {}


def register(
    *,
    name: str | None = None,
    family: str,
    depth: int,
    baseline: str | None = None,
    parameters: int | None = None,
    gflops: float | None = None,
    source: str = "",
    image_size: int = 224,
) -> Callable[[Build], Build]:
    """Register the decorated builder under `name`, or its own; `ModelEntry` says what the facts mean.

    Raises:
        DuplicateModelError: The name is taken. The registered model stays.
    """

    def decorate(build: Build) -> Build:
        known_as = name or build.__name__
        if known_as in _ENTRIES:
            taken_by = _ENTRIES[known_as].build
            raise DuplicateModelError(
                f"A reference model {known_as!r} is already registered by {taken_by.__module__}; choose another."
            )
        _ENTRIES[known_as] = ModelEntry(
            name=known_as,
            build=build,
            family=family,
            depth=depth,
            baseline=baseline,
            parameters=parameters,
            gflops=gflops,
            source=source,
            image_size=image_size,
        )
        return build

    return decorate


def list() -> builtins.list[str]:  # noqa: A001 - read as `reference_models.list()`
    """The names of all registered models, sorted."""
    return sorted(_ENTRIES)


def get(name: str) -> ModelEntry:
    """The model registered as `name`; `get(name)()` builds it.

    Raises:
        UnknownModelError: Nothing is registered under this name.
    """
    try:
        return _ENTRIES[name]
    except KeyError:
        raise UnknownModelError(name, _neighbours(name)) from None


def _neighbours(name: str) -> tuple[str, ...]:
    """Up to three registered names: first those that `name` abbreviates, then those that are spelt alike."""
    asked = name.lower()
    abbreviated = [known for known in list() if asked and known.startswith(asked)]
    alike = difflib.get_close_matches(asked, list(), n=3, cutoff=0.6)
    return tuple(dict.fromkeys(abbreviated + alike))[:3]


def _either(names: tuple[str, ...]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
