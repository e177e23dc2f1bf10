"""What a policy accepts is told in every summary with its reason and its day, and never called a match."""

from __future__ import annotations

import re

from msgspec.structs import replace

from reports import acceptance, check, html, markdown, terminal
from reports.headline import headline
from tests import samples
from verifier.records import Accepted, Check, CheckedModel, Result, Verdict

WHY = "kept until <the> next training"
WAIVED = Accepted(
    by="waiver", cell="cpu/float64", baseline="bn2", candidate="norm", pattern="bn*", reason=WHY,
    said="intrinsic relative error 3.1e-04", expires="2030-01-31", code="batchnorm-eps", cause="eps is 0.001",
)  # fmt: skip
ALLOWED = replace(WAIVED, by="budget", baseline="fc", pattern="fc", expires="", code="", cause="")


def accepted() -> Result:
    found = samples.diverged()
    cells = tuple(
        replace(cell, verdict=Verdict.ACCEPTED, culprits=()) if cell.culprits else cell
        for cell in found.cells
    )
    told = (WAIVED, replace(WAIVED, cell="cpu/float32", code="", cause=""), ALLOWED)
    return replace(found, verdict=Verdict.ACCEPTED, culprits=(), cells=cells, accepted=told)


def test_the_headline_says_how_much_and_until_when() -> None:
    assert headline(accepted()) == (
        "accepted: by policy, no match: 1 culprit waived (bn2), 1 site within budgets of the policy (fc); "
        "until 2030-01-31"
    )


def test_every_summary_tells_each_site_once_with_its_reason() -> None:
    found = accepted()
    pages = (terminal.plain(found), markdown.summary(found), html.render(found))

    for text in pages:
        plain = re.sub(r"\\|&lt;|&gt;|<the>|[<>]", "", text)
        assert plain.count("bn2 in cpu/float64, cpu/float32: waived until 2030-01-31 (bn*)") == 1
        assert "eps is 0.001 (batchnorm-eps)" in plain
        assert "fc in cpu/float64: within a budget of the policy (fc)" in plain
        assert "Accepted by policy, no match" in plain
        assert "kept until" in plain


def test_the_page_of_a_check_leads_to_its_models_and_says_what_fails() -> None:
    match = CheckedModel(
        name="a", baseline="x", candidate="y", verdict=Verdict.MATCH, code=0, said="match: <all>",
        report="a/report.html",
    )  # fmt: skip
    found = Check(
        policy="p.toml", code=1, failures=("waiver 1 (bn2) waived nothing: remove it.",),
        command="check", created="now", seconds=1.0,
        models=(
            match,
            replace(match, name="b", verdict=Verdict.ACCEPTED, accepted=(WHY,), report="b/report.html"),
            replace(match, name="c", verdict=None, code=3, report=""),
        ),
    )  # fmt: skip

    page = html.render_check(found)

    assert re.findall(r'href="([^"]+)"', page) == ["a/report.html", "b/report.html"]
    assert "match: &lt;all&gt;" in page
    assert "waiver 1 (bn2) waived nothing" in page
    assert "kept until &lt;the&gt;" in page
    assert check.headline(found).startswith(
        "1 of 3 models match, 1 accepted by policy, 1 could not run, the policy itself fails: waiver 1"
    )


def test_sites_of_one_rule_and_cause_are_told_in_one_sentence() -> None:
    more = tuple(replace(WAIVED, baseline=f"bn{k}") for k in range(3, 55))
    unshown = replace(WAIVED, cell="cpu/float32", code="", cause="")

    first, second, third = acceptance.by_rule(
        replace(
            accepted(), accepted=(WAIVED, unshown, *more, replace(WAIVED, baseline="x", reason="y"), ALLOWED)
        )
    )

    assert first.startswith(
        "bn2 and 52 other sites in cpu/float64, cpu/float32: waived until 2030-01-31 (bn*): kept until"
    )
    assert second.startswith("x in cpu/float64: waived until 2030-01-31 (bn*): y; eps is 0.001")
    assert third.startswith("fc in cpu/float64: within a budget of the policy (fc)")


def test_the_terminal_tells_what_is_waived_beside_another_fault() -> None:
    model = CheckedModel(
        name="a", baseline="x", candidate="y", verdict=Verdict.DIVERGED, code=1, said="diverged",
        accepted=(WHY,),
    )  # fmt: skip
    found = Check(policy="p", code=1, failures=(), command="", created="", seconds=0.0, models=(model,))

    [told] = [each for each in check.sections(found) if each.title == acceptance.TITLE]

    assert told.rows == ((f"a: {WHY}",),)


def test_a_check_that_passes_with_a_waiver_has_not_the_colour_of_a_match() -> None:
    model = CheckedModel(name="a", baseline="x", candidate="y", verdict=Verdict.ACCEPTED, code=0, said="")
    found = Check(policy="p", code=0, failures=(), command="", created="", seconds=0.0, models=(model,))

    assert check.page(found).tone == "accepted"
    assert check.page(replace(found, models=(replace(model, verdict=Verdict.MATCH),))).tone == "match"
