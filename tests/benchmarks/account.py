"""Where the time of a verification goes: seconds, peak memory and forward passes by phase, beside their floor.

The floor of a phase is what the forward passes that ran in it take bare: as many, in the same dtype, on as many
samples. What a phase takes beyond it is what watching, meeting and comparing cost, or waste.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.benchmarks.measuring import alternate
from verifier.estimate.memory import known, reset_peak, resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.benchmarks.subjects import Given

# What is counted as one phase, by the function that is it; one that runs within another counts for itself alone.
PHASES = {
    "as given": "verifier.bench.as_given:as_given",
    "few samples for all": "verifier.bench.as_given:by_sample",
    "recording": "verifier.bench.side:Side.record",
    "alignment": "verifier.align.matching:align",
    "weights": "verifier.weights.choosing:choose",
    "proof of the pairs": "verifier.bench.pairing:prove",
    "against the oracle": "verifier.bench.oracle:stand",
    "passes": "verifier.bench.measuring:measure",
    "noise floor": "verifier.bench.noise_floor:noise_floor",
    "called again": "verifier.bench.bare_calls:called_again",
    "causes": "verifier.bench.judging:diagnosed",
    "exhibits": "verifier.bench.judging:exhibited",
    "what is not reached": "verifier.diagnose.unreached:unreached",
    "what regions depend on": "verifier.proof.dependence:read",
    "digests": "verifier.weights.fingerprint:Hasher.of_all",
}
ELSE = "all else"


class Forward(NamedTuple):
    """A forward pass: whose, in which dtype, on how many samples."""

    model: str
    dtype: str
    samples: int


@dataclass
class Spent:
    """What one phase took: seconds of its own, resident bytes at its peak, and the forward passes begun in it."""

    calls: int = 0
    seconds: float = 0.0
    peak: int = 0
    forwards: Counter[Forward] = field(default_factory=Counter)


class Account:
    """Keeps the books while it is entered; `spent` holds what each phase took."""

    def __init__(self, roots: Mapping[type[nn.Module], str]) -> None:
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self._roots = roots
        self._stack: list[str] = []
        self._since = 0.0
        self._memory = known()
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Account:
        for name, place in PHASES.items():
            self._exits.enter_context(_instead_of(place, functools.partial(self._kept, name)))
        hook = nn.modules.module.register_module_forward_pre_hook(self._forward)
        self._exits.callback(hook.remove)
        self._push(ELSE)
        return self

    def __exit__(self, *_: object) -> None:
        self._pop()
        self._exits.close()

    def _kept(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def kept(*args: Any, **kwargs: Any) -> Any:
            self._push(name)
            try:
                return function(*args, **kwargs)
            finally:
                self._pop()

        return kept

    def _push(self, name: str) -> None:
        self._settle()
        self._stack.append(name)
        self.spent[name].calls += 1

    def _pop(self) -> None:
        self._settle()
        self._stack.pop()

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._stack:
            spent = self.spent[self._stack[-1]]
            spent.seconds += now - self._since
            if self._memory:
                spent.peak = max(spent.peak, resident("VmHWM"))
        if self._memory:
            reset_peak()
        self._since = time.perf_counter()  # what the books cost is nobody's

    def _forward(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        name = self._roots.get(type(module))
        if name is None or not self._stack:
            return
        floating = next((t.dtype for t in module.parameters() if t.is_floating_point()), torch.float32)
        samples = next((len(arg) for arg in args if isinstance(arg, Tensor) and arg.dim()), 0)
        forward = Forward(name, str(floating).removeprefix("torch."), samples)
        self.spent[self._stack[-1]].forwards[forward] += 1


@contextlib.contextmanager
def _instead_of(place: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Another function in the place of one, wherever the package has imported it to."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, leaf = path.split(".")
    for name in outer:
        owner = getattr(owner, name)
    original = getattr(owner, leaf)
    new = made(original)
    holders = (
        [owner]
        if outer
        else [
            each
            for name, each in list(sys.modules.items())
            if name.startswith("verifier") and each is not None
        ]
    )
    changed = [
        (holder, key) for holder in holders for key, value in list(vars(holder).items()) if value is original
    ]
    for holder, key in changed:
        setattr(holder, key, new)
    try:
        yield
    finally:
        for holder, key in changed:
            setattr(holder, key, original)


def account(given: Given, rounds: int = 3) -> None:
    """Verify a pair of models, print what each phase took beside its floor, and the whole over two bare forwards."""
    verified = given.verify
    seconds = alternate({"bare": given.bare, "verify": verified}, rounds)
    ratios = [one / two for one, two in zip(seconds["verify"], seconds["bare"], strict=True)]
    with Account({type(given.baseline): "baseline", type(given.candidate): "candidate"}) as books:
        found = verified()
    floors = _floors(given, {forward for each in books.spent.values() for forward in each.forwards})
    print(
        f"\n{given.name}: {found.verdict}, {statistics.median(seconds['verify']):.2f} s, two bare forwards "
        f"{statistics.median(seconds['bare']):.2f} s: x {statistics.median(ratios):.2f}"
    )
    print(f"  {'phase':24}{'calls':>6}{'seconds':>9}{'floor':>8}{'peak MiB':>10}  forward passes")
    for name, spent in sorted(books.spent.items(), key=lambda item: -item[1].seconds):
        floor = sum(count * floors[forward] for forward, count in spent.forwards.items())
        told = ", ".join(
            f"{count} of {samples} in {dtype}"
            for (dtype, samples), count in sorted(_by_lane(spent.forwards).items())
        )
        print(
            f"  {name:24}{spent.calls:>6}{spent.seconds:>9.3f}{floor:>8.3f}{spent.peak / 2**20:>10.0f}  {told}"
        )
    everything = sum((each.forwards for each in books.spent.values()), Counter[Forward]())
    floor = sum(count * floors[forward] for forward, count in everything.items())
    spent_in_all = sum(each.seconds for each in books.spent.values())
    print(f"  {'all':24}{'':6}{spent_in_all:>9.3f}{floor:>8.3f}{'':>10}  {sum(everything.values())}")


def _by_lane(forwards: Counter[Forward]) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for forward, count in forwards.items():
        found[forward.dtype, forward.samples] += count
    return found


def _floors(given: Given, forwards: set[Forward]) -> dict[Forward, float]:
    """Seconds of one bare forward pass of each kind, the least of three."""
    found = {}
    for forward in forwards:
        dtype = getattr(torch, forward.dtype)
        model = getattr(given, forward.model)
        kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        copy = given.built(forward.model).to(dtype).eval()
        copy.load_state_dict(kept)
        x = given.inputs[torch.arange(forward.samples) % len(given.inputs)]
        x = x.to(dtype) if x.is_floating_point() else x
        times = []
        with torch.no_grad():
            for _ in range(3):
                started = time.perf_counter()
                copy(x)
                times.append(time.perf_counter() - started)
        found[forward] = min(times)
    return found
