"""A run is compared with the last one of its own line, whatever other branches and refs there are."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests import samples
from tests.verifier.gate.test_changes import bad, good
from verifier.gate.history import append
from verifier.gate.lineage import thinned
from verifier.gate.recall import Selection, recall

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.records import History
    from verifier.storage.saving import Verification

pytestmark = pytest.mark.usefixtures("outside")


class Repository:
    """A repository and runs on its commits."""

    def __init__(self, place: Path) -> None:
        self.place, self.file, self.made = place, place / "h.sqlite", 0
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *identity, *words], cwd=self.place, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        self.made += 1  # or two of one second were the same commit
        self.git("commit", "--quiet", "--allow-empty", "--message", f"Change {self.made}")
        return self.git("rev-parse", "HEAD")

    def kept(self, result: Verification, commit: str | None = None, **fields: Any) -> int:
        known = {"commit": self.git("rev-parse", "HEAD") if commit is None else commit, "dirty": False}
        environment = msgspec.structs.replace(result.environment, **(known | fields))
        return append(msgspec.structs.replace(result, environment=environment), self.file)

    def recalled(self) -> History:
        return recall(self.file, Selection())


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_branch_that_is_wrong_changes_nothing_on_its_neighbours(repository: Repository) -> None:
    repository.commit()
    repository.kept(good())
    repository.git("checkout", "--quiet", "-b", "feature")
    repository.commit()
    repository.kept(bad())
    repository.git("checkout", "--quiet", "main")
    repository.commit()
    repository.kept(good())
    repository.git("checkout", "--quiet", "feature")
    repository.commit()
    repository.kept(bad())
    [timeline] = repository.recalled().timelines
    assert timeline.befores == {2: 1, 3: 1, 4: 2}
    assert timeline.verdicts == (2,)
    assert {change.run for change in timeline.changes} == {2}

    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge", "feature")
    repository.kept(bad())
    [timeline] = repository.recalled().timelines
    assert (timeline.befores[5], timeline.verdicts) == (3, (2, 5))  # on main it came with the merge


def test_the_order_is_that_of_the_commits_and_no_other_ref_moves_a_run(repository: Repository) -> None:
    made = [repository.commit() for _ in range(3)]
    for each in (2, 0, 1):
        repository.kept(good(), made[each])
    repository.git("checkout", "--quiet", "-b", "side", made[0])
    repository.kept(good(), repository.commit())

    def order() -> list[int]:
        return [run.number for run in repository.recalled().timelines[0].runs]

    assert order() == [2, 3, 1, 4]
    (repository.place / "tracked").touch()
    repository.git("add", "tracked")
    repository.git("stash", "--quiet")
    repository.git("tag", "old", made[2])
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit()
    assert order() == [2, 3, 1, 4]
    assert repository.recalled().by_commit


def test_what_git_does_not_know_is_compared_by_time_on_its_branch(repository: Repository) -> None:
    repository.commit()
    repository.kept(good())
    repository.kept(bad(), "0" * 40)  # of another clone
    repository.git("checkout", "--quiet", "-b", "other")
    repository.kept(good(), "1" * 40)
    repository.commit()
    repository.kept(good())
    found = repository.recalled()
    [timeline] = found.timelines
    assert timeline.befores == {2: 1, 4: 1}
    assert found.unknown == 2


def test_a_tree_that_differed_is_no_ancestor_where_there_is_another(repository: Repository) -> None:
    repository.commit()
    repository.kept(good())
    repository.kept(bad(), dirty=True)
    repository.kept(bad(), dirty=True)
    repository.kept(good())
    repository.commit()
    repository.kept(good())
    [timeline] = repository.recalled().timelines
    assert [run.number for run in timeline.runs] == [1, 4, 2, 3, 5]
    assert timeline.befores == {4: 1, 2: 4, 3: 2, 5: 4}
    assert timeline.verdicts == (2,)


def test_other_models_runs_between_two_commits_do_not_part_them(repository: Repository) -> None:
    other = msgspec.structs.replace(samples.verification().candidate, spec="other.py:build")
    for result in (good(), good(candidate=other), bad()):
        repository.commit()
        repository.kept(result)
    assert [timeline.befores for timeline in repository.recalled().timelines] == [{3: 1}, {}]


def test_of_what_a_merge_brings_together_ancestors_of_others_are_left_out() -> None:
    whole = {"a": (), "b": ("a",), "c": ("a",), "d": ("b",), "e": ("b", "c"), "f": ("d", "e")}
    assert thinned(whole, {"a", "c", "f"}) == {"a": (), "c": ("a",), "f": ("c",)}
    assert thinned(whole, {"b", "c", "e"}) == {"b": (), "c": (), "e": ("b", "c")}
