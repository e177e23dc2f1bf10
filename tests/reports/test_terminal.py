from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from rich.console import Console

from reports import sentences, terminal, wording
from reports.headline import headline
from tests import samples
from verifier.records import UnmatchedSite

if TYPE_CHECKING:
    from verifier.records import OutputAgreement
    from verifier.storage.saving import Verification


def coloured(verification: Verification, width: int = 100) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system="truecolor")
    console.print(terminal.summary(verification, out_dir="out"))
    return stream.getvalue()


def test_the_summary_begins_with_the_verdict_and_ends_with_the_report(sample: Verification) -> None:
    lines = terminal.plain(sample, out_dir="out").splitlines()
    assert lines[0] == headline(wording.shown(sample))
    assert lines[-2:] == ["Report", "  out/report.html"]


def test_without_a_directory_no_report_is_named(matching: Verification) -> None:
    assert "report.html" not in terminal.plain(matching)


def test_a_divergence_is_told_with_its_culprits_and_worst_sites(diverged: Verification) -> None:
    text = terminal.plain(diverged)
    sections = [line for line in text.splitlines() if line and not line.startswith(" ")][1:]
    assert sections == [
        "First divergence",
        "Culprits",
        "Published criteria",
        "Largest total errors in cpu/float64",
        "Weights and policy",
        "Cells",
        "Coverage",
    ]
    assert "eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps)" in text
    assert "failed: Pearson is 0.99849, required > 0.999" in text
    assert "  fc    " in text
    assert "cpu/float64  semantics  diverged  2 samples, 0.5 s  first at bn1, 1 culprit" in text


def test_the_impact_on_the_classes_follows_the_criteria(
    matching: Verification, scores: OutputAgreement
) -> None:
    told = sentences.impact(scores)
    sections = terminal.sections(msgspec.structs.replace(matching, output=scores))
    assert [section.title for section in sections][:2] == ["Published criteria", "Output"]
    assert sections[1].rows == ((told,),)
    assert f"\nOutput\n  {told}\n" in terminal.plain(msgspec.structs.replace(matching, output=scores))


def test_only_the_worst_sites_are_listed(diverged: Verification) -> None:
    [section] = [each for each in terminal.sections(diverged) if each.title.startswith("Largest")]
    assert [row[0] for row in section.rows] == ["fc", "avgpool", "bn1", "layer1.0.relu", "layer1.0.bn1"]


def test_long_lists_are_cut_and_counted(inconclusive: Verification) -> None:
    many = samples.caused(*(samples.cause(f"code-{k}") for k in range(8)), each=2)
    assert terminal.plain(many).count("(confirmed") == terminal.SHOWN + 1  # the headline names the first
    assert "  and 3 more, at 6 sites\n" in terminal.plain(many)
    assert "  and 2 more\n" in terminal.plain(inconclusive)


def titles(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith(" ")][1:]


def test_without_verbose_there_is_the_answer_alone(diverged: Verification) -> None:
    text = terminal.plain(diverged, out_dir="out", verbose=False)
    assert titles(text) == ["First divergence", "Culprits", "Published criteria", "Report"]
    assert text.splitlines()[3:5] == [
        "  bn1 (candidate: stem.bn), batch_norm: relative error 0.0005, allowed 1e-12, rule semantics/float64, "
        "largest absolute difference 0.002 at (0, 17, 3, 5)",
        "  MSE 2.5e-07, Pearson's r 0.99999975 (1 - r 2.5e-07)",
    ]


def test_notes_are_counted_without_verbose(diverged: Verification) -> None:
    noted = msgspec.structs.replace(diverged, notes=("compiled", "one batch"))
    assert "\nNotes\n  2 notes, with -v and on the page\n" in terminal.plain(noted, verbose=False)
    assert "\nNotes\n  compiled\n  one batch\n" in terminal.plain(noted)


def test_a_cell_that_could_not_run_is_told_without_verbose() -> None:
    assert "Cells" in titles(terminal.plain(samples.matrix(), verbose=False))


def test_what_was_compared_is_told_where_there_is_no_answer(inconclusive: Verification) -> None:
    assert "Coverage" in titles(terminal.plain(inconclusive, verbose=False))


def test_a_culprit_is_a_line_and_its_place_in_the_source_another() -> None:
    long = samples.cause(summary="its weight is " + "odd " * 60)
    for verification, length, more in (
        (samples.one_cause(), 1, " and 51 other lines"),
        (samples.caused(long), 4, ""),
        (samples.caused(long, each=9), 4, " and 8 other lines"),
    ):
        lines = terminal.plain(verification, verbose=False).splitlines()
        start = lines.index("Culprits") + 1
        culprit, place = lines[start : start + length], lines[start + length]
        assert max(map(len, culprit)) <= terminal.LINE
        assert "(confirmed, batchnorm-eps)" in " ".join(culprit)
        assert culprit[-1].endswith("fix: set eps to 1e-05")
        assert place == f"    candidate nets/new.py:40{more}, baseline nets/old.py:20{more}"
        assert lines[start + length + 1] == ""


