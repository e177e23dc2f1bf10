from __future__ import annotations

import importlib
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from verifier import verify
from verifier.cli import commands
from verifier.errors import SourceError
from verifier.models import specs

if TYPE_CHECKING:
    from pathlib import Path

STYLES = {
    "relative": "from .layers import WIDTH",
    "of the package": "from pk_of_two.layers import WIDTH",
    "both": "from .layers import WIDTH\nimport pk_of_two.layers\nassert pk_of_two.layers.WIDTH is WIDTH",
    "beside": "from layers_of_two import WIDTH",
    "further up": "from ..pk_of_two.layers import WIDTH",
}
NET = """
{top}
from torch import nn

class Net(nn.Linear):
    def forward(self, x):
        {late}
        return super().forward(x) * len(WIDTH)

def build():
    return Net(2, 2)
"""


def written(folder: Path, width: int, top: str = "", late: str = "", *, package: bool = True) -> str:
    """A version of a package whose network multiplies by a width that a neighbour holds; its specification."""
    inside = folder / "pk_of_two"
    inside.mkdir(parents=True)
    if package:
        (inside / "__init__.py").write_text("")
    for name in ("layers.py", "layers_of_two.py"):
        (inside / name).write_text(f"WIDTH = [0] * {width}\n")
    late = textwrap.indent(late, " " * 8).strip()
    (inside / "net.py").write_text(NET.format(top=top, late=late))
    return f"{inside / 'net.py'}:build"


def factor(model: nn.Module) -> float:
    torch.nn.init.ones_(model.get_parameter("weight"))
    torch.nn.init.zeros_(model.get_parameter("bias"))
    return float(model(torch.ones(1, 2))[0, 0].detach()) / 2


@pytest.mark.parametrize("package", [True, False], ids=["package", "folder"])
@pytest.mark.parametrize("late", [False, True], ids=["at the top", "in forward"])
@pytest.mark.parametrize("style", STYLES)
def test_two_versions_of_a_package_never_share_a_module(
    tmp_path: Path, style: str, late: bool, package: bool
) -> None:
    if not package and style in ("of the package", "both"):
        return  # a folder without __init__.py has no name of its own to import from
    where = {"late" if late else "top": STYLES[style]}
    old, new = (
        specs.load(written(tmp_path / version, width, **where, package=package), seed=0).model
        for version, width in (("old", 3), ("new", 5))
    )
    assert (factor(new), factor(old)) == (5, 3)


@pytest.mark.parametrize("late", [False, True], ids=["at the top", "in forward"])
def test_a_fault_in_a_neighbour_of_the_same_name_is_found(tmp_path: Path, late: bool) -> None:
    where = {"late" if late else "top": "import layers_of_two\nWIDTH = layers_of_two.WIDTH"}
    if not late:
        where = {"top": "from layers_of_two import WIDTH"}
    old, new = (written(tmp_path / version, width, **where) for version, width in (("old", 3), ("new", 4)))  # type: ignore[arg-type]
    assert verify(old, new, torch.ones(2, 2), localise=False).verdict == "diverged"
    assert verify(old, old, torch.ones(2, 2), localise=False).verdict == "match"


def test_a_program_takes_what_lies_above_it_before_what_the_current_directory_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, width in (("old", 3), ("new", 5)):
        written(tmp_path / version, width, top="from beside_of_two import WIDTH")
        (tmp_path / version / "beside_of_two.py").write_text(f"WIDTH = [0] * {width}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    assert factor(specs.load(f"{tmp_path}/old/pk_of_two/net.py:build", seed=0).model) == 3
    spec = written(tmp_path / "again" / "old", 3, top="from beside_of_two import WIDTH  # and an end above")
    (tmp_path / "again" / "old" / "pk_of_two" / "pyproject.toml").write_text("")
    assert factor(specs.load(spec, seed=0).model) == 5
    assert sys.modules.pop("beside_of_two").WIDTH == [0] * 5


def test_what_the_caller_has_imported_under_the_same_name_is_neither_used_nor_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "callers", 7)
    monkeypatch.syspath_prepend(str(tmp_path / "callers"))
    callers = importlib.import_module("pk_of_two.layers")
    path, content = sys.path, list(sys.path)
    spec = written(tmp_path / "new", 5, top=STYLES["of the package"] + "\nfrom . import layers")
    try:
        assert factor(specs.load(spec, seed=0).model) == 5
        assert sys.modules["pk_of_two.layers"] is callers
        assert sys.path is path
        assert sys.path == content
    finally:
        for name in ("pk_of_two.layers", "pk_of_two"):
            sys.modules.pop(name)


