"""How good the verifier is: `python -m tests.mutants.scorecard --mutants 1000 --benign 300 --ports 117 --seed 0`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.mutants.drawing import Effect
from tests.mutants.ports.catalogue import PORTS
from tests.mutants.ports.scoring import PortScore, score_port
from tests.mutants.scoring import BenignScore, Score, score_benign, score_mutant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Bar:
    """One line of the card: how many of how many, and the share that is asked for."""

    name: str
    count: int
    of: int
    least: float

    @property
    def met(self) -> bool:
        return self.of == 0 or self.count / self.of >= self.least

    def __str__(self) -> str:
        share = self.count / self.of if self.of else 1.0
        asked = f"asked {self.least:.0%}" if self.least else ""
        counted = f"{self.name:<28}{self.count:>6} of {self.of:<6}{share:>8.2%}"
        return f"{counted}  {asked:<12}{'' if self.met else 'MISSED'}".rstrip()


def bars(
    mutants: Sequence[Score], benign: Sequence[BenignScore], ports: Sequence[PortScore] = ()
) -> list[Bar]:
    """The card's lines. Only mutants that differ on the input they are verified with count."""
    visible = [score for score in mutants if score.effect == Effect.VISIBLE]
    count = len(visible)
    return [
        Bar("detected", sum(score.detected for score in visible), count, 1.0),
        Bar("first culprit exact", sum(score.first for score in visible), count, 1.0),
        Bar("all culprits exact", sum(score.localised for score in visible), count, 0.99),
        Bar(
            "all exact, shapes agree",
            sum(score.localised for score in visible if not score.shadowed),
            sum(not score.shadowed for score in visible),
            0.0,
        ),
        Bar("diagnosed", sum(score.diagnosed for score in visible), count, 0.95),
        Bar("models left alone", sum(score.untouched for score in mutants), len(mutants), 1.0),
        Bar(
            "benign, no false alarm",
            sum(s.verdict in {"match", "inconclusive"} for s in benign),
            len(benign),
            1.0,
        ),
        Bar("benign, match", sum(s.verdict == "match" for s in benign), len(benign), 0.0),
        Bar("ports, detected", sum(s.detected for s in ports), len(ports), 1.0),
        Bar("ports, culprits exact", sum(s.localised for s in ports), len(ports), 0.97),
        Bar("ports, diagnosed", sum(s.diagnosed for s in ports), len(ports), 0.9),
        Bar("ports, correct match", sum(s.control == "match" for s in ports), len(ports), 1.0),
    ]


def run(work: Callable[[int], dict[str, Any]], count: int, jobs: int, what: str) -> list[dict[str, Any]]:
    """`work` on 0 .. count - 1, in order, `jobs` at a time."""
    done = []
    with multiprocessing.get_context("spawn").Pool(jobs, torch.set_num_threads, (1,)) as pool:
        for record in pool.imap(work, range(count), chunksize=4):
            done.append(record)
            if sys.stderr.isatty():
                print(f"\r{what} {len(done)}/{count}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return done


def by_kind(mutants: Sequence[Score]) -> dict[str, dict[str, int]]:
    """Marks of the mutants with one fault, by its kind."""
    table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for score in mutants:
        if len(score.kinds) == 1:
            row = table[score.kinds[0]]
            row[score.effect] += 1
            if score.effect == Effect.VISIBLE:
                for mark in ("detected", "first", "localised", "diagnosed"):
                    row[mark] += getattr(score, mark)
    return {kind: dict(table[kind]) for kind in sorted(table)}


def report(
    mutants: Sequence[Score], benign: Sequence[BenignScore], ports: Sequence[PortScore] = ()
) -> list[str]:
    """The card, then a line for everything that was missed."""
    lines = [str(bar) for bar in bars(mutants, benign, ports)]
    for effect in (Effect.UNEXERCISED, Effect.EQUIVALENT):
        apart = [score for score in mutants if score.effect == effect]
        flagged = sum(score.detected for score in apart)
        lines.append(f"{effect + ', not counted':<28}{len(apart):>6}, of which {flagged} flagged")
    visible = [score for score in mutants if score.effect == Effect.VISIBLE]
    lines += section("not detected", [s for s in visible if not s.detected])
    lines += section("first culprit wrong", [s for s in visible if s.detected and not s.first])
    lines += section("culprits wrong", [s for s in visible if s.first and not s.localised])
    lines += section("diagnosis wrong", [s for s in visible if s.localised and not s.diagnosed])
    lines += section("models written to", [s for s in mutants if not s.untouched])
    lines += section("false alarms", [s for s in benign if s.verdict not in {"match", "inconclusive"}])
    lines += section("benign but inconclusive", [s for s in benign if s.verdict == "inconclusive"])
    lines += section("ports not detected", [s for s in ports if not s.detected])
    lines += section("culprits of ports wrong", [s for s in ports if s.detected and not s.localised])
    lines += section("diagnosis of ports wrong", [s for s in ports if s.localised and not s.diagnosed])
    return lines + section("correct ports that do not match", [s for s in ports if s.control != "match"])


def section(title: str, scores: Sequence[Score | BenignScore | PortScore]) -> list[str]:
    return ["", f"{title} ({len(scores)})", *(f"  {score}" for score in scores)] if scores else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, verify, print; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="scorecard", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000, help="how many to draw")
    parser.add_argument("--benign", type=int, default=300, help="how many to draw")
    parser.add_argument("--ports", type=int, default=len(PORTS), help="how many to draw, each kind in turn")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores there, too")
    asked = parser.parse_args(arguments)
    started = time.perf_counter()
    mutants = [
        Score(**record)
        for record in run(partial(score_mutant, asked.seed), asked.mutants, asked.jobs, "mutants")
    ]
    benign = [
        BenignScore(**record)
        for record in run(partial(score_benign, asked.seed), asked.benign, asked.jobs, "benign")
    ]
    ports = [
        PortScore(**record)
        for record in run(partial(score_port, asked.seed), asked.ports, asked.jobs, "ports")
    ]
    seconds = time.perf_counter() - started
    print("\n".join(report(mutants, benign, ports)))
    counted = f"{len(mutants)} mutants, {len(benign)} benign variants, {len(ports)} ports"
    print(f"\n{counted}, seed {asked.seed}, {seconds:.0f} s")
    if asked.json:
        card = {
            "seed": asked.seed,
            "seconds": seconds,
            "bars": [{**asdict(bar), "met": bar.met} for bar in bars(mutants, benign, ports)],
            "by_kind": by_kind(mutants),
            "mutants": [asdict(score) for score in mutants],
            "benign": [asdict(score) for score in benign],
            "ports": [asdict(score) for score in ports],
        }
        asked.json.write_text(json.dumps(card, indent=1) + "\n")
    return 0 if all(bar.met for bar in bars(mutants, benign, ports)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
