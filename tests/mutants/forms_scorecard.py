"""How good the verifier is on deployed forms: `python -m tests.mutants.forms_scorecard --count 100 --benign 60`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.forms.scoring import FormBenign, FormScore, score_benign, score_fault
from tests.mutants.scorecard import Bar, run

if TYPE_CHECKING:
    from collections.abc import Sequence


def bars(faults: Sequence[FormScore], benign: Sequence[FormBenign]) -> list[Bar]:
    """The card's lines."""
    count = len(faults)
    return [
        Bar("detected", sum(each.detected for each in faults), count, 1.0),
        Bar("first culprit right", sum(each.site for each in faults), count, 0.95),
        Bar("stage right", sum(each.stage for each in faults), count, 0.99),
        Bar(
            "benign, no false alarm",
            sum(each.verdict not in {"diverged", "error"} for each in benign),
            len(benign),
            1.0,
        ),
        Bar("benign, match", sum(each.verdict == "match" for each in benign), len(benign), 0.0),
    ]


def report(faults: Sequence[FormScore], benign: Sequence[FormBenign]) -> list[str]:
    """The card, what was planted, and a line for everything that was missed."""
    lines = [str(bar) for bar in bars(faults, benign)]
    lines.append(f"forms: {dict(Counter(each.form for each in faults))}")
    lines.append(f"kinds: {dict(sorted(Counter(each.kind for each in faults).items()))}")
    for title, missed in (
        ("not detected", [each for each in faults if not each.detected]),
        ("first culprit wrong", [each for each in faults if each.detected and not each.site]),
        ("stage wrong", [each for each in faults if each.site and not each.stage]),
        ("false alarms", [each for each in benign if each.verdict in {"diverged", "error"}]),
        ("left open", [each for each in benign if each.verdict == "inconclusive"]),
    ):
        if missed:
            lines += [f"{title}:", *(f"  {each}" for each in missed)]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, verify, print; exits 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="forms with a fault")
    parser.add_argument("--benign", type=int, default=60, help="forms that are right")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where all marks are written, as JSON")
    asked = parser.parse_args(arguments)
    drawn = run(partial(score_fault, asked.seed), asked.count, asked.jobs, "faults")
    faults = [FormScore(**each) for each in drawn if each]
    benign = [
        FormBenign(**each)
        for each in run(partial(score_benign, asked.seed), asked.benign, asked.jobs, "benign")
    ]
    print("\n".join(report(faults, benign)))
    if asked.out is not None:
        asked.out.write_text(json.dumps([vars(each) for each in (*faults, *benign)], indent=1))
    return int(not all(bar.met for bar in bars(faults, benign)))


if __name__ == "__main__":
    sys.exit(main())
