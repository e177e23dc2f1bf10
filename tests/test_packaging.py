"""What the distribution carries, and which room may know which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reference_models
import reports
import verifier

ROOT = Path(__file__).parents[1]


def imports_of(path: Path) -> set[str]:
    """Modules a file imports when it is imported itself, not later inside functions or for types alone."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            todo += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            todo += node.body
    return found


def outside(package: str, allowed: set[str]) -> dict[str, set[str]]:
    """What the files of a package import beyond the standard library and `allowed` prefixes."""
    strangers = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        names = {
            name
            for name in imports_of(path)
            if name.split(".")[0] not in sys.stdlib_module_names
            and not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)
        }
        if names:
            strangers[str(path.relative_to(ROOT))] = names
    return strangers


def test_reference_models_import_only_torch_and_their_preprocessing_what_reads_pictures() -> None:
    assert outside("reference_models", {"torch", "reference_models"}) == {
        "reference_models/preprocessing.py": {"PIL", "numpy"}
    }


def test_reports_import_only_the_records() -> None:
    records = {"verifier.records", "verifier.training.records", "verifier.initialisation.records"}
    assert outside("reports", {"reports", *records, "jinja2", "rich", "markupsafe", "PIL"}) == {}


ROOMS = (
    "reference_models",
    "verifier.errors",
    "verifier.records",
    "reports",
    "verifier.border",
    "verifier.environment",
    "verifier.ranks",
    "verifier.cells",
    "verifier.graph",
    "verifier.metrics",
    "verifier.lockstep",
    "verifier.align",
    "verifier.models",
    "verifier.weights",
    "verifier.recognise",
    "verifier.preprocessing",
    "verifier.inputs",
    "verifier.judge",
    "verifier.diagnose",
    "verifier.proof",
    "verifier.forms",
    "verifier.bench",
    "verifier.quantised",
    "verifier.estimate",
    "verifier.storage",
    "verifier.certificates",
    "verifier.dumps",
    "verifier.sharded",
    "verifier.initialisation",
    "verifier.training",
    "verifier.experiment",
    "verifier.verification",
    "verifier.gate",
    "verifier.cli",
    "verifier.__main__",
)
"""Every room, from the ground up: each knows those before it alone, so there can be no circle."""


def room_of(module: str) -> str:
    """`verifier.graph` for `verifier.graph.sites`, `reports` for `reports.html`."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "verifier" else 1])


def upward(root: Path) -> list[str]:
    """Imports that lead from a room to one above it or to none that is known, wherever in a file they stand."""
    found = []
    for path in sorted(root.rglob("*.py")):
        here = room_of(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
        if here.split(".")[0] not in {"verifier", "reports", "reference_models"} or here == "verifier":
            continue
        for name in sorted(imported(path)):
            there = room_of(name)
            known = there.split(".")[0] in {"verifier", "reports", "reference_models"} and there != "verifier"
            if known and there != here and there not in ROOMS[: ROOMS.index(here)]:
                found.append(f"{path.relative_to(root)} imports {name}")
    return found


def imported(path: Path) -> set[str]:
    """What a file imports when it runs, inside functions too; `from a import b` is told as both `a` and `a.b`."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            of_rooms = node.module == "verifier"
            found |= {f"{node.module}.{alias.name}" if of_rooms else node.module for alias in node.names}
        else:
            todo += ast.iter_child_nodes(node)
    return found


def test_data_flows_down_only() -> None:
    assert upward(ROOT) == []


def test_a_circle_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "verifier" / "graph").mkdir(parents=True)
    (tmp_path / "verifier" / "align").mkdir()
    (tmp_path / "verifier" / "align" / "matching.py").write_text("from verifier.graph import Graph\n")
    lazily = "def late():\n    from verifier import align\n"
    (tmp_path / "verifier" / "graph" / "sites.py").write_text(lazily)
    assert upward(tmp_path) == ["verifier/graph/sites.py imports verifier.align"]


def named_in(path: Path) -> set[str]:
    """Every identifier in a file: of functions, arguments, attributes, variables."""
    kinds = ("id", "attr", "arg", "name")
    found = (
        getattr(node, kind, None) for node in ast.walk(ast.parse(path.read_text("utf-8"))) for kind in kinds
    )
    return {each for each in found if isinstance(each, str)}


@pytest.mark.parametrize("package", ["verifier", "reports", "reference_models"])
def test_each_side_has_one_name(package: str) -> None:
    """It is `baseline` or `candidate` everywhere: `ours` would mean the one here and the other there."""
    for path in sorted((ROOT / package).rglob("*.py")):
        assert [name for name in named_in(path) if {"ours", "theirs"} & set(name.lower().split("_"))] == [], (
            path
        )


@pytest.mark.parametrize("package", ["verifier", "reports", "reference_models"])
def test_no_module_is_too_long_to_be_read(package: str) -> None:
    modules = (ROOT / package).rglob("*.py")
    assert [path for path in modules if len(path.read_text("utf-8").splitlines()) > 400] == []


def test_every_room_is_known() -> None:
    root = ROOT / "verifier"
    there = {room_of(f"verifier.{path.stem}") for path in root.iterdir() if path.name[0] not in "._"}
    assert there - {"verifier.py", "verifier.result"} <= {*ROOMS, "verifier.__init__"}


def test_records_and_pages_need_no_torch() -> None:
    """The browser's tests make every page where neither torch nor the package is installed."""
    records = "verifier.records, verifier.training.saving, verifier.initialisation.records"
    code = f"import sys, {records}, verifier.storage.saving, tests.pages; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("package", [verifier, reference_models])
def test_public_names_are_sorted_and_there(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert list(names) == sorted(names)
    assert all(getattr(package, name) is not None for name in names)


def test_every_package_says_it_is_typed() -> None:
    for package in (verifier, reference_models, reports):
        assert package.__file__ is not None
        assert (Path(package.__file__).parent / "py.typed").exists()
