"""What a fault is, where it can be planted, and the register of all of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.mutants.networks import Normalise, build, images

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True)
class Place:
    """A childless module of a baseline that runs, and so a site a fault can be planted at.

    `reads` and `read_by` are the places directly before and after it in the dataflow.
    """

    network: str
    name: str
    order: int
    module: Any
    parent: Any
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    reads: frozenset[str]
    read_by: frozenset[str]

    @property
    def prefix(self) -> str:
        """The parent's qualified name with a dot behind it; empty at the top."""
        return self.name.rpartition(".")[0] + "." if "." in self.name else ""


@dataclass(frozen=True)
class Planted:
    """What is wrong once a fault is in.

    Attributes:
        kind: The fault's name.
        causes: The cause codes that are right.
        culprits: For each wrong site the names under which it may be blamed, all of them equally right.
        touched: The places that run differently, or no longer. No other fault goes there or next to it.
    """

    kind: str
    causes: frozenset[str]
    culprits: tuple[frozenset[str], ...]
    touched: frozenset[str]


@dataclass
class Spot:
    """A place in a model that is about to get a fault, with the random numbers to draw it from."""

    model: nn.Module
    place: Place
    places: dict[str, Place]
    rng: random.Random
    also: list[frozenset[str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)

    @property
    def module(self) -> Any:
        return self.model.get_submodule(self.place.name)

    @property
    def parent(self) -> Any:
        return self.model.get_submodule(self.place.name.rpartition(".")[0])

    def replace(self, module: nn.Module) -> None:
        self.model.set_submodule(self.place.name, module.train(self.module.training))

    def run(self, forward: Callable[..., Tensor], module: nn.Module | None = None) -> None:
        """Give the module another forward; parameters and names stay."""
        module = module or self.module
        kind: Any = type(module)
        module.__class__ = type(kind.__name__, (kind,), {"forward": forward})

    def before(self, change: Callable[[Tensor], Tensor]) -> None:
        """Have the module read something else."""
        forward = type(self.module).forward
        self.run(lambda module, x: forward(module, change(x)))

    def after(self, change: Callable[[Tensor], Tensor]) -> None:
        """Have the module return something else."""
        forward = type(self.module).forward
        self.run(lambda module, *args: change(forward(module, *args)))

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers."""
        generator = torch.Generator().manual_seed(self.rng.getrandbits(62))
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    def shuffled(self, count: int) -> list[int]:
        """A permutation of `count` indices that moves at least one."""
        order = list(range(count))
        while order == sorted(order):
            self.rng.shuffle(order)
        return order

    def blame_also(self, name: str) -> None:
        """A second site is wrong, too."""
        self.also.append(frozenset({name}))
        self.touched.add(name)

    def blame_or(self, *names: str) -> None:
        """The one site that is wrong may go by these names as well."""
        self.names.update(names)
        self.touched.update(names)

    def blame_instead(self, name: str) -> None:
        """Not the module is wrong but this buffer of it."""
        self.names = {name}


@dataclass(frozen=True)
class Fault:
    """A kind of fault: where it can be planted, how, and the cause codes that are right for it."""

    kind: str
    causes: frozenset[str]
    where: Callable[[Place], bool]
    change: Callable[[Spot], None]

    def plant(self, model: nn.Module, place: Place, places: dict[str, Place], rng: random.Random) -> Planted:
        """Change `model`, a copy of the baseline that `place` belongs to."""
        spot = Spot(model, place, places, rng, names={place.name}, touched={place.name})
        with torch.no_grad():
            self.change(spot)
        return Planted(self.kind, self.causes, (frozenset(spot.names), *spot.also), frozenset(spot.touched))


FAULTS: dict[str, Fault] = {}


def fault(
    kind: str, *causes: str, where: Callable[[Place], bool]
) -> Callable[[Callable[[Spot], None]], Callable[[Spot], None]]:
    """Register a kind of fault; its cause code is its name unless others are given."""

    def register(change: Callable[[Spot], None]) -> Callable[[Spot], None]:
        if kind in FAULTS:
            raise ValueError(f"there are two faults called {kind}")
        FAULTS[kind] = Fault(kind, frozenset(causes or {kind}), where, change)
        return change

    return register


def isa(*kinds: type[nn.Module]) -> Callable[[Place], bool]:
    """Places of one of these classes."""
    return lambda place: isinstance(place.module, kinds)


@cache
def places(network: str, seed: int) -> dict[str, Place]:
    """All places of a baseline in order of execution, by name."""
    model = build(network, seed)
    watched = copy.deepcopy(model)
    met: list[tuple[str, tuple[tuple[int, ...], ...], tuple[int, ...], frozenset[str]]] = []
    producers: dict[int, frozenset[str]] = {}
    kept: list[Tensor] = []  # so that no two share an id

    def hook(name: str) -> Callable[..., None]:
        def see(_: nn.Module, args: Sequence[Tensor], output: Tensor) -> None:
            reads = frozenset[str]().union(*(producers.get(id(tensor), frozenset()) for tensor in args))
            met.append((name, tuple(tuple(tensor.shape) for tensor in args), tuple(output.shape), reads))
            # A dropout that does nothing returns what it was given; what reads that is beside both.
            producers[id(output)] = producers.get(id(output), frozenset()) | {name}
            kept.append(output)

        return see

    for name, module in watched.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        watched(images(network, 2, seed))
    return {
        name: Place(
            network=network,
            name=name,
            order=order,
            module=model.get_submodule(name),
            parent=model.get_submodule(name.rpartition(".")[0]),
            inputs=inputs,
            output=output,
            reads=reads,
            read_by=frozenset(other for other, *_, sources in met if name in sources),
        )
        for order, (name, inputs, output, reads) in enumerate(met)
    }


def beside(names: Iterable[str], known: dict[str, Place]) -> frozenset[str]:
    """These places and all directly before and after them."""
    found = set(names)
    for name in names:
        if name in known:
            found |= known[name].reads | known[name].read_by
    return frozenset(found)


def entry(place: Place) -> bool:
    """The place that reads the images."""
    return place.order == 0


def normalises(place: Place) -> bool:
    """The place that normalises the images."""
    return isinstance(place.module, Normalise)
