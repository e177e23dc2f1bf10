"""What the verifier said of one port with a fault and of the same port without it."""

from __future__ import annotations

import random
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tests.mutants.drawing import SEEDS
from tests.mutants.ports.catalogue import PORTS
from tests.mutants.ports.hosts import Host, bodies
from verifier import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mutants.ports.hosts import Port
    from verifier.records import PairResult
    from verifier.storage.saving import Verification


@dataclass(frozen=True)
class PortScore:
    """Marks of one kind of port in one network. `localised` and `diagnosed` imply `detected`.

    Attributes:
        index: Its number in the draw.
        name: The kind, a key of `PORTS`.
        body: What the region stands in, a key of `BODIES`.
        detected: With the fault the verdict is `diverged`.
        localised: As many sites are blamed as are wrong, and none outside the region.
        diagnosed: Each site in the region that is blamed has a confirmed cause with one of the kind's words.
        control: The verdict without the fault: a false alarm if it is `diverged`.
        said: What the verifier said of the fault.
        said_of_control: What it said of the correct port.
        seconds: How long both took.
    """

    index: int
    name: str
    body: str
    detected: bool
    localised: bool
    diagnosed: bool
    control: str
    said: str
    said_of_control: str
    seconds: float

    def __str__(self) -> str:
        said = f"{self.said}; without the fault {self.said_of_control}"
        return f"port {self.index}, {self.name} in {self.body}: {said}"


def draw(seed: int, index: int) -> tuple[str, str, int]:
    """A kind, a body and a seed of parameters and inputs. Each kind comes once before any comes again."""
    kinds = sorted(PORTS)
    turn, place = divmod(index, len(kinds))
    random.Random(f"{seed}/ports/{turn}").shuffle(kinds)
    rng = random.Random(f"{seed}/port/{index}")
    return kinds[place], rng.choice(bodies(PORTS[kinds[place]].inputs)), rng.randrange(SEEDS)


def score_port(seed: int, index: int) -> dict[str, Any]:
    """Draw the port with this number and score it. The record is plain, so that it travels."""
    return asdict(score(*draw(seed, index), index))


def score(name: str, body: str, seed: int = 0, index: int = 0) -> PortScore:
    """Verify a port with its fault and without it."""
    started = time.perf_counter()
    port = PORTS[name]
    wrong, said = _attempt(lambda: compared(port, port.wrong, body, seed))
    right, said_of_control = _attempt(lambda: compared(port, port.right, body, seed))
    return PortScore(
        index,
        name,
        body,
        *((False, False, False) if wrong is None else marks(port, wrong)),
        "error" if right is None else str(right.verdict),
        said,
        said_of_control,
        time.perf_counter() - started,
    )


def compared(port: Port, region: Any, body: str | None = None, seed: int = 0) -> Verification:
    """The port's baseline against a candidate with this region, each with its own weights."""
    x = torch.randn(port.inputs, generator=torch.Generator().manual_seed(seed + 1))
    baseline, candidate = Host(port.baseline, body, seed).eval(), Host(region, body, seed).eval()
    return verify(baseline, candidate, x, weights="as-is")


def marks(port: Port, found: Verification) -> tuple[bool, bool, bool]:
    """Whether the fault is detected, localised and diagnosed, as `PortScore` says."""
    if found.verdict is not Verdict.DIVERGED:
        return False, False, False
    inside = [row for row in found.culprits if _inside(row)]
    localised = len(inside) == len(found.culprits) == port.culprits
    return True, localised, bool(inside) and all(explained(port, row) for row in inside)


def explained(port: Port, row: PairResult) -> bool:
    """Whether the cause is confirmed and says what the kind's cause must say."""
    cause = row.cause
    return (
        cause is not None
        and cause.confirmed
        and re.search(port.words, f"{cause.code} {cause.summary}") is not None
    )


def _inside(row: PairResult) -> bool:
    """Whether a row is about the region, not about what stands around it."""
    site = row.candidate or row.baseline or ""
    return site.partition(".")[0] not in {"first", "last", "before", "after"}


def _attempt(verified: Callable[[], Verification]) -> tuple[Verification | None, str]:
    try:
        found = verified()
    except Exception as error:  # a crash is a miss, and the others are still to be scored
        return None, f"{type(error).__name__}: {error}"
    if found.verdict is not Verdict.DIVERGED:
        return found, f"{found.verdict} {found.reason}".strip()
    return found, f"blamed {'; '.join(map(_row, found.culprits)) or 'nothing'}"


def _row(row: PairResult) -> str:
    site = row.baseline if row.baseline == row.candidate else f"{row.baseline}/{row.candidate}"
    if row.cause is None:
        return f"{site}"
    return f"{site} [{row.cause.code}{'' if row.cause.confirmed else '?'}: {row.cause.summary}]"
