from __future__ import annotations

import atexit
import functools
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import verify
from verifier.diagnose.neighbourhood import distance
from verifier.diagnose.repros.script import LONGEST, Functions, Script
from verifier.diagnose.repros.spelling import UnwritableError, call_text
from verifier.errors import UsageError
from verifier.graph import KeptCall

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.storage.saving import Verification

_BARE = """
import json, os, runpy, sys
sys.modules.update(dict.fromkeys(("verifier", "reports", "reference_models", "safetensors", "torchvision", "tests")))
import torch
for line in sys.stdin:
    script, *outputs = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def bare() -> subprocess.Popen[str]:
    """Forks a process for each script; nothing but torch can be imported there, and it is already."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process


def run(script: Path) -> tuple[int, str]:
    """How a script ends where nothing but torch can be imported, and what it says."""
    outputs = [script.with_suffix(f".{name}") for name in ("out", "err")]
    to, back = bare().stdin, bare().stdout
    assert to is not None
    assert back is not None
    print(json.dumps([str(script), *map(str, outputs)]), file=to, flush=True)
    code = int(back.readline())
    said, complained = (each.read_text() for each in outputs)
    assert "Traceback" not in complained, complained
    return code, said


class Net(nn.Module):
    """A small network with one of each: images (N, 3, 8, 8) to (N, 5) and (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.fc = nn.Linear(8, 5)
        self.aux = nn.Linear(8, 4)
        self.register_buffer("table", torch.linspace(-1.0, 1.0, 8))

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        y += x
        return self.act(y)  # type: ignore[no-any-return] # modules return anything

    def attend(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        q, k, v = (each.view(n, -1, 2, 4).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        shares = (q @ k.transpose(-2, -1) / 2.0).softmax(dim=-1)
        mixed: Tensor = (shares @ v).transpose(1, 2)
        return mixed.reshape(n, -1, 8)

    def tokens(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def ends(self, x: Tensor) -> Any:
        return self.fc(x), self.aux(x)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.bn1(self.conv1(x)))
        x = self.join(x, self.bn2(self.conv2(x)))
        x = self.tokens(x)
        x = x + self.attend(self.norm(x))
        return self.ends(x.mean(1) + self.get_buffer("table"))


@pytest.fixture(scope="module")
def baseline() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return net


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class OtherStride(Net):
    def tokens(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).flatten(2).transpose(1, 2)


class OtherJoin(Net):
    def join(self, x: Tensor, y: Tensor) -> Tensor:
        y += y  # the wrong tensor
        return self.act(y)  # type: ignore[no-any-return] # the same


class NoActivation(Net):
    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return y + x


class OtherScale(Net):
    def attend(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        q, k, v = (each.view(n, -1, 2, 4).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        return F.scaled_dot_product_attention(q, k, v, scale=0.25).transpose(1, 2).reshape(n, -1, 8)


class OtherParts(Net):
    def attend(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        k, q, v = (each.view(n, -1, 2, 4).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        shares = (q @ k.transpose(-2, -1) / 2.0).softmax(dim=-1)
        mixed: Tensor = (shares @ v).transpose(1, 2)
        return mixed.reshape(n, -1, 8)


class Halved(Net):
    def tokens(self, x: Tensor) -> Tensor:
        return x.half().to(x.dtype).flatten(2).transpose(1, 2)


class Overwriting(Net):
    def tokens(self, x: Tensor) -> Tensor:
        x[:, 0] = 0.5
        return x.flatten(2).transpose(1, 2)


class EndsExchanged(Net):
    def ends(self, x: Tensor) -> Any:
        return self.fc(x), self.aux(x.flip(1))


def planted(net: Net, change: Callable[[Any], object] | type[Net]) -> Net:
    """A copy of a network with a fault: another class, or something of it changed."""
    candidate = Net()
    candidate.load_state_dict(net.state_dict())
    candidate.eval()
    if isinstance(change, type):
        candidate.__class__ = change
    else:
        with torch.no_grad():
            change(candidate)
    return candidate


def _train_a_dropout(net: Any) -> None:
    net.norm = nn.Sequential(net.norm, nn.Dropout(0.5).train())


FAULTS: dict[str, Callable[[Any], object] | type[Net]] = {
    "eps": lambda net: setattr(net.bn2, "eps", 1e-3),
    "weight": lambda net: net.conv2.weight.mul_(1.001),
    "bias": lambda net: setattr(net.qkv, "bias", None),
    "padding": lambda net: setattr(net.conv2, "padding_mode", "circular"),
    "activation": lambda net: setattr(net, "act", nn.LeakyReLU(0.01)),
    "pooling": OtherStride,
    "wiring": OtherJoin,
    "missing": NoActivation,
    "scale": OtherScale,
    "parts": OtherParts,
    "cast": Halved,
    "overwritten": Overwriting,
    "ends": EndsExchanged,
    "constant": lambda net: net.table.add_(0.01),
    "dropout": _train_a_dropout,
}


def verified(baseline: Net, fault: str, directory: Path, **options: Any) -> Verification:
    weights = "as-is" if fault in {"weight", "constant"} else "transfer"
    return verify(
        baseline, planted(baseline, FAULTS[fault]), images(), weights=weights, repro=directory, **options
    )


_FEW = frozenset({"eps", "weight", "padding", "wiring", "missing", "cast"})


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=() if name in _FEW else pytest.mark.thorough) for name in FAULTS],
)
def test_a_fault_of_each_family_is_shown_with_torch_alone(baseline: Net, fault: str, tmp_path: Path) -> None:
    found = verified(baseline, fault, tmp_path / "repros")
    script = first_of(found, tmp_path / "repros")
    assert not any("has no script" in note for note in found.notes), found.notes
    assert len(script.read_text().splitlines()) <= LONGEST
    code, said = run(script)
    assert code == 1
    wrong, right, allowed = map(
        float, re.findall(r"(?:candidate|baseline|allowed) (\S+?)(?:,|$)", said.strip())
    )
    assert right <= allowed < wrong


def first_of(found: Verification, directory: Path) -> Path:
    """The script of the first culprit."""
    scripts = sorted(directory.glob("repro-1-*.py"))
    assert len(scripts) == 1, found.notes
    return scripts[0]


@pytest.mark.parametrize(
    ("fault", "wrong", "right"),
    [
        pytest.param("eps", "eps=0.001", "eps=1e-05", id="a setting"),
        pytest.param("wiring", '.add_(t["bn2"])', '.add_(t["act"])', id="the wiring"),
    ],
)
def test_a_script_ends_well_once_its_call_is_right(
    baseline: Net, fault: str, wrong: str, right: str, tmp_path: Path
) -> None:
    script = first_of(verified(baseline, fault, tmp_path), tmp_path)
    text = script.read_text()
    assert text.count(wrong) == 1
    script.write_text(text.replace(wrong, right))
    code, said = run(script)
    assert (code, "candidate 0," in said) == (0, True)


def test_the_first_lines_say_what_is_wrong_and_where(baseline: Net, tmp_path: Path) -> None:
    found = verified(baseline, "missing", tmp_path)
    told = first_of(found, tmp_path).read_text().split('"""')[1]
    [culprit] = found.culprits
    assert culprit.cause is not None
    assert culprit.cause.summary in told
    assert f"Remedy: {culprit.cause.remedy}." in told


