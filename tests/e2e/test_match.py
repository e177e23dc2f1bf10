from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

METRICS = (
    "mse pearson one_minus_pearson cosine nrmse sqnr_db max_abs max_abs_index max_rel nonfinite_baseline "
    "nonfinite_candidate"
)


def test_a_faithful_reimplementation_ends_with_0_and_says_so(matched: Ended) -> None:
    assert matched.code == 0
    assert matched.out.startswith("match")
    assert "DIR/report.html" in matched.out


def test_where_stderr_is_no_terminal_nothing_is_said_there(matched: Ended) -> None:
    assert matched.err == ""


def test_where_stdout_is_no_terminal_it_is_plain_text(matched: Ended) -> None:
    assert "\x1b" not in matched.out
    assert "\r" not in matched.out


def test_exactly_the_promised_files_are_written(matched: Ended, written: Callable[[str], set[str]]) -> None:
    assert matched.new == written("DIR")


def test_the_result_validates_against_the_shipped_schema(matched: Ended) -> None:
    schema = json.loads(
        resources.files("verifier").joinpath("result.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(matched.result("DIR"), schema)


@pytest.mark.parametrize(
    ("within", "keys"),
    [
        (
            lambda result: result,
            "schema_version verdict criteria coverage first_divergence culprits cells output environment command "
            "seconds",
        ),
        (lambda result: result["output"], "mse pearson_probabilities top1_agreement"),
        (lambda result: result["cells"][0], "name verdict layers"),
        (
            lambda result: result["cells"][0]["layers"][0],
            "index baseline candidate op shape status total intrinsic budget",
        ),
        (lambda result: result["cells"][0]["layers"][0]["total"], METRICS),
        (lambda result: result["cells"][0]["layers"][0]["intrinsic"], METRICS),
        (lambda result: result["coverage"], "compared baseline_sites candidate_sites unmatched"),
    ],
    ids=["top level", "output", "cell", "layer", "total", "intrinsic", "coverage"],
)
def test_the_result_has_the_keys_of_the_contract(
    matched: Ended, within: Callable[[dict[str, Any]], dict[str, Any]], keys: str
) -> None:
    assert set(keys.split()) <= set(within(matched.result("DIR")))


def test_the_result_is_strict_json(matched: Ended) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (matched.directory / "DIR" / "result.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)


def test_every_site_of_both_networks_was_compared(matched: Ended) -> None:
    coverage = matched.result("DIR")["coverage"]

    assert coverage["compared"] == coverage["baseline_sites"] == coverage["candidate_sites"] > 60
    assert coverage["unmatched"] == []


def test_the_result_says_how_it_was_asked_for(matched: Ended) -> None:
    assert matched.result("DIR")["command"] == (
        "python -m verifier run --arch resnet18 --image-size small --batch-size 2 --out DIR"
    )


def test_the_table_of_layers_has_a_row_a_pair_and_cell(matched: Ended) -> None:
    with (matched.directory / "DIR" / "layers.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))

    cells = matched.result("DIR")["cells"]
    expected = [(cell["name"], layer["baseline"]) for cell in cells for layer in cell["layers"]]
    assert [(row["cell"], row["baseline"]) for row in rows] == expected


def test_the_report_stands_alone(matched: Ended) -> None:
    page = (matched.directory / "DIR" / "report.html").read_text(encoding="utf-8")

    assert page.lower().lstrip().startswith("<!doctype html>")
    assert "layer4.1.relu_1" in page
    assert not any(f'{attribute}="http' in page for attribute in ("src", "href"))


def on_a_terminal(directory: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code and everything a command writes to a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "verifier", *arguments],
        cwd=directory,
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "120"},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            chunk = b""
        if not chunk:
            break
        written += chunk
    os.close(ours)
    return process.wait(timeout=60), written.decode()


def test_on_a_terminal_there_are_a_progress_bar_and_colours_and_the_exit_code_holds(
    place: Path, clean_environment: dict[str, str]
) -> None:
    code, written = on_a_terminal(
        place,
        clean_environment,
        *("run", "--baseline", "nets.py:net", "--candidate", "nets.py:other_eps"),
        *("--image-size", "small", "--batch-size", "2"),
    )

    assert code == 1
    assert "importing torch" in written
    assert "semantics" in written
    assert "\u2501" in written  # the bar
    assert "\x1b[1;31mdiverged" in written
    assert written.rindex("semantics") > 0
    assert "\x1b[?25h" in written[written.rindex("\x1b[?25l") :]  # the cursor is shown again
