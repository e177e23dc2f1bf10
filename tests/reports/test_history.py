"""What is said of a history: which run, which commit, which site; on a terminal and on a page."""

from __future__ import annotations

from typing import Any

import msgspec

from reports import history as report
from reports import html
from tests import samples
from verifier.records import (
    Bisection,
    Change,
    History,
    Point,
    RecordedRun,
    SiteLine,
    Timeline,
    Trial,
    Verdict,
)


def run(number: int, verdict: Verdict = Verdict.MATCH, **fields: Any) -> RecordedRun:
    known: dict[str, Any] = {
        "number": number,
        "created": f"2026-01-{number:02}T10:00:00+00:00",
        "commit": f"{number:x}" * 40,
        "dirty": False,
        "branch": "main",
        "baseline": "old.py:load",
        "candidate": "new.py:load",
        "weights": "calibrated",
        "inputs": "standard normal numbers",
        "seed": 0,
        "policy": "strict",
        "inputs_digest": "i",
        "weights_digest": "w",
        "torch": "2.11",
        "processor": "CPU",
        "devices": "cpu",
        "command": "run",
        "verdict": verdict,
        "reason": "",
        "first": "",
        "cause": "",
        "code": "",
        "seconds": 1.0,
    }
    return RecordedRun(**(known | fields))


def point(error: float | None, row: int = 0, **fields: Any) -> Point:
    known: dict[str, Any] = {
        "row": row,
        "status": "culprit" if error else "ok",
        "total": error,
        "intrinsic": error,
        "total_mse": error,
        "intrinsic_mse": error,
        "allowed_total": 1e-12,
        "allowed_intrinsic": 1e-12,
    }
    return Point(**(known | fields))


def change(**fields: Any) -> Change:
    known: dict[str, Any] = {
        "run": 2, "before": 1, "cell": "cpu/float64", "site": "bn1", "op": "batch_norm", "kind": "intrinsic",
        "was": 0.0, "now": 5e-4, "status": "culprit", "row": 1,
    }  # fmt: skip
    return Change(**(known | fields))


def history(*changes: Change, site: str = "bn1", **fields: Any) -> History:
    bad = run(2, Verdict.DIVERGED, first="bn1", cause="eps is 0.001 instead of 1e-05", dirty=True)
    line = SiteLine(
        cell="cpu/float64", site=site, op="batch_norm", points=((1, point(0.0)), (2, point(5e-4)))
    )
    timeline = Timeline(
        runs=(run(1), bad), befores={2: 1}, changes=changes, verdicts=(2,) if changes else (), lines=(line,)
    )
    found = History(file="h.sqlite", by_commit=True, unknown=0, timelines=(timeline,), listed=(1, 2))
    return msgspec.structs.replace(found, **fields)


def test_the_change_is_one_sentence() -> None:
    told = report.plain(history(change(), change(site="relu", inherited=True)), sites=False)
    assert told.startswith(
        "2 runs of 1 network in h.sqlite, in the order of their commits; 1 network changed\n"
    )
    assert (
        "run 2, 22222222+, 2026-01-02 10:00; match before, now diverged; bn1, batch_norm, in cpu/float64: intrinsic "
        "relative error exact, now 0.0005; 1 further site with it; eps is 0.001 instead of 1e-05\n" in told
    )
    assert "  1    2026-01-01 10:00  11111111   match     new.py:load against old.py:load  -" in told


def test_rounding_partners_and_other_grounds_are_told() -> None:
    told = report.plain(
        history(change(now=3e-17, rounding=True, grounds=("torch 2.11, now 2.15",))), sites=False
    )
    assert "relative error exact, now 3e-17 (rounding alone); but torch 2.11, now 2.15\n" in told
    assert "bn1, batch_norm, in cpu/float64 has no partner any more" in report.plain(
        history(change(kind="partner", status="unmatched", now=None)), sites=False
    )


