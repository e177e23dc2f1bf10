"""Two recordings, neither model being there: a match, a divergence and its first site, or what keeps from both."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import verifier
from tests.verifier.certificates.nets import Net, Renamed, images
from verifier import CertificateError, Policy, Status, record, verify
from verifier.judge import judge_again

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier import Verification


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def live(path: Path, model: nn.Module, *args: Any, **options: Any) -> str:
    with verifier.recording(path, model, **options):
        model(*args)
    return str(path)


def compared(
    place: Path, baseline: nn.Module, candidate: nn.Module, *args: Any, **options: Any
) -> Verification:
    args = args or (images(),)
    return verify(
        live(place / "a.safetensors", baseline, *args, **options),
        live(place / "b.safetensors", candidate, *args, **options),
    )


def renamed(net: Net) -> Renamed:
    """The same network in other words, with the same weights."""
    other = Renamed()
    for mine, theirs in (
        (other.a[0], net.first),
        (other.a[1], net.norm),
        (other.b[0], net.second),
        (other.b[1], net.end),
        (other.out, net.head),
    ):
        mine.load_state_dict(theirs.state_dict())
    return other


def test_another_implementation_with_the_same_weights_is_a_match(tmp_path: Path) -> None:
    net = Net()
    result = compared(tmp_path, net, renamed(net))
    assert result.verdict == "match"
    assert result.coverage.baseline_share == 1.0
    assert all(row.total is not None and row.total.max_abs == 0 for row in result.layers)
    assert result.static == ()


class Spelt(Net):
    """The network with its norms written out: other roundings, the same function."""

    def forward(self, x: Tensor) -> Tensor:
        def norm(layer: nn.BatchNorm2d, y: Tensor) -> Tensor:
            assert layer.running_mean is not None
            assert layer.running_var is not None
            y = (y - layer.running_mean[:, None, None]) / (
                layer.running_var[:, None, None] + layer.eps
            ).sqrt()
            return y * layer.weight[:, None, None] + layer.bias[:, None, None]

        x = torch.relu(norm(self.norm, self.first(x)))
        x = torch.relu(x + norm(self.end, self.second(x)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_what_differs_by_rounding_is_a_match_that_says_what_it_cannot_tell(tmp_path: Path) -> None:
    net = Net()
    net.state_dict()["norm.running_var"].mul_(0.37)
    other = Spelt()
    other.load_state_dict(net.state_dict())
    result = compared(tmp_path, net, other)
    assert result.verdict == "match", result.reason
    assert any(row.total is not None and row.total.nrmse > 0 for row in result.layers)
    assert "cannot be told from it" in result.notes[0]


@pytest.mark.parametrize("sample", [None, 1 << 10])
def test_a_fault_is_found_at_its_site_and_what_is_behind_it_carries(
    tmp_path: Path, sample: int | None
) -> None:
    net = Net()
    other = copy.deepcopy(net)
    other.end.eps = 1e-3
    result = compared(tmp_path, net, other, sample=sample)
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert result.first_divergence.baseline == "end"
    assert [row.baseline for row in result.culprits] == ["end"]
    assert result.culprits[0].differences == ("eps 0.001, baseline 1e-05",)
    assert {row.status for row in result.layers[:4]} == {Status.OK}


def test_an_epsilon_that_rounding_may_hide_is_no_match(tmp_path: Path) -> None:
    net = Net()
    other = copy.deepcopy(net)
    other.end.eps = 1.1e-5
    result = compared(tmp_path, net, other)
    assert result.verdict == "inconclusive"
    assert "eps 1.1e-05, baseline 1e-05" in result.reason
    assert judge_again(result, Policy()).verdict == "inconclusive"


class Scaled(Net):
    """The network with one sum that is off by a factor, in a call that shows no number."""

    factor: float

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul(torch.tensor(self.factor)))


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "match"), (1 + 5e-7, "inconclusive"), (1 + 1e-3, "diverged")]
)
def test_between_rounding_and_what_rounding_rules_out_nothing_is_said(
    tmp_path: Path, factor: float, verdict: str
) -> None:
    one, other = Scaled(), Scaled()
    one.factor, other.factor = 1.0, factor
    result = compared(tmp_path, one, other)
    assert result.verdict == verdict, result.reason
    assert judge_again(result, Policy()).verdict == verdict


def test_other_inputs_are_refused_with_what_differs(tmp_path: Path) -> None:
    net = Net()
    one = live(tmp_path / "a.safetensors", net, images())
    two = live(tmp_path / "b.safetensors", net, images() + 1)
    three = live(tmp_path / "c.safetensors", net, images(3))
    with pytest.raises(CertificateError, match=r"other inputs: \[0\] holds other numbers"):
        verify(one, two)
    with pytest.raises(
        CertificateError, match=r"\(4, 3, 24, 24\) in the baseline's and float32 \(3, 3, 24, 24\)"
    ):
        verify(one, three)


def test_inputs_of_other_names_are_the_same_inputs(tmp_path: Path) -> None:
    net = Net()
    one = live(tmp_path / "a.safetensors", net, images())
    with verifier.recording(tmp_path / "b.safetensors", net):
        net(x=images())
    assert verify(one, tmp_path / "b.safetensors").verdict == "match"


def test_weights_that_differ_are_told(tmp_path: Path) -> None:
    net = Net()
    other = copy.deepcopy(net)
    other.second.weight[3, 2] *= 1.5
    result = compared(tmp_path, net, other)
    assert result.verdict == "diverged"
    assert [(each.kind, each.candidate) for each in result.static] == [("tensor", "second.weight")]
    assert "1 of the candidate's tensors hold other values than the baseline's: second.weight" in result.notes
    assert [row.baseline for row in result.culprits] == ["second"]


def test_bits_pair_sites_that_nothing_else_does(tmp_path: Path) -> None:
    class Loose(nn.Module):
        def __init__(self, *, own: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.line = nn.Linear(8, 8)
            self.own = own

        def forward(self, x: Tensor) -> Tensor:
            x = self.line(x)
            y = torch.where(x > 0, x, torch.zeros_like(x)) if self.own else x.relu()
            return y.sum(1)

    result = compared(tmp_path, Loose(own=False), Loose(own=True), torch.randn(4, 8))
    assert result.verdict == "match"
    assert ("relu", "where") in {(row.baseline, row.candidate) for row in result.layers}


def test_random_numbers_of_another_beginning_keep_from_a_verdict(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    x = torch.randn(4, 8)
    torch.manual_seed(1)
    one = live(tmp_path / "a.safetensors", model, x)
    two = live(tmp_path / "b.safetensors", model, x)
    torch.manual_seed(1)
    three = live(tmp_path / "c.safetensors", model, x)
    other = verify(one, two)
    assert (other.verdict, "random numbers were drawn" in other.reason) == ("inconclusive", True)
    assert verify(one, three).verdict == "match"


def test_passes_are_compared_one_by_one_and_the_one_that_differs_is_shown(tmp_path: Path) -> None:
    class Stale(Net):
        """The network that adds something from its second call on."""

        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) + 0.1 * (self.calls > 1)

    paths = []
    for name, kind in (("a", Net), ("b", Stale)):
        model = kind()
        with verifier.recording(tmp_path / f"{name}.safetensors", model, passes=2):
            model(images())
            model(images())
        paths.append(tmp_path / f"{name}.safetensors")
    result = verify(*paths)
    assert result.verdict == "diverged"
    assert "pass 2 of 2 that were compared is shown; recorded were 2 and 2" in result.notes


def test_a_live_candidate_is_run_on_inputs_that_were_kept(tmp_path: Path) -> None:
    net = Net()
    path = live(tmp_path / "a.safetensors", net, images())
    assert verify(path, renamed(net)).verdict == "match"
    other = copy.deepcopy(net)
    other.norm.eps = 1e-2
    result = verify(path, other)
    assert [row.baseline for row in result.culprits] == ["norm"]
    assert not other._forward_hooks


def test_inputs_that_are_too_large_to_keep_are_given_again(tmp_path: Path) -> None:
    net, x = Net(), images(4, 96)
    path = live(tmp_path / "a.safetensors", net, x)
    with pytest.raises(CertificateError, match="does not hold its inputs"):
        verify(path, net)
    assert verify(path, net, x).verdict == "match"


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("sample", [None, 1 << 10])
def test_a_certificate_stands_beside_a_recording(tmp_path: Path, eps: float, sample: int | None) -> None:
    net = Net()
    record(net, images(), weights="as-is").save(tmp_path / "a.safetensors")
    other = copy.deepcopy(net)
    other.norm.eps = eps
    path = live(tmp_path / "b.safetensors", other, images(), sample=sample)
    result = verify(tmp_path / "a.safetensors", path)
    if eps > 1e-5:
        assert result.verdict == "diverged"
        if sample is None:
            assert [row.baseline for row in result.culprits] == ["norm"]
    elif sample is None:
        assert (result.verdict, result.coverage.baseline_share) == ("match", 1.0)
    else:
        assert result.verdict in ("match", "inconclusive")
        assert "one of the recordings has read more" in {
            each.reason.partition(" of it")[0] for each in result.coverage.unmatched
        }


def drawn(place: Path) -> tuple[object, object]:
    record(Net(), images(), weights="calibrated").save(place / "a.safetensors")
    return place / "a.safetensors", live(place / "b.safetensors", Net(), images())


def other_cell(place: Path) -> tuple[object, object]:
    record(Net(), images(), weights="as-is").save(place / "a.safetensors")
    net = Net().to(torch.bfloat16)
    return place / "a.safetensors", live(place / "b.safetensors", net, images().to(torch.bfloat16))


def two_certificates(place: Path) -> tuple[object, object]:
    certificate = record(Net(), images(), weights="as-is")
    return certificate, certificate


def a_live_baseline(place: Path) -> tuple[object, object]:
    return Net(), live(place / "b.safetensors", Net(), images())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (drawn, "recorded with calibrated weights"),
        (other_cell, "and the pass ran in bfloat16"),
        (two_certificates, "both are certificates"),
        (a_live_baseline, "the baseline has to be one, too"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, made: Callable[[Path], tuple[Any, Any]], said: str
) -> None:
    with pytest.raises(CertificateError, match=said):
        verify(*made(tmp_path))


def test_half_precision_is_judged_by_its_own_rounding(tmp_path: Path) -> None:
    net = Net()
    half, x = copy.deepcopy(net).to(torch.bfloat16), images().to(torch.bfloat16)
    spelt = Spelt()
    spelt.load_state_dict(net.state_dict())
    spelt.to(torch.bfloat16)
    assert compared(tmp_path, half, spelt, x).verdict == "match"
    wrong = copy.deepcopy(half)
    wrong.state_dict()["norm.running_var"].mul_(4)
    assert compared(tmp_path, half, wrong, x).verdict == "diverged"


def test_autocast_is_noted_as_the_cell(tmp_path: Path) -> None:
    net = Net()
    with torch.autocast("cpu", torch.bfloat16):
        one = live(tmp_path / "a.safetensors", net, images())
        two = live(tmp_path / "b.safetensors", net, images())
    result = verify(one, two)
    assert (result.verdict, result.cells[0].name) == ("match", "cpu/bfloat16/autocast")
