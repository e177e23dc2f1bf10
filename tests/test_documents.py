"""The README and the pages of `docs/` tell the truth: their code runs, their options, links and paths exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.documents import DOCUMENTS, README, ROOT, blocks
from tests.test_packaging import ROOMS
from verifier.certificates.live import Live

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURE = ROOT / "docs" / "architecture.md"


def prose(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """What GitHub makes of a heading: words in lower case with dashes between, without punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_readme_is_one_to_decide_from() -> None:
    assert len(prose(README)) <= 8_000


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    (example,) = blocks(README, "python")
    assert {document.name for document in DOCUMENTS if blocks(document, "python")} == {"README.md", "gate.md"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eps is 0.001, the baseline's 1e-05" in done.stdout
    assert (tmp_path / "example-report" / "report.html").exists()


def test_the_test_of_the_documents_passes(tmp_path: Path) -> None:
    example, _ = blocks(ROOT / "docs" / "gate.md", "python")
    (tmp_path / "test_port.py").write_text(example)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_the_loop_of_the_documents_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, example = blocks(ROOT / "docs" / "gate.md", "python")
    exec(example, {})
    (only,) = Live.load("engine.safetensors").content.passes
    assert only.given[0].shape == (2, 8)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_only_options_that_exist_are_named(document: Path) -> None:
    from typer.main import get_command

    from verifier.cli.commands import app
    from verifier.gate.plugin import pytest_addoption

    of_pytest = pytest.Parser(_ispytest=True)
    pytest_addoption(of_pytest)
    group = get_command(app)
    commands = group.commands.values()  # type: ignore[attr-defined]
    known = {option for c in commands for p in c.params for option in (*p.opts, *p.secondary_opts)}
    known |= {name for option in of_pytest.getgroup("parity").options for name in option.names()}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose(document))) <= known | {
        "--help",
        "--nproc-per-node",  # torchrun's
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith("https:"):
            continue
        name, _, heading = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE) if heading else []
        assert not heading or heading in map(anchor, headings), target


def test_every_page_is_listed_where_to_read_on() -> None:
    pages = {str(document.relative_to(ROOT)) for document in DOCUMENTS if document != README}
    assert pages <= set(re.findall(r"\]\((docs/[a-z]+\.md)\)", prose(README)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_names_of_ours_that_are_named_exist(document: Path) -> None:
    import importlib

    text = prose(document)
    for path in re.findall(r"`((?:verifier|reference_models|reports|tests)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(verifier\.[\w.]+)`", text):
        module, _, last = name.rpartition(".")
        if (
            not (ROOT / name.replace(".", "/")).is_dir()
            and not (ROOT / (name.replace(".", "/") + ".py")).exists()
        ):
            assert hasattr(importlib.import_module(module), last), name


def test_the_architecture_has_every_room_in_the_order_that_imports_are_held_to() -> None:
    table = re.findall(r"^\| `([\w.]+)` \|", prose(ARCHITECTURE), re.MULTILINE)
    assert table == list(ROOMS)


def test_where_a_change_goes_there_is_a_file() -> None:
    _, _, table = prose(ARCHITECTURE).partition("## Where a change goes")
    rows = re.findall(r"^\| an? [^|]+\|([^|]+)\|", table, re.MULTILINE)
    assert len(rows) == 12
    for row in rows:
        for path in re.findall(r"`([\w./]+\.(?:py|html))`", row):
            assert (ROOT / path).is_file() or (ROOT / "verifier" / path).is_file(), path


def test_a_report_is_shown_and_what_the_terminal_said_of_it() -> None:
    [picture] = re.findall(r"!\[[^\]]+\]\((docs/[^)]+)\)", prose(README))
    content = (ROOT / picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert 50_000 < len(content) < 300_000
    [summary] = re.findall(
        r"<!-- nox -s picture -->\n```text\n(.*?)```", prose(ROOT / "docs" / "report.md"), re.DOTALL
    )
    headline = summary.partition("\n")[0]
    assert headline.startswith(
        "diverged: layer2.1.bn2 is wrong: eps is 0.001, the baseline's 1e-05 (confirmed"
    )
    assert f"```text\n{headline}\n```" in prose(README)
    assert summary.endswith("verifier-report/report.html\n")