def test_nothing_changed_is_said() -> None:
    quiet = history()
    assert report.plain(quiet, sites=False).endswith(
        "new.py:load against old.py:load: nothing changed\n  2 runs\n"
    )
    assert report.plain(history(timelines=()), sites=False) == "no run in h.sqlite is as asked for\n"


def test_a_run_that_stands_behind_another_lines_names_what_it_is_compared_with() -> None:
    runs = (run(1), run(2, Verdict.DIVERGED), run(3, Verdict.DIVERGED))
    timeline = Timeline(runs=runs, befores={2: 1, 3: 1}, changes=(), verdicts=(2, 3))
    told = report.plain(history(timelines=(timeline,), unknown=1), sites=False)
    assert "run 2, 22222222, 2026-01-02 10:00; match before, now diverged\n" in told
    assert "10:00; against run 1, 11111111; match before, now diverged\n" in told
    assert "in the order of their commits, but for 1 run of no commit that git knows here;" in told


def test_series_of_one_network_are_told_apart() -> None:
    others: tuple[dict[str, Any], ...] = (
        {},
        {"weights": "as-is"},
        {"policy": "parity.toml"},
        {"candidate": "third.py:load"},
    )
    timelines = tuple(
        Timeline(runs=(run(number, **fields),), befores={}, changes=(), verdicts=())
        for number, fields in enumerate(others, 1)
    )
    told = report.plain(history(timelines=timelines, listed=(1, 2, 3, 4)), sites=False)
    assert told.startswith("4 runs of 2 networks in 4 series in h.sqlite, ")
    for said in (
        "new.py:load against old.py:load (weights calibrated, policy strict)",
        "new.py:load against old.py:load (weights as-is, policy strict)",
        "new.py:load against old.py:load (weights calibrated, policy parity.toml)",
        "third.py:load against old.py:load",
    ):
        assert f"\n{said}: nothing changed\n" in told
        assert f"  {said}  " in told


def test_where_not_all_runs_are_listed_changes_are_said_to_be_of_all() -> None:
    told = report.plain(history(change(), listed=(2,)), sites=False)
    assert "; 1 network changed, over all these runs, of which 1 is listed\n" in told
    assert "over all" not in report.plain(history(change()), sites=False)


def test_a_site_that_no_run_has_is_said_to_be_none() -> None:
    quiet = history()
    [timeline] = quiet.timelines
    without = history(timelines=(msgspec.structs.replace(timeline, lines=()),))
    assert "no site of these runs is as asked for" in report.plain(without, sites=True)
    assert "as asked for" not in report.plain(without, sites=False)
    assert "as asked for" not in report.plain(quiet, sites=True)


def test_a_site_has_a_table_of_the_runs_listed() -> None:
    told = report.plain(history(change(), listed=(2,)), sites=True)
    assert "bn1, batch_norm, in cpu/float64\n" in told
    [row] = [line for line in told.splitlines() if line.endswith("changed") and "culprit" in line]
    assert row.split() == [
        *(
            "2",
            "2026-01-02",
            "10:00",
            "22222222+",
            "diverged",
            "0.0005",
            "0.0005",
            "1e-12",
            "culprit",
            "changed",
        )
    ]


def test_of_many_runs_the_last_are_listed_and_the_title_says_so() -> None:
    told = report.plain(history(change()), sites=False, most=1)
    assert "Runs, the last 1 of 2\n" in told
    assert "  1    2026" not in told
    assert "  2    2026" in told


def test_many_changes_are_cut_in_the_terminal_alone() -> None:
    runs = tuple(run(number, Verdict.DIVERGED if number % 2 else Verdict.MATCH) for number in range(1, 26))
    befores = {number: number - 1 for number in range(2, 26)}
    timeline = Timeline(runs=runs, befores=befores, changes=(), verdicts=tuple(range(2, 26)))
    found = history(timelines=(timeline,), listed=())
    assert "and 14 more\n" in report.plain(found, sites=False)
    [network] = report.page(found).networks
    assert len(network.changes) == 24