def test_what_a_long_first_divergence_measures_stands_below_its_names(diverged: Verification) -> None:
    assert diverged.first_divergence is not None
    named = msgspec.structs.replace(
        diverged.first_divergence, baseline="features.bn" * 4, candidate="stem.bn" * 4
    )
    lines = terminal.plain(
        msgspec.structs.replace(diverged, first_divergence=named), verbose=False
    ).splitlines()
    assert lines[3:5] == [
        f"  {'features.bn' * 4} (candidate: {'stem.bn' * 4}), batch_norm:",
        "    relative error 0.0005, allowed 1e-12, rule semantics/float64, "
        "largest absolute difference 0.002 at (0, 17, 3, 5)",
    ]
    assert max(map(len, lines[2:])) <= terminal.LINE


@pytest.mark.parametrize(
    ("sides", "alone", "said"),
    [
        (
            "bcc",
            0,
            "1 site of the baseline and 2 of the candidate without a partner, compared with what they lead to",
        ),
        ("c", 0, "1 site of the candidate without a partner, compared with what it leads to"),
        ("bb", 2, "2 sites of the baseline without a partner, not compared"),
        ("bc", 1, "1 site of the baseline and 1 of the candidate without a partner, 1 of them not compared"),
    ],
)
def test_a_match_says_how_many_sites_have_no_partner(sides: str, alone: int, said: str) -> None:
    lost = tuple(
        UnmatchedSite(
            side="baseline" if side == "b" else "candidate",
            name=f"s{k}",
            op="add",
            compared_at=None if k < alone else "fc",
        )
        for k, side in enumerate(sides)
    )
    matching = samples.verification()
    covered = msgspec.structs.replace(matching.coverage, unmatched=lost)
    found = msgspec.structs.replace(matching, coverage=covered)
    assert f"\nCoverage\n  {said}\n" in terminal.plain(found, verbose=False)
    assert "Coverage" not in titles(terminal.plain(matching, verbose=False))


def test_what_a_policy_accepts_is_called_so_and_not_mended() -> None:
    text = terminal.plain(samples.accepted())
    assert text.startswith("match: accepted by policy criteria, though only 1 of 8 sites agree")
    assert "Beyond rounding, accepted by policy" in titles(text)
    assert "First difference" in titles(text)
    assert text.count("  accepted by policy  ") == 3  # two cells and a site
    assert text.count("1 site beyond rounding") == 2
    assert not {word for word in ("fix:", "diverged", "divergence", "culprit") if word in text}


def test_models_with_nothing_in_common_are_told_so_without_a_list() -> None:
    text = terminal.plain(samples.nothing_in_common())
    assert text.startswith(
        "diverged: the models have nothing in common: none of the baseline's 8 sites has a partner among the "
        "candidate's 7\n"
    )
    assert "not compared:" not in text
    assert "Culprits" not in titles(text)


def test_an_inconclusive_run_tells_what_was_not_compared(inconclusive: Verification) -> None:
    text = terminal.plain(inconclusive)
    assert "3 pairs compared: 37.5 % of the baseline's 8 sites and 30 % of the candidate's 10" in text
    assert "not compared: block0 of the candidate (linear): no such operator" in text
    assert "left in training mode" in text


def test_the_plain_summary_needs_neither_colour_nor_other_letters(sample: Verification) -> None:
    text = terminal.plain(sample, out_dir="out")
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_both_summaries_say_the_same(sample: Verification) -> None:
    stream = io.StringIO()
    Console(file=stream, width=100_000).print(terminal.summary(sample, out_dir="out"))
    assert stream.getvalue().split() == terminal.plain(sample, out_dir="out").split()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_coloured_summary_fits_its_terminal(diverged: Verification, width: int) -> None:
    stream = io.StringIO()
    Console(file=stream, width=width).print(terminal.summary(diverged, out_dir="out"))
    assert max(map(len, stream.getvalue().splitlines())) <= width


def test_a_hostile_name_neither_colours_nor_drives_the_terminal(hostile: Verification) -> None:
    text = coloured(hostile, width=400)
    assert "\x1b[31m{" not in text
    assert "\\x1b[31m{{ 7 * 7 }}[red]&" in text


def test_the_plain_summary_loads_no_terminal_library() -> None:
    program = "import sys, reports.terminal; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
