from __future__ import annotations

import copy
import pickle
import random
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from verifier.errors import SourceError, UsageError
from verifier.models import specs
from verifier.models.specs import Source

if TYPE_CHECKING:
    from pathlib import Path

NET = """
import torch
from dataclasses import dataclass
from torch import nn

@dataclass
class Config:
    width: int = 3

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(Config().width, 2)

    def forward(self, x):
        return self.fc(x)

def build():
    return Net()

class Zoo:
    @staticmethod
    def small():
        return Net()

ready = Net()
number = 3

def needs(width, depth=2):
    return Net()

def breaks():
    layers = {}
    return layers["first"]

def weights():
    return Net().state_dict()

def leaves():
    raise SystemExit("no GPU here")
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def complaint(spec: str) -> str:
    with pytest.raises(SourceError) as caught:
        specs.load(spec, seed=0)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


# --- torchvision and reference models


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "reference:resnet18"])
def test_a_named_model_is_built_and_evaluates(spec: str) -> None:
    source = specs.load(spec, seed=0)
    assert isinstance(source, Source)
    assert source.spec == spec
    assert source.notes == ()
    assert not any(module.training for module in source.model.modules())
    with torch.no_grad():
        assert source.model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_torchvision_models_that_warn_about_initial_weights_are_built_quietly() -> None:
    assert isinstance(specs.load("torchvision:googlenet", seed=0).model, nn.Module)


def test_a_segmentation_model_downloads_no_backbone() -> None:
    assert isinstance(specs.load("torchvision:lraspp_mobilenet_v3_large", seed=0).model, nn.Module)


@pytest.mark.parametrize("kind", ["torchvision", "reference"])
def test_an_unknown_name_suggests_its_neighbour(kind: str) -> None:
    message = complaint(f"{kind}:ResNet5O")
    assert "ResNet5O" in message
    assert "did you mean 'resnet50'" in message


def test_only_what_exists_is_suggested() -> None:
    assert "reference:mobilenet_v2" not in complaint("mobilenet_v2")
    assert complaint("reference:mobilenet_v2").endswith("; there is torchvision:mobilenet_v2")


def test_a_torchvision_name_near_nothing_is_refused_without_a_guess() -> None:
    assert complaint("torchvision:zzzzzz") == "torchvision has no model 'zzzzzz'"


# --- the user's own code


@pytest.mark.parametrize("target", ["build", "Net", "Zoo.small", "ready"])
def test_a_file_gives_what_is_named_after_the_colon(net: Path, target: str) -> None:
    model = specs.load(f"{net}:{target}", seed=0).model
    assert type(model).__name__ == "Net"
    assert not model.training


def test_a_file_is_found_relative_to_the_current_directory(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(net.parent)
    assert specs.load("net.py:build", seed=0).model is not None
    assert specs.load("./net.py:build", seed=0).model is not None


def test_a_thread_that_imports_meanwhile_walks_through_a_path_that_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "watched.py").write_text("import sys\nMEANWHILE = sys.path")
    before, content = sys.path, list(sys.path)
    with specs.holding(f"{tmp_path / 'watched.py'}:MEANWHILE") as meanwhile:
        assert meanwhile == [str(tmp_path), *content]
        assert before == content
    assert sys.path is before


def test_a_model_from_a_file_can_be_copied_and_pickled(net: Path) -> None:
    model = specs.load(f"{net}:build", seed=0).model
    assert type(pickle.loads(pickle.dumps(model))) is type(model)
    assert type(copy.deepcopy(model)) is type(model)


def test_two_specs_of_one_file_share_its_classes(net: Path) -> None:
    first, second = (specs.load(f"{net}:{target}", seed=0).model for target in ("build", "Zoo.small"))
    assert type(first) is type(second)
    assert first is not second


def test_an_edited_file_is_imported_afresh(net: Path) -> None:
    specs.load(f"{net}:build", seed=0)
    net.write_text(NET.replace("width: int = 3", "width: int = 5"))
    assert specs.load(f"{net}:build", seed=0).model.get_parameter("fc.weight").shape == (2, 5)


def test_a_package_in_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "nets_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert isinstance(specs.load("nets_of_mine.small:build", seed=0).model, nn.Module)
    assert sys.path == path


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbouring_blocks.py").write_text(NET)
    (tmp_path / "model.py").write_text("from neighbouring_blocks import Net\n")
    path = list(sys.path)
    assert type(specs.load(f"{tmp_path / 'model.py'}:Net", seed=0).model).__name__ == "Net"
    assert sys.path == path


@pytest.mark.parametrize("layout", ["module", "package", "namespace"])
@pytest.mark.parametrize("late", [False, True], ids=["imported at the top", "imported while building"])
def test_two_versions_of_a_program_each_get_their_own_neighbours(
    tmp_path: Path, layout: str, late: bool
) -> None:
    name = f"twin_{layout}_{late}".lower()
    imports = (
        f"from {name} import Net"
        if layout == "module"
        else f"import {name}.inner\n    Net = {name}.inner.Net"
    )
    for version, width in (("old", 3), ("new", 5)):
        root = tmp_path / version
        inside = root / name if layout != "module" else root
        inside.mkdir(parents=True)
        code = NET.replace("width: int = 3", f"width: int = {width}")
        (inside / (f"{name}.py" if layout == "module" else "inner.py")).write_text(code)
        if layout == "package":
            (inside / "__init__.py").write_text("")
        top = "" if late else imports.replace("\n    ", "\n") + "\n"
        body = f"    {imports}\n" if late else ""
        (root / "net.py").write_text(f"{top}def build():\n{body}    return Net()\n")
    old, new = (specs.load(f"{tmp_path / version}/net.py:build", seed=0).model for version in ("old", "new"))
    assert old.get_parameter("fc.weight").shape == (2, 3)
    assert new.get_parameter("fc.weight").shape == (2, 5)
    again = specs.load(f"{tmp_path}/old/net.py:build", seed=0).model
    assert again.get_parameter("fc.weight").shape == (2, 3)


# --- state


def test_the_seed_decides_the_initial_weights_though_importing_draws_numbers_too(net: Path) -> None:
    first, same, other = (
        specs.load(f"{net}:build", seed=seed).model.get_parameter("fc.weight") for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_a_seed_the_current_random_state_is_used_and_kept(net: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    specs.load(f"{net}:build", seed=None)  # the import itself draws numbers, once
    first = specs.load(f"{net}:build", seed=None).model.get_parameter("fc.weight")
    assert torch.equal(torch.get_rng_state(), state)
    second = specs.load(f"{net}:build", seed=None).model.get_parameter("fc.weight")
    assert torch.equal(first, second)


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_constructor_does_to_the_process_is_undone(tmp_path: Path, fails: bool) -> None:
    (tmp_path / "rude.py").write_text(
        f"""
