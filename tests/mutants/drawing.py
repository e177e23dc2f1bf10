"""Mutants: baselines with one to four faults at sites that do not touch, drawn from a seed."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.mutants.catalogue import FAULTS
from tests.mutants.networks import BUILDERS, build, images
from tests.mutants.planting import Place, Planted, beside, places

if TYPE_CHECKING:
    from collections.abc import Sequence

SEEDS = 3  # of parameters and of inputs; the baselines' own outcomes are kept
OTHER_INPUTS = 3


class Effect(StrEnum):
    """What a fault changes in float64: outputs and written buffers."""

    VISIBLE = "visible"
    UNEXERCISED = "unexercised"  # nothing on the input that is verified with, something on others
    EQUIVALENT = "equivalent"  # nothing on any input that was tried


@dataclass(frozen=True)
class Step:
    """One fault to plant: the same seed plants it in the same way."""

    kind: str
    place: Place
    seed: int

    def __str__(self) -> str:
        return f"{self.kind} at {self.place.network}:{self.place.name}"


@dataclass(frozen=True)
class Mutant:
    """A candidate and what is wrong with it."""

    network: str
    seed: int
    steps: tuple[Step, ...]
    planted: tuple[Planted, ...]
    candidate: Any
    effect: Effect

    @property
    def baseline(self) -> Any:
        return build(self.network, self.seed)

    @property
    def inputs(self) -> Tensor:
        return _inputs(self.network, self.seed)[0]

    @property
    def culprits(self) -> list[frozenset[str]]:
        """The wrong sites, each by all names it may be blamed under."""
        return [names for planted in self.planted for names in planted.culprits]

    @property
    def first(self) -> frozenset[str]:
        """Names of the wrong site that comes first; of several, if it may go by names before and after others."""
        spans = {names: self._span(names) for names in self.culprits}
        earliest = min(end for _, end in spans.values())
        return frozenset().union(*(names for names, (start, _) in spans.items() if start <= earliest))

    @property
    def shadowed(self) -> bool:
        """Whether a wrong site reads a tensor whose shape another fault changed."""
        known = places(self.network, self.seed)
        now = _shapes(self.candidate, self.inputs)
        reads = {
            read for names in self.culprits for name in names & known.keys() for read in known[name].reads
        }
        return any(now.get(read, known[read].output) != known[read].output for read in reads)

    def _span(self, names: frozenset[str]) -> tuple[int, int]:
        known = places(self.network, self.seed)
        owners = [name if name in known else name.rpartition(".")[0] for name in names]
        orders = [known[owner].order for owner in owners if owner in known]
        return min(orders), max(orders)

    def causes(self, names: frozenset[str]) -> frozenset[str]:
        """The cause codes that are right for a culprit."""
        return next(planted.causes for planted in self.planted if names in planted.culprits)


def draw(rng: random.Random) -> Mutant:
    """A mutant with one fault, seldom up to four. Each changes something of its own."""
    wanted = rng.choices([1, 2, 3, 4], weights=[4, 3, 2, 1])[0]
    while True:
        seed = rng.randrange(SEEDS)
        mutant = single(rng.choice(sorted(FAULTS)), seed, rng)
        if mutant is None:
            continue
        if wanted == 1 or mutant.effect is not Effect.VISIBLE:
            return mutant
        return _grown(mutant, wanted, rng)


def single(kind: str, seed: int, rng: random.Random, network: str | None = None) -> Mutant | None:
    """A mutant with this one fault somewhere, or None if there is no place where the model still runs."""
    names = [network] if network else sorted(BUILDERS)
    spots = [place for name in names for place in places(name, seed).values() if FAULTS[kind].where(place)]
    rng.shuffle(spots)
    for place in spots:
        found = planted(place.network, seed, [Step(kind, place, rng.getrandbits(62))])
        if found is not None:
            return found
    return None


def planted(network: str, seed: int, steps: Sequence[Step]) -> Mutant | None:
    """The baseline with these faults, or None if it does not run like that."""
    baseline = build(network, seed)
    candidate = copy.deepcopy(baseline)
    known = places(network, seed)
    done = tuple(
        FAULTS[step.kind].plant(candidate, step.place, known, random.Random(step.seed)) for step in steps
    )
    inputs = _inputs(network, seed)
    try:
        changed = [_outcome(candidate, x) for x in inputs]
    except (RuntimeError, ValueError):  # shapes that do not fit
        return None
    differ = [not _same(a, b) for a, b in zip(_baseline_outcomes(network, seed), changed, strict=True)]
    effect = Effect.VISIBLE if differ[0] else Effect.UNEXERCISED if any(differ) else Effect.EQUIVALENT
    return Mutant(network, seed, tuple(steps), done, candidate, effect)


def _grown(mutant: Mutant, wanted: int, rng: random.Random) -> Mutant:
    """More faults, half of them in the block of the first, none beside another."""
    known = places(mutant.network, mutant.seed)
    block = mutant.steps[0].place.prefix
    for _ in range(40):
        if len(mutant.steps) == wanted:
            break
        kind = rng.choice(sorted(FAULTS))
        taken = beside(frozenset().union(*(fault.touched for fault in mutant.planted)), known)
        free = [place for place in known.values() if FAULTS[kind].where(place) and place.name not in taken]
        if block and rng.random() < 0.5:
            free = [place for place in free if place.name.startswith(block)]
        if not free:
            continue
        step = Step(kind, rng.choice(free), rng.getrandbits(62))
        alone = planted(mutant.network, mutant.seed, [step])
        if alone is None or alone.effect is not Effect.VISIBLE or alone.planted[0].touched & taken:
            continue
        grown = planted(mutant.network, mutant.seed, [*mutant.steps, step])
        if grown is not None and _each_shows(grown):
            mutant = grown
    return mutant


def _each_shows(mutant: Mutant) -> bool:
    """Whether taking any one fault out changes the outcome, so that none hides behind another."""
    whole = _outcome(mutant.candidate, mutant.inputs)
    for step in mutant.steps:
        rest = planted(mutant.network, mutant.seed, [other for other in mutant.steps if other is not step])
        if rest is None or _same(whole, _outcome(rest.candidate, mutant.inputs)):
            return False
    return True


@cache
def _inputs(network: str, seed: int) -> list[Tensor]:
    return [images(network, 2, 1000 * seed + k) for k in range(1, 2 + OTHER_INPUTS)]


@cache
def _baseline_outcomes(network: str, seed: int) -> list[list[Tensor]]:
    return [_outcome(build(network, seed), x) for x in _inputs(network, seed)]


def _outcome(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and all buffers after one forward pass in float64."""
    model = copy.deepcopy(model).double()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        output = model(x.double())
    return [output, *model.buffers()]


def _shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape that each childless module returns."""
    model = copy.deepcopy(model)
    found: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, out, name=name: found.update({name: tuple(out.shape)}))
    with torch.random.fork_rng(), torch.no_grad():
        model(x)
    return found


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )
