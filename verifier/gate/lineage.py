"""Which runs follow which: by the ancestry of their commits, and where git does not know them by time on a branch.

Only the commits that runs were recorded on count. No branch, tag or stash has a say in it.
"""

from __future__ import annotations

import heapq
import itertools
import re
from typing import TYPE_CHECKING

from verifier.border import git

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from verifier.records import RecordedRun

Ancestry = dict[str, tuple[str, ...]]
"""Commits and, of each, the nearest ones above it, the first parent's first; ancestors come before descendants."""

_PATIENCE = 20.0  # seconds git may take to walk a history
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def ancestry(runs: Sequence[RecordedRun]) -> Ancestry:
    """How the commits of these runs descend from one another; those that git does not know here are left out."""
    named = sorted({run.commit for run in runs if _COMMIT.fullmatch(run.commit)})
    if not named:
        return {}
    said = git.ask(
        *("rev-list", "--ignore-missing", "--topo-order", "--reverse", "--parents", "--stdin"),
        given="".join(f"{commit}\n" for commit in named),
        patience=_PATIENCE,
    )
    rows = (line.split() for line in (said or "").splitlines())
    return thinned({commit: tuple(parents) for commit, *parents in rows}, set(named))


def thinned(whole: Mapping[str, tuple[str, ...]], wanted: Container[object]) -> Ancestry:
    """The ancestry of some of the commits alone."""
    nearest: Ancestry = {}
    for commit, parents in whole.items():
        above = [(each,) if each in wanted else nearest.get(each, ()) for each in parents]
        nearest[commit] = above[0] if len(above) == 1 else tuple(dict.fromkeys(sum(above, ())))
    found: Ancestry = {}
    for commit, above_it in nearest.items():
        if commit in wanted:
            found[commit] = _without_ancestors(above_it, found)
    return found


def _without_ancestors(commits: tuple[str, ...], known: Ancestry) -> tuple[str, ...]:
    """Of commits that a merge brings together, those that none of the others builds on."""
    if len(commits) < 2:
        return commits
    left = [above for commit in commits for above in known[commit]]
    seen: set[str] = set()
    while left:
        commit = left.pop()
        if commit not in seen:
            seen.add(commit)
            left += known[commit]
    return tuple(commit for commit in commits if commit not in seen)


def ordered(runs: Sequence[RecordedRun], known: Ancestry) -> list[RecordedRun]:
    """Runs, given as they were recorded, with ancestors first; what neither builds on the other stays as recorded.

    Of one commit those of its own tree come first: a tree that differs from it was made from it.
    """
    groups: dict[str | int, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.commit if run.commit in known else run.number, []).append(run)
    below: dict[str | int, list[str]] = {}
    missing = dict.fromkeys(groups, 0)
    for commit, above in thinned(known, groups).items():
        missing[commit] = len(above)
        for each in above:
            below.setdefault(each, []).append(commit)
    ready = [(group[0].number, key) for key, group in groups.items() if not missing[key]]
    heapq.heapify(ready)
    found: list[RecordedRun] = []
    while ready:
        _, key = heapq.heappop(ready)
        found += sorted(groups[key], key=lambda run: (bool(run.dirty), run.number))
        for each in below.get(key, ()):
            missing[each] -= 1
            if not missing[each]:
                heapq.heappush(ready, (groups[each][0].number, each))
    return found


def predecessors(runs: Sequence[RecordedRun], known: Ancestry) -> dict[int, RecordedRun]:
    """The run each is to be compared with, by its number: the last before it on its own line, if there is one.

    That is one of the same commit, else of the nearest ancestor, there rather of the commit than of a tree that
    differs from it. Where git does not know both commits, it is the last that was recorded before on the same branch.

    Args:
        runs: On one ground, in order.
        known: As git knows it of these and others.
    """
    own = thinned(known, {run.commit for run in runs})
    latest: dict[str, RecordedRun] = {}  # of each commit
    tips: dict[str, RecordedRun] = {}  # and the run that others go on from
    found: dict[int, RecordedRun] = {}
    for place, run in enumerate(runs):
        above = next((tips[each] for each in own.get(run.commit, ()) if each in tips), None)
        before = latest.get(run.commit) or above or _recorded_before(run, itertools.islice(runs, place), own)
        if before is not None:
            found[run.number] = before
        if run.commit in own:
            latest[run.commit] = run
            if not run.dirty or run.commit not in tips or tips[run.commit].dirty:
                tips[run.commit] = run
    return found


def _recorded_before(run: RecordedRun, earlier: Iterable[RecordedRun], known: Ancestry) -> RecordedRun | None:
    alike = (
        each
        for each in earlier
        if each.branch == run.branch and not (run.commit in known and each.commit in known)
    )
    return max(
        (each for each in alike if each.number < run.number), key=lambda each: each.number, default=None
    )
