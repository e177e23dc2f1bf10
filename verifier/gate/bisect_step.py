"""One step of a bisection: verify the commit that is checked out, and say good, bad or neither to `git bisect run`.

A program of its own that imports nothing of this package: a copy of it is what git runs. It ends with 0 for a match,
1 where a saved result says `diverged`, 125 for all that gave no verdict, and 130, which stops git, when interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

GOOD, BAD, NEITHER, STOP = 0, 1, 125, 130
_VERDICTS = {GOOD: "match", BAD: "diverged", NEITHER: "skipped"}
_OWN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_CONFIG_PARAMETERS",
    "GIT_OBJECT_DIRECTORY",
    "GITHUB_ACTIONS",
    "GITHUB_STEP_SUMMARY",
)


def main() -> int:
    """Verify what is checked out, write down how it went, and say what git is to make of it."""
    terms = json.loads(Path(__file__).with_name("terms.json").read_text(encoding="utf-8"))
    commit, _, subject = _git(terms["tree"], "log", "-1", "--format=%H %s").partition(" ")
    answer, code, said = _verified(terms, commit)
    if answer != STOP:
        trial = {
            "commit": commit,
            "subject": subject,
            "verdict": _VERDICTS[answer],
            "said": said,
            "code": code,
        }
        with Path(terms["log"]).open("a", encoding="utf-8") as log:
            log.write(json.dumps(trial) + "\n")
    return answer


def _git(tree: str, *arguments: str) -> str:
    return subprocess.run(  # noqa: S603 - git, where a bisection has found it
        ["git", *arguments],  # noqa: S607
        cwd=tree, check=True, stdout=subprocess.PIPE, encoding="utf-8", errors="backslashreplace",
    ).stdout.strip()  # fmt: skip


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a trial gets of the environment: all but git's own, and what makes a trial's faults the job's."""
    return {name: value for name, value in environment.items() if name not in _OWN}


def _verified(terms: dict[str, Any], commit: str) -> tuple[int, int, str]:
    """What to tell git, the run's exit code, and why."""
    place = Path(terms["tree"]) / terms["prefix"]
    if not place.is_dir():
        return NEITHER, 2, f"there is no directory {terms['prefix']} at this commit"
    out = Path(terms["results"]) / commit
    done = subprocess.run(  # noqa: S603 - this package, by the interpreter that runs it
        [sys.executable, "-P", terms["launch"], *terms["arguments"], "--out", str(out)],
        cwd=place,
        env={**inherited(os.environ), **terms["environment"]},
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
    )
    if done.returncode in (STOP, -2):
        return STOP, done.returncode, ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("verifier: warning: ")]
    own = [
        k for k, line in enumerate(lines) if line.startswith("verifier: ")
    ]  # a message may have several lines
    said = " ".join(lines[own[-1] if own else -1 :]).removeprefix("verifier: ")
    said = said or f"the run ended with {done.returncode}"
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.rglob("result.json"))]
    verdicts = [str(result["verdict"]) for result in found]
    if done.returncode == BAD and "diverged" in verdicts:  # a program may end with 1, too
        return BAD, BAD, str(found[verdicts.index("diverged")]["reason"])
    if done.returncode == GOOD and verdicts and set(verdicts) <= {"match", "accepted"}:
        return GOOD, GOOD, ""
    open_ = next((str(each["reason"]) for each in found if each["verdict"] == "inconclusive"), said)
    return NEITHER, done.returncode, open_


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(STOP)