import random, torch
random.seed(3)
def build():
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    if {fails}:
        raise ValueError
    return torch.nn.Linear(2, 2)
"""
    )
    states = torch.get_rng_state(), random.getstate()
    try:
        specs.load(f"{tmp_path / 'rude.py'}:build", seed=0)
    except SourceError:
        assert fails
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_mixed_training_modes_are_left_as_they_are_and_told(tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU()).eval()\n"
        "    model[1].train()\n"
        "    return model\n"
    )
    source = specs.load(f"{tmp_path / 'mixed.py'}:build", seed=0)
    assert [module.training for module in source.model.modules()] == [False, False, True, False]
    assert source.notes == ("left in training mode, as it was built: 1",)


def test_a_model_in_evaluation_mode_needs_no_note(tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text("from torch import nn\nmodel = nn.Sequential(nn.ReLU()).eval()\n")
    assert specs.load(f"{tmp_path / 'calm.py'}:model", seed=0).notes == ()


# --- what can be wrong


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet50", "such as torchvision:resnet50 or reference:resnet50"),
        ("mobilenet_v2", "such as torchvision:mobilenet_v2"),
        ("my_net", "such as my_net:build"),
        ("net.py", "such as net.py:build"),
        ("", "does not say what to build"),
        (":build", "nothing before its colon"),
        ("C:\\models\\net.py", "does not say what to build"),
        ("C:net.py", "does not say what to build"),
        ("C:\\models\\net.py:build", "does not exist"),
        ("net.py:", "is not the name of a function"),
        ("net.py:build()", "is not the name of a function"),
        ("no_such_module_of_mine:build", "there is no module 'no_such_module_of_mine'"),
        ("torchvison:resnet50", "did you mean 'torchvision'"),
        ("torch.no_such_part:build", "there is no module 'torch.no_such_part'"),
        ("my-module:build", "neither a module's name nor a .py file"),
    ],
)
def test_a_malformed_specification_is_explained(spec: str, said: str) -> None:
    assert said in complaint(spec)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'absent.py'} in " in complaint(f"{tmp_path / 'absent.py'}:build")


def test_a_forgotten_suffix_is_suggested(net: Path) -> None:
    assert f"did you mean {net}?" in complaint(f"{net.with_suffix('')}:build")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "is a folder" in complaint(f"{tmp_path}/:build")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import torch\n\nvalue = 1 / 0\n", "ZeroDivisionError: division by zero (broken.py, line 3)"),
        ("def build(:\n    pass\n", "(broken.py, line 1)"),
        ("import no_such_dependency\n", "No module named 'no_such_dependency' (broken.py, line 1)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (broken.py, line 2)"),
        ("from .blocks import Net\n", "No module named 'blocks' (broken.py, line 1)"),
        ("import torch\n\ntorch.zeros(2) @ torch.zeros(3)\n", "(broken.py, line 3)"),
    ],
)
def test_a_file_that_does_not_import_is_told_with_the_line(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    message = complaint(f"{tmp_path / 'broken.py'}:build")
    assert "broken.py does not import: " in message
    assert said in message
    assert message.count("line") == (1 if "line" in said else 0)


def test_a_module_that_does_not_import_is_told_apart_from_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    message = complaint("broken_module:build")
    assert message.startswith("broken_module does not import: ModuleNotFoundError")
    assert "(broken_module.py, line 1)" in message


def test_a_file_that_failed_is_tried_again_once_mended(tmp_path: Path) -> None:
    path = tmp_path / "mended.py"
    path.write_text("import no_such_dependency_yet\nfrom torch import nn\nbuild = nn.ReLU\n")
    complaint(f"{path}:build")
    (tmp_path / "no_such_dependency_yet.py").write_text("")
    assert isinstance(specs.load(f"{path}:build", seed=0).model, nn.ReLU)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("biuld", "there is no 'biuld'; did you mean 'build'?"),
        ("qqqq", "; there are Config, Net, Zoo, breaks, build and more"),
        ("Zoo.smal", "did you mean 'small'?"),
        ("number", "is a int, neither a torch.nn.Module nor something that builds one"),
        ("needs", "cannot be called without arguments: it needs width"),
        ("breaks", "raised KeyError: 'first' (net.py, line 34)"),
        ("leaves", "raised SystemExit: no GPU here"),
        ("weights", "returned an object of type OrderedDict, not a torch.nn.Module; return the model"),
        ("Config", "returned an object of type Config, not a torch.nn.Module"),
    ],
)
def test_a_target_that_gives_no_model_is_explained(net: Path, target: str, said: str) -> None:
    assert said in complaint(f"{net}:{target}")


def test_the_original_error_is_kept_as_the_cause(net: Path) -> None:
    with pytest.raises(SourceError) as caught:
        specs.load(f"{net}:breaks", seed=0)
    assert isinstance(caught.value.__cause__, KeyError)


def test_ctrl_c_while_a_model_is_built_is_no_source_error(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import signal\n\ndef build():\n    signal.raise_signal(signal.SIGINT)\n"
    )
    with pytest.raises(KeyboardInterrupt):
        specs.load(f"{tmp_path / 'interrupted.py'}:build", seed=0)


def test_a_function_is_found_and_not_called(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text("def train(model, batches):\n    return 3\n\nTRAIN = 3\n")
    assert specs.function(f"{tmp_path / 'loops.py'}:train")(None, None) == 3
    with pytest.raises(SourceError, match="did you mean 'train'"):
        specs.function(f"{tmp_path / 'loops.py'}:trian")
    with pytest.raises(SourceError, match="is no function: it is a int"):
        specs.function(f"{tmp_path / 'loops.py'}:TRAIN")


# --- --arch


def test_an_architecture_stands_for_both_models() -> None:
    assert specs.arch("resnet50") == ("torchvision:resnet50", "reference:resnet50")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet51", "unknown architecture 'resnet51'; did you mean 'resnet50'"),
        ("ResNet50", "did you mean 'resnet50'"),
        ("resnet50_v1", "--candidate reference:resnet50_v1"),
        ("mobilenet_v2", "Use --baseline torchvision:mobilenet_v2, and --candidate with your model."),
    ],
)
def test_an_architecture_without_a_pair_is_explained(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        specs.arch(name)
    assert said in str(caught.value)