def test_only_what_is_read_is_kept(baseline: Net, tmp_path: Path) -> None:
    tensors = load_file(first_of(verified(baseline, "eps", tmp_path), tmp_path).with_suffix(".safetensors"))
    weights = {f"bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert set(tensors) == {"conv2", "truth"} | weights
    assert tensors["conv2"].shape == (2, 8, 8, 8)  # two samples, as in float64


def test_a_match_writes_nothing(baseline: Net, tmp_path: Path) -> None:
    found = verify(baseline, baseline, images(), repro=tmp_path / "repros")
    assert [note for note in found.notes if "--repro" in note] == [
        "--repro wrote nothing: no culprit was found"
    ]
    assert not (tmp_path / "repros").exists()


def test_without_the_option_nothing_is_said(baseline: Net) -> None:
    found = verify(baseline, planted(baseline, FAULTS["eps"]), images())
    assert not any("repro" in note for note in found.notes)


def test_scripts_of_an_earlier_run_make_way_and_nothing_else_does(baseline: Net, tmp_path: Path) -> None:
    verified(baseline, "missing", tmp_path)
    earlier = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "repro-notes.txt").write_text("mine")
    verified(baseline, "eps", tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"repro-1-bn2.py", "repro-1-bn2.safetensors", "repro-notes.txt"}
    assert not left & earlier


