"""The first bad commit between two, by `git bisect run` in a worktree of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import verifier
from reports.headline import headline
from verifier.border import git
from verifier.border.error_texts import sentence
from verifier.errors import CannotRunError, UsageError
from verifier.gate import bisect_launch, bisect_step
from verifier.gate.history import VARIABLE, place
from verifier.gate.relocating import relocated
from verifier.records import Bisection, Trial, Verdict
from verifier.storage.saving import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from verifier.storage.saving import Verification

_GRACE = 5.0  # seconds for an interrupted run to end
_LOOK = 0.1  # seconds between looks at what the steps have written

# Hooks of the repository are for its users' checkouts, and words are read in one language.
_QUIET = ("-c", f"core.hooksPath={os.devnull}", "-c", "advice.detachedHead=false")
_ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


@dataclass(frozen=True, slots=True)
class Repository:
    """A checkout, the directory below it that the user works in, and what git tracks there."""

    top: Path
    prefix: str
    tracked: frozenset[str]

    @classmethod
    def here(cls) -> Repository:
        """The one the process works in.

        Raises:
            UsageError: There is none.
        """
        top = git.ask("rev-parse", "--show-toplevel")
        if not top:
            raise UsageError("bisect needs a git repository with a working tree, and this is none.")
        prefix = git.ask("rev-parse", "--show-prefix") or ""
        tracked = git.run("ls-files", "-z", at=Path(top)).stdout.split("\0")
        return cls(Path(top), prefix.rstrip("/"), frozenset(tracked))

    def commit(self, revision: str) -> str:
        """The commit a revision names.

        Raises:
            UsageError: It names none.
        """
        found = git.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if found:
            return found
        shallow = git.ask("rev-parse", "--is-shallow-repository") == "true"
        hint = " This clone is shallow; fetch more of its history." if shallow else ""
        raise UsageError(f"{revision!r} is no commit of this repository.{hint}")


def bisect(
    good: str, bad: str, command: Sequence[str], told: Callable[[Trial], None]
) -> tuple[Bisection, Verification | None]:
    """Find the first commit after `good`, up to `bad`, from which on the command diverges.

    The checkout is not touched, and nothing is left behind, neither after Ctrl-C.

    Args:
        good: A revision at which the command ends with a match.
        bad: One after it, at which it diverges.
        command: `run` and its options, without `--out`.
        told: Told of every commit that was tried.

    Returns:
        How it ended, and the result at the first bad commit.

    Raises:
        UsageError: There is no repository, the revisions are none, or not good and bad.
        CannotRunError: Nothing can be said of one of them, or of any commit between.
    """
    repository = Repository.here()
    ends = repository.commit(good), repository.commit(bad)
    _check_order(good, bad, ends)
    with _ended_as_by_ctrl_c(), _workplace(repository, command, ends[1]) as bench:
        _check_ends(bench, (good, bad), ends, told)
        between = int(bench.git("rev-list", "--count", f"{ends[0]}..{ends[1]}"))
        commits = [ends[1]] if between == 1 else _searched(bench, ends, told)
        result = _result(bench.results / commits[0]) if len(commits) == 1 else None
        return _told(bench, ends, between, commits), result


@dataclass(frozen=True, slots=True)
class _Bench:
    root: Path

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def log(self) -> Path:
        return self.root / "trials"

    @property
    def step(self) -> list[str]:
        return [sys.executable, "-I", str(self.root / "step.py")]

    def git(self, *arguments: str) -> str:
        """What git says in the worktree.

        Raises:
            CannotRunError: It fails.
        """
        return _checked(git.run(*_QUIET, *arguments, at=self.tree, environment=_ENVIRONMENT))

    def trials(self) -> list[Trial]:
        """What was tried so far."""
        if not self.log.exists():
            return []
        whole = self.log.read_text(encoding="utf-8").rpartition("\n")[0]
        rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        return [Trial(**{**row, "verdict": Verdict(row["verdict"])}) for row in rows]


def _check_order(good: str, bad: str, ends: tuple[str, str]) -> None:
    if ends[0] == ends[1]:
        raise UsageError(f"{good} and {bad} are the same commit.")
    if git.ask("merge-base", "--is-ancestor", *ends) is None:
        turned = git.ask("merge-base", "--is-ancestor", *reversed(ends)) is not None
        hint = (
            "it comes after it: give the good one first"
            if turned
            else "give a good one that the bad one builds on"
        )
        raise UsageError(f"{good} is no ancestor of {bad}; {hint}.")


@contextlib.contextmanager
def _workplace(repository: Repository, command: Sequence[str], commit: str) -> Iterator[_Bench]:
    """A temporary directory with a worktree and the programs that are run in it; gone afterwards."""
    bench = _Bench(Path(os.path.realpath(tempfile.mkdtemp(prefix="verifier-bisect-"))))
    try:
        shutil.copy(bisect_step.__file__, bench.root / "step.py")
        shutil.copy(bisect_launch.__file__, bench.root / "launch.py")
        (bench.root / "tracked").write_text("\0".join(repository.tracked), encoding="utf-8")
        history = place()
        terms = {
            "tree": str(bench.tree),
            "prefix": repository.prefix,
            "checkout": str(repository.top),
            "home": str(Path(verifier.__file__).parents[1]),
            "launch": str(bench.root / "launch.py"),
            "tracked": str(bench.root / "tracked"),
            "results": str(bench.results),
            "log": str(bench.log),
            "arguments": relocated(command, repository.top, repository.prefix, repository.tracked),
            "environment": {
                "PYTHONDONTWRITEBYTECODE": "1",
                VARIABLE: "off" if history is None else str(history.absolute()),
            },
        }
        (bench.root / "terms.json").write_text(json.dumps(terms), encoding="utf-8")
        add = ("worktree", "add", "--quiet", "--detach", str(bench.tree), commit)
        _checked(git.run(*_QUIET, *add, at=repository.top, environment=_ENVIRONMENT))
        yield bench
    finally:
        for words in (("worktree", "remove", "--force", "--force", str(bench.tree)), ("worktree", "prune")):
            with contextlib.suppress(OSError):
                git.run(*words, at=repository.top, environment=_ENVIRONMENT, apart=True)
            shutil.rmtree(bench.root, ignore_errors=True)


def _check_ends(
    bench: _Bench, names: tuple[str, str], ends: tuple[str, str], told: Callable[[Trial], None]
) -> None:
    for name, commit, wanted in reversed(
        list(zip(names, ends, (Verdict.MATCH, Verdict.DIVERGED), strict=True))
    ):
        bench.git("checkout", "--quiet", "--force", "--detach", commit)
        _follow(bench, bench.step, told)
        found = _explained(bench.trials()[-1], bench)
        if found.verdict is Verdict.SKIPPED:
            kind = UsageError if found.code == UsageError.exit_code else CannotRunError
            raise kind(f"nothing can be said of {name}, {_named(found)}: {sentence(found.said)}")
        if found.verdict is not wanted:
            is_not, does = ("good", "diverges") if wanted is Verdict.MATCH else ("bad", "matches")
            said = found.said.removeprefix(f"{found.verdict}: ").rstrip(".")
            why = f" ({said})" if said else ""
            raise UsageError(f"{name} is not {is_not}: {_named(found)} {does}{why}.")


def _explained(trial: Trial, bench: _Bench) -> Trial:
    """With the sentence that `run` begins with, which has the cause, in the place of the reason."""
    if trial.verdict is not Verdict.DIVERGED:
        return trial
    return msgspec.structs.replace(trial, said=_headline(bench.results / trial.commit))


@functools.cache
def _headline(directory: Path) -> str:
    return headline(_result(directory))


def _named(found: Trial) -> str:
    return f"{found.commit[:12]} {found.subject!r}"


def _searched(bench: _Bench, ends: tuple[str, str], told: Callable[[Trial], None]) -> list[str]:
    """The commits that may be the first bad one, oldest first: one, unless others were skipped."""
    bench.git("bisect", "start", *reversed(ends))
    code = _follow(bench, ["git", *_QUIET, "bisect", "run", *bench.step], told)
    if code == 0:
        return [bench.git("rev-parse", "refs/bisect/bad")]
    goods = bench.git("for-each-ref", "--format=%(objectname)", "refs/bisect/good-*").split()
    left = bench.git("rev-list", "--topo-order", "--reverse", "refs/bisect/bad", "--not", *goods).split()
    skipped = {trial.commit: trial for trial in bench.trials() if trial.verdict is Verdict.SKIPPED}
    if not set(left[:-1]) <= skipped.keys():
        lines = (bench.root / "git").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise CannotRunError(f"git bisect stopped ({lines[-1] if lines else f'exit code {code}'}).")
    if len(left) == int(bench.git("rev-list", "--count", f"{ends[0]}..{ends[1]}")):
        last = skipped[left[-2]]
        raise CannotRunError(
            f"no commit between the two could be run, the last of {len(left) - 1}, {_named(last)}, because of: "
            f"{sentence(last.said)} Run the same command there to see more; mend that, or give other ends."
        )
    return left


def _follow(bench: _Bench, command: Sequence[str], told: Callable[[Trial], None]) -> int:
    """Run a command in the worktree to its end and tell of what is tried. It ends when this process does."""
    known = len(bench.trials())
    with (bench.root / "git").open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - git, or a step
            command,
            cwd=bench.tree,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # a group that can be ended as a whole
        )
    try:
        while True:
            ended = process.poll()
            for trial in bench.trials()[known:]:
                known += 1
                told(_explained(trial, bench))
            if ended is not None:
                break
            time.sleep(_LOOK)
    finally:
        _end(process)
    if len(bench.trials()) == 0 or (ended and command[0] != "git" and ended not in (1, 125)):
        lines = (bench.root / "git").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise CannotRunError(f"a step could not be run ({lines[-1] if lines else f'exit code {ended}'}).")
    return ended


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it has started, politely first."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _told(bench: _Bench, ends: tuple[str, str], between: int, commits: list[str]) -> Bisection:
    author, date = bench.git("show", "-s", "--date=short", "--format=%an%x00%ad", commits[-1]).split("\0")
    changed = bench.git(
        "diff-tree", "--no-commit-id", "--name-only", "-r", "-m", "--first-parent", commits[-1]
    )
    return Bisection(
        good=ends[0],
        bad=ends[1],
        between=between,
        commits=tuple(commits),
        subjects=tuple(bench.git("show", "-s", "--format=%s", commit) for commit in commits),
        author=author if len(commits) == 1 else "",
        date=date if len(commits) == 1 else "",
        changed=tuple(changed.splitlines()) if len(commits) == 1 else (),
        trials=tuple(bench.trials()),
    )


def _result(directory: Path) -> Verification:
    """The result of a run; of several networks the first that diverged."""
    found = [load(file) for file in sorted(directory.rglob("result.json"))]
    return next((each for each in found if each.verdict is Verdict.DIVERGED), found[0])


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CannotRunError(f"git failed: {lines[-1] if lines else f'exit code {done.returncode}'}.")
    return done.stdout.strip("\n")


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let a request to end (SIGTERM) unwind as Ctrl-C does: worktrees are not left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