def test_the_page_draws_errors_over_runs_and_needs_nothing_else() -> None:
    page = html.render_history(history(change()))
    assert page.startswith("<!doctype html>")
    assert page == html.render_history(history(change()))
    assert "script-src &#39;none&#39;" in page
    assert "http" not in page.replace("http-equiv", "")
    [panel] = report.page(history(change())).networks[0].panels
    [chart] = panel.charts
    total, intrinsic = chart.lines
    assert (total.label, intrinsic.label) == ("bn1, total", "bn1, intrinsic")
    (_, exact), (_, wrong) = (tuple(map(float, pair.split(","))) for pair in total.path.split())
    assert exact > wrong  # what is exact lies at the foot


def test_names_cannot_get_into_the_markup_nor_drive_a_terminal() -> None:
    name = "<script>alert(1)</script>\x1b[31m"
    found = history(change(site=name), site=name)
    assert "<script" not in html.render_history(found)
    assert "\x1b" not in report.plain(found, sites=True)
    assert name.replace("\x1b", "\\x1b") in report.plain(found, sites=True)


def bisection(*commits: str) -> Bisection:
    trials = (
        Trial(commit="b" * 40, subject="Tidy", verdict=Verdict.DIVERGED, said="bn1 differs", code=1),
        Trial(commit="c" * 40, subject="Typo", verdict=Verdict.SKIPPED, said="no module 'x'", code=2),
    )
    return Bisection(
        good="a" * 40, bad="b" * 40, between=7, commits=commits, subjects=("Tidy\x1b", "Typo")[: len(commits)],
        author="A. Author", date="2026-01-01", changed=("new.py",), trials=trials,
    )  # fmt: skip


def test_a_bisection_ends_with_commit_subject_site_and_cause() -> None:
    told = report.bisected(bisection("b" * 40), samples.diverged())
    assert told.startswith(f"first bad commit: {'b' * 12} Tidy\\x1b\n")
    for said in (
        "A. Author, 2026-01-01",
        "new.py",
        "7 commits after aaaaaaaaaaaa up to bbbbbbbbbbbb: 2 runs, 1 skipped",
    ):
        assert said in told
    assert (
        "bn1 (candidate: stem.bn), batch_norm: eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps)"
        in told
    )


def test_commits_that_cannot_be_told_apart_are_listed() -> None:
    told = report.bisected(bisection("b" * 40, "c" * 40), None)
    assert told.startswith("the first bad commit is one of 2: ")
    assert f"  {'b' * 12} Tidy\\x1b\n  {'c' * 12} Typo\n" in told


def test_why_commits_were_skipped_is_told_whole_and_what_may_help() -> None:
    found = bisection("b" * 40, "c" * 40)
    long = msgspec.structs.replace(found.trials[1], said=f"{'word ' * 60}. And the end")
    told = report.bisected(msgspec.structs.replace(found, trials=(found.trials[0], long)), None)
    assert f"{'c' * 12} Typo: {'word ' * 60}. And the end\n" in told
    assert f"{'b' * 12} Tidy: " not in told
    assert "run the same command there" in told
    assert "give other ends" in told


def test_a_trial_that_diverged_has_the_headline_of_its_run() -> None:
    trial = msgspec.structs.replace(bisection("b" * 40).trials[0], said="diverged: bn1 is wrong: eps is 1")
    assert report.trial(trial) == f"{'b' * 12} Tidy: diverged: bn1 is wrong: eps is 1"


def test_a_trial_is_a_line() -> None:
    skipped = bisection("b" * 40).trials[1]
    assert report.trial(skipped) == f"{'c' * 12} Typo: skipped: no module 'x'"
    long = msgspec.structs.replace(skipped, said="word " * 200, subject="\n")
    assert len(report.trial(long)) < 250
    assert "\n" not in report.trial(long)
