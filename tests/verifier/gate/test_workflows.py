"""The workflow files in `docs/gate.md`, as linters of their kind see them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks

FIRST, GITHUB, GITLAB = blocks(ROOT / "docs" / "gate.md", "yaml")

# GitHub's own actions may go by a tag in an example; what else zizmor finds is a fault.
POLICY = """\
rules:
  unpinned-uses:
    config:
      policies:
        actions/*: ref-pin
        github/*: ref-pin
"""


def schema(name: str, file: Path) -> tuple[int, str]:
    """What check-jsonschema says of a file, by a schema that it brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def zizmor(directory: Path, workflow: str) -> tuple[int, str]:
    (directory / "policy.yml").write_text(POLICY, encoding="utf-8")
    (directory / "parity.yml").write_text(workflow, encoding="utf-8")
    program = shutil.which(
        "zizmor", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    assert program is not None
    options = ("--offline", "--persona", "auditor", "--config", "policy.yml", "parity.yml")
    done = subprocess.run([program, *options], cwd=directory, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "text"), [("github-workflows", FIRST), ("github-workflows", GITHUB), ("gitlab-ci", GITLAB)]
)
def test_a_workflow_is_what_its_schema_asks_for(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "workflow.yml"
    file.write_text(text, encoding="utf-8")
    code, said = schema(name, file)
    assert code == 0, said

    file.write_text(text.replace("timeout", "timeot", 1), encoding="utf-8")
    code, said = schema(name, file)
    assert code == 1, said


@pytest.mark.parametrize("text", [FIRST, GITHUB])
def test_a_workflow_is_safe(text: str, tmp_path: Path) -> None:
    code, said = zizmor(tmp_path, text)
    assert code == 0, said

    code, said = zizmor(tmp_path, text.replace("persist-credentials: false", "persist-credentials: true"))
    assert "artipacked" in said, said


@pytest.mark.parametrize("text", [FIRST, GITHUB, GITLAB])
def test_a_workflow_stops_the_run_before_the_job_is_stopped(text: str) -> None:
    words = text.split()
    seconds = float(words[words.index("--timeout") + 1])
    minutes = [k for k, word in enumerate(words) if word in ("timeout:", "timeout-minutes:")]

    assert seconds < 60 * float(words[minutes[0] + 1])
    assert "--isolate" in words