def test_a_directory_that_cannot_be_is_refused_before_anything_runs(baseline: Net, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a directory is needed"):
        verified(baseline, "eps", tmp_path / "file")


class Between(nn.Module):
    """Something between two layers: (N, 6) to (N, 3)."""

    def __init__(self, between: nn.Module, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.between = between
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))  # type: ignore[no-any-return] # the same


class Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x.float() * 3, -1).to(x.dtype)


class NarrowSoftmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        powers = (x * 3).exp()
        return powers / powers.cumsum(-1)[..., -1:]


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(2))


def test_what_the_given_inputs_do_not_reach_is_shown_where_it_is_reached(
    rows: Tensor, tmp_path: Path
) -> None:
    found = verify(Between(nn.ReLU()), Between(nn.ReLU6()), rows, repro=tmp_path)
    [culprit] = found.culprits
    assert culprit.excited is not None
    script = first_of(found, tmp_path)
    assert f"cpu/float64, {culprit.excited.inputs}, does" in " ".join(script.read_text().split())
    assert run(script)[0] == 1


def test_lost_precision_is_shown_beside_float64_on_the_dtypes_of_the_cell(
    rows: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    found = verify(
        Between(Softmax(), 512), Between(NarrowSoftmax(), 512), rows, cells=("cpu/bfloat16",), repro=tmp_path
    )
    assert found.deciding_cell.role == "numerics"
    script = first_of(found, tmp_path)
    tensors = load_file(script.with_suffix(".safetensors"))
    assert tensors["truth"].dtype == torch.float64
    assert any(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    code, said = run(script)
    assert (code, float(said.split("candidate ")[1].split(",")[0]) > 5e-3) == (1, True)


def _unchanged(self: Any, input: tuple[Tensor], output: Tensor) -> Tensor:  # noqa: A002 - TorchScript asks for it
    return output * 1.0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_call_that_torch_alone_cannot_make_is_told_and_none_is_written(
    rows: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sealed = nn.LeakyReLU(0.1)
    sealed.register_forward_hook(_unchanged)  # no scripted module with hooks can be looked into
    found = verify(Between(nn.ReLU()), Between(torch.jit.script(sealed)), rows, repro=tmp_path / "repros")
    [told] = [note for note in found.notes if "--repro" in note]
    assert told.startswith("--repro has no script for the candidate's between.")
    assert "is no operator of torch's own" in told
    assert not (tmp_path / "repros").exists()


class _Folded(nn.Module):
    """Many operators, none of which the other model has."""

    def forward(self, x: Tensor) -> Tensor:
        for k in range(40):
            x = torch.sin(x + k) * torch.cos(x)
        return x


def test_a_region_that_is_too_long_for_a_script_is_told(rows: Tensor, tmp_path: Path) -> None:
    found = verify(Between(nn.ReLU()), Between(_Folded()), rows, repro=tmp_path)
    [told] = [note for note in found.notes if "--repro" in note]
    assert "the region is too large" in told


def test_what_a_call_leaves_in_a_buffer_is_shown(rows: Tensor, tmp_path: Path) -> None:
    other = Between(nn.BatchNorm1d(64, momentum=0.5))
    found = verify(Between(nn.BatchNorm1d(64)).train(), other.train(), rows, repro=tmp_path)
    assert {culprit.kind for culprit in found.culprits} == {"state"}
    assert run(first_of(found, tmp_path))[0] == 1


def complex_numbers(*, ortho: bool) -> nn.Module:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_real(torch.fft.rfft(x, norm="ortho" if ortho else None))

    return nn.Sequential(nn.Linear(6, 8), Spectrum())


def test_complex_numbers_are_compared_by_their_parts(rows: Tensor, tmp_path: Path) -> None:
    found = verify(complex_numbers(ortho=False), complex_numbers(ortho=True), rows, repro=tmp_path)
    assert run(first_of(found, tmp_path))[0] == 1


# --- calls as text

X = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (Tensor.__getitem__, (X, (slice(None), 1, None, slice(0, 4, 2))), {}),
        (Tensor.__getitem__, (X, (..., torch.tensor([0, 2]))), {}),
        (Tensor.__getitem__, (X, (slice(1, None),)), {}),
        (Tensor.__getitem__, (X, -1), {}),
        (Tensor.__rsub__, (X, 3), {}),
        (Tensor.__rpow__, (X, 1.5), {}),
        (Tensor.__neg__, (X,), {}),
        (Tensor.__ge__, (X, 4), {}),
        (Tensor.__iadd__, (X, 1), {}),
        (Tensor.mT.__get__, (X,), {}),  # type: ignore[attr-defined] # a property
        (Tensor.masked_fill, (X, X > 3, -float("inf")), {}),
        (Tensor.to, (X, torch.float64), {"memory_format": torch.contiguous_format}),
        (torch.einsum, ("bij,bkj->bik", X, X), {}),
        (torch.stack, ([X, X + 1],), {"dim": 1}),
        (torch.full, ((2, 1), float("inf")), {"dtype": torch.float16, "device": torch.device("cpu")}),
        (F.layer_norm, (X, (4,), None, None, 1e-3), {}),
        (F.softmax, (X,), {"dim": -1, "_stacklevel": 5}),
        (F.conv1d, (X, torch.ones(2, 3, 3), None, (1,), "same"), {}),
        (F.max_pool1d, (X, 2), {}),
        (F.scaled_dot_product_attention, (X, X, X), {"is_causal": True}),
        (torch.linalg.vector_norm, (X, 2, (1, 2)), {}),
        (torch.ops.aten.add.Tensor, (X, X), {"alpha": 2}),
    ],
)
def test_a_call_as_text_gives_what_the_call_gives(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    call = KeptCall.of(function, args, kwargs, set())
    given = [tensor.clone() for tensor in call.operands]
    text = call_text(function, call.arguments, call.positional, (f"given[{k}]" for k in range(len(given))))
    made = eval(text, {"torch": torch, "F": F, "given": given})
    [wanted] = call.run()[0]
    assert torch.equal(made, wanted), text
    assert "_stacklevel" not in text


def test_what_is_no_function_of_torch_or_no_plain_value_has_no_text() -> None:
    def own(x: Tensor) -> Tensor:
        return x

    with pytest.raises(UnwritableError, match=r"own is no operator of torch's own"):
        call_text(own, {"x": X}, ("x",), iter("x"))
    with pytest.raises(UnwritableError, match="of the type object"):
        call_text(torch.relu, {"input": X, "other": object()}, ("input", "other"), iter("x"))


# --- the script's own arithmetic

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("made", "truth"),
    [
        ([1.0, 2.0], [1.0, 2.5]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1e-3, 0.0], [0.0, 0.0]),
        ([NAN, 2.0], [NAN, 2.0]),
        ([NAN, 2.0], [1.0, 2.0]),
        ([INF, 2.0], [INF, 2.5]),
        ([INF, 2.0], [-INF, 2.0]),
        ([1.0, 2.0], [INF, 2.0]),
        ([], []),
        ([1.0], [1.0, 2.0]),
    ],
)
def test_a_script_measures_as_the_verifier_does(made: list[float], truth: list[float]) -> None:
    script = Script("it", (), ["return t"], "None.", 0.0, "rule", None)
    functions = Functions.of(script.text({"truth": torch.zeros(1)}))
    ours = functions.error(torch.tensor(made), torch.tensor(truth))
    assert ours == pytest.approx(distance(torch.tensor(made), torch.tensor(truth)))