def test_no_module_of_a_user_is_left_under_its_own_name(tmp_path: Path) -> None:
    before = set(sys.modules)
    specs.load(written(tmp_path, 3, top=f"{STYLES['both']}\nimport layers_of_two"), seed=0)
    left = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert len(left) == 1
    assert left.pop().startswith("_")


def test_a_neighbour_that_was_edited_is_imported_afresh(tmp_path: Path) -> None:
    spec = written(tmp_path, 3, top=STYLES["relative"])
    first = specs.load(spec, seed=0).model
    (tmp_path / "pk_of_two" / "layers.py").write_text("WIDTH = [0] * 4\n")
    assert (factor(specs.load(spec, seed=0).model), factor(first)) == (4, 3)


def test_what_is_installed_stays_what_it_is_though_a_folder_has_its_name(tmp_path: Path) -> None:
    spec = written(tmp_path, 3, top="import torch, json, statistics\nWIDTH = [json.dumps(0)] * 3")
    (tmp_path / "pk_of_two" / "json.py").write_text("raise RuntimeError")
    for name in ("torch", "statistics"):
        (tmp_path / "pk_of_two" / name).mkdir()
    assert factor(specs.load(spec, seed=0).model) == 3


def test_a_compiled_model_takes_what_its_own_modules_hold(tmp_path: Path) -> None:
    for version, width in (("old", 3), ("new", 5)):
        spec = written(tmp_path / version, width, top="from . import layers_of_two as lay\nWIDTH = lay.WIDTH")
        model = specs.load(spec, seed=0).model
        assert factor(torch.compile(model, backend="eager")) == width  # type: ignore[arg-type]


# --- the folder imports start in


def test_a_folder_that_imports_start_in_stands_before_a_point(tmp_path: Path) -> None:
    written(tmp_path, 3, top="from pk_of_two.layers import WIDTH")
    for rest in ("pk_of_two/net.py", "pk_of_two.net"):
        assert factor(specs.load(f"{tmp_path}/./{rest}:build", seed=0).model) == 3
    (tmp_path / "pk_of_two" / "__init__.py").write_text("from pk_of_two.net import build\n")
    assert factor(specs.load(f"{tmp_path}/./pk_of_two:build", seed=0).model) == 3


def test_a_file_or_a_module_is_placed_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "new", 3)
    monkeypatch.chdir(tmp_path)
    there = tmp_path.joinpath("new").relative_to(tmp_path)
    for spec, whole in (
        ("pk_of_two.net:build", "new/./pk_of_two.net:build"),
        ("pk_of_two/net.py:build", "new/./pk_of_two/net.py:build"),
        ("new/pk_of_two/net.py:build", "new/./pk_of_two/net.py:build"),
    ):
        assert specs.started_in(spec, there, "--candidate-path") == whole


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("torchvision:resnet18", "--candidate-path goes with package.module:callable"),
        ("model.onnx", "--candidate-path goes with package.module:callable"),
        ("pk_of_two.nat:build", "there is no module 'pk_of_two.nat' in "),
    ],
)
def test_a_folder_that_does_not_go_with_a_specification_is_told(tmp_path: Path, spec: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        specs.started_in(spec, tmp_path, "--candidate-path")
    assert said in str(caught.value)
    with pytest.raises(SourceError, match="which is no directory"):
        specs.started_in("net:build", tmp_path / "absent", "--candidate-path")


def test_imports_that_go_further_up_than_was_seen_are_told_how_to_name_their_folder(tmp_path: Path) -> None:
    spec = written(tmp_path / "deep", 3, top="from .layers import WIDTH", package=False)
    (tmp_path / "deep" / "pk_of_two" / "layers.py").write_text("from ...far import WIDTH\n")
    (tmp_path / "far.py").write_text("WIDTH = [0, 0]\n")
    with pytest.raises(SourceError, match=r"in which folder its imports start: DIR/\./FILE:callable"):
        specs.load(spec, seed=0)
    (tmp_path / "deep" / "pk_of_two" / "layers.py").write_text("from ..far import WIDTH\n")
    (tmp_path / "deep" / "far.py").write_text("WIDTH = [0, 0]\n")
    assert factor(specs.load(f"{tmp_path}/deep/./pk_of_two/net.py:build", seed=0).model) == 2


@pytest.mark.parametrize("command", ["run", "init", "train-parity"])
def test_every_command_that_compares_takes_a_folder_for_each_side(command: str, tmp_path: Path) -> None:
    sides = ("--baseline", "torchvision:resnet18", "--candidate", "pk:b", "--candidate-path", str(tmp_path))
    said = CliRunner().invoke(commands.app, [command, *sides])
    assert said.exit_code == 2
    assert "there is no module 'pk' in " in said.stderr
    said = CliRunner().invoke(commands.app, [command, "--arch", "resnet18", *sides[-2:]])
    assert "--candidate-path says where imports start; give --candidate too." in said.stderr
