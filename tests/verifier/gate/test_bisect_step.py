"""One step of a bisection."""

from __future__ import annotations

from verifier.gate.bisect_step import inherited


def test_a_trial_neither_takes_gits_own_variables_nor_writes_the_jobs_summary() -> None:
    given = {"PATH": "/bin", "GIT_DIR": ".git", "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "summary.md"}
    assert inherited(given) == {"PATH": "/bin"}
