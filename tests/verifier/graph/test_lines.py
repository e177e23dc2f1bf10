"""The line of the model's own program that made each site."""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision import models

from tests.documents import ROOT
from verifier.graph import Graph, record
from verifier.graph.lines import Lines
from verifier.models.composed_baselines import SmallResNet18
from verifier.models.copying import copy_with, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).relative_to(ROOT).as_posix()


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def graph_of(model: nn.Module, *inputs: Tensor) -> Graph:
    copy = copy_with(model, state_of(model), lambda tensor: tensor, role="model")
    return record(copy, inputs or (torch.ones(2, 3),), {})


def lines(model: nn.Module, *inputs: Tensor) -> dict[str, tuple[str, int, str] | None]:
    """Where each site stands: file, line and function."""
    return {
        site.name: (each.file, each.line, each.function) if (each := site.source) else None
        for site in graph_of(model, *inputs).sites
    }


def line_of(function: Callable[..., Any], text: str) -> int:
    """The line of `function` that has `text` in it."""
    code, first = inspect.getsourcelines(function)
    [found] = [first + k for k, line in enumerate(code) if text in line]
    return found


def doubled(x: Tensor) -> Tensor:
    return x * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = F.softmax(
            x,
            dim=-1,
        )
        return doubled(x) + 1


def test_a_call_stands_where_it_is_written() -> None:
    found = lines(Net())

    assert found["softmax"] == (HERE, line_of(Net.forward, "F.softmax("), "Net.forward")
    assert found["add"] == (HERE, line_of(Net.forward, "+ 1"), "Net.forward")


def test_what_torchs_modules_do_stands_where_they_are_called() -> None:
    found = lines(Net())

    assert found["body.0"] == found["body.1"] == (HERE, line_of(Net.forward, "self.body("), "Net.forward")


def test_what_a_function_of_the_models_does_stands_there() -> None:
    assert lines(Net())["mul"] == (HERE, line_of(doubled, "x * 2"), "doubled")


def test_a_package_goes_by_its_path_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.device("cpu"):
        model = models.resnet18(weights=None).eval()

    found = lines(model, torch.zeros(1, 3, 32, 32))

    assert None not in found.values()
    assert {place[0] for place in found.values() if place} == {"torchvision/models/resnet.py"}
    place = found["layer1.0.conv1"]
    assert place is not None
    assert place[1:] == (line_of(type(model.layer1[0]).forward, "self.conv1("), "BasicBlock.forward")


def test_torchs_containers_alone_have_no_line() -> None:
    assert set(lines(nn.Sequential(nn.Linear(3, 3), nn.ReLU())).values()) == {None}


def test_generated_code_has_no_line() -> None:
    found = lines(fx.symbolic_trace(Net()))

    assert {found["body.0"], found["softmax"], found["mul"]} == {None}


class Around(nn.Module):
    """Has something inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, dim=-1) * 2


def test_what_is_generated_stands_where_a_model_calls_it() -> None:
    found = lines(Around(fx.symbolic_trace(Functional())))

    assert set(found.values()) == {(HERE, line_of(Around.forward, "self.inner("), "Around.forward")}


class Scripted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 3


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_cannot_be_seen_into_stands_where_it_is_called() -> None:
    [found] = set(lines(Around(torch.jit.script(Scripted()))).values())

    assert found == (HERE, line_of(Around.forward, "self.inner("), "Around.forward")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Writes a module below `tmp_path` and imports it."""
    before = set(sys.modules)

    def written(path: str, code: str) -> Any:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(code), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path / path.partition("/")[0])
        return importlib.import_module(path.partition("/")[2].removesuffix(".py").replace("/", "."))

    yield written
    for name in set(sys.modules) - before:
        del sys.modules[name]


LIBRARY = """\
def tripled(x):
    return x * 3
"""
MODEL = """\
from torch import nn
from {library} import tripled

class Net(nn.Module):
    def forward(self, x):
        return tripled(x)
"""


def test_a_call_in_another_library_stands_where_the_model_asks_for_it(
    module: Callable[[str, str], Any],
) -> None:
    module("site-packages/helping.py", LIBRARY)
    made = module("away/package/net.py", MODEL.format(library="helping"))

    assert lines(made.Net()) == {"mul": ("package/net.py", 6, "Net.forward")}


def test_the_models_own_package_is_no_other_library(module: Callable[[str, str], Any]) -> None:
    module("away/package/parts.py", LIBRARY)
    made = module("away/package/net.py", MODEL.format(library="package.parts"))

    assert lines(made.Net()) == {"mul": ("package/parts.py", 2, "tripled")}


def test_where_only_another_library_is_seen_it_is_told(module: Callable[[str, str], Any]) -> None:
    helping = module("site-packages/helping.py", LIBRARY)

    model = nn.Sequential(nn.Identity())  # torch's own class, with somebody's function in it
    model[0].forward = helping.tripled

    assert lines(model) == {"0": ("helping.py", 2, "tripled")}


def test_files_below_the_working_directory_are_told_from_there(
    module: Callable[[str, str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("site-packages/helping.py", LIBRARY)
    made = module("away/package/net.py", MODEL.format(library="helping"))
    monkeypatch.chdir(tmp_path)

    assert lines(made.Net()) == {"mul": ("away/package/net.py", 6, "Net.forward")}

    monkeypatch.chdir(tmp_path / "away" / "package")
    assert lines(made.Net()) == {"mul": ("net.py", 6, "Net.forward")}


def test_what_is_installed_below_the_working_directory_is_a_package_all_the_same(
    module: Callable[[str, str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("site-packages/helping.py", LIBRARY)
    made = module("site-packages/installed/net.py", MODEL.format(library="helping"))
    monkeypatch.chdir(tmp_path)

    assert lines(made.Net()) == {"mul": ("installed/net.py", 6, "Net.forward")}


def test_a_loose_file_goes_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "home" / "loose.py"
    file.parent.mkdir()
    code = "from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return x + 1\n"
    file.write_text(code, encoding="utf-8")
    space: dict[str, Any] = {"__name__": "loaded_from_somewhere_0a1b"}
    exec(compile(code, str(file), "exec"), space)

    assert lines(space["Net"]()) == {"add": ("loose.py", 5, "Net.forward")}

    file.unlink()  # as in a notebook, whose cells are files that are gone
    assert lines(space["Net"]()) == {"add": None}


def test_what_calls_the_verifier_is_no_part_of_the_model() -> None:
    """Here the test itself calls `record`, and is a file below the working directory."""
    assert lines(nn.Sequential(nn.Linear(3, 3))) == {"0": None}


def test_the_verifiers_own_baselines_are_programs_like_any_other() -> None:
    found = lines(SmallResNet18().eval(), torch.zeros(1, 3, 224, 224))

    assert {place[0] for place in found.values() if place} == {"verifier/models/composed_baselines.py"}


def test_a_line_is_one_record_and_a_file_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    file = Lines._file

    def counted(self: Lines, name: str, module: str) -> Any:
        looked_at.append(name)
        return file(self, name, module)

    monkeypatch.setattr(Lines, "_file", counted)
    with torch.device("cpu"):
        model = models.resnet18(weights=None).eval()
    sources = [site.source for site in graph_of(model, torch.zeros(1, 3, 32, 32)).sites]

    assert len({id(source) for source in sources}) == len(set(sources)) < len(sources)
    assert len(looked_at) == len(set(looked_at))
