"""Weights: drawn ones excite every parameter, loaded ones are checked, and edits of a copy are never painted over."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

import reference_models
from tests.networks import Rewritten, images, network
from tests.verifier.graph.test_recording import graph_of
from verifier import verify
from verifier.align import Assembly, align
from verifier.errors import UsageError, WeightsError
from verifier.initialisation.comparing import verify_initialisation
from verifier.initialisation.records import TensorStanding
from verifier.models.copying import copy_with, state_of
from verifier.weights import Masters, choose, read_state

if TYPE_CHECKING:
    from collections.abc import Callable


def chosen(
    mode: str,
    baseline: nn.Module,
    candidate: nn.Module | None = None,
    x: Tensor | None = None,
    spec: str = "",
    seed: int = 0,
) -> Masters:
    x = images() if x is None else x
    candidate = baseline if candidate is None else candidate
    alignment = align(graph_of(baseline, x), graph_of(candidate, x))
    return choose(mode, baseline, candidate, alignment, ((x,), {}), baseline_spec=spec, seed=seed)


def with_state(model: nn.Module, state: Any) -> nn.Module:
    return copy_with(model, dict(state), lambda tensor: tensor, role="model")


def test_calibrated_weights_leave_nothing_at_zero_or_one() -> None:
    model = models.resnet18(zero_init_residual=True).eval()
    masters = chosen("calibrated", model, x=torch.randn(2, 3, 64, 64))
    for name, parameter in model.named_parameters():
        drawn = masters.baseline[name]
        if parameter.dim() == 1 and float(parameter.detach().std()) == 0:
            assert float(drawn.abs().min()) > 0.09, name
            assert float((drawn - 1).abs().min()) > 0.09, name
            assert float(drawn.std()) > 0, name
        else:
            assert drawn.equal(parameter), name
    assert masters.info.unexercised == ()


def test_calibrated_activations_keep_their_scale_at_any_depth() -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model = reference_models.get("resnet152")().eval()
    with torch.no_grad():
        initial = float(model(x).abs().max())
        seen: list[float] = []
        calibrated = with_state(model, chosen("calibrated", model, x=x).baseline)
        for module in calibrated.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _m, _i, out: seen.append(float(out.abs().max())))
        output = calibrated(x)
    assert initial > 1e6  # what calibration is for
    assert len(seen) == 155
    assert max(seen) < 100
    assert 0.01 < float(output.std()) < 100


def test_running_statistics_are_near_those_of_the_input_but_not_equal() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3)).eval()
    x = images(batch=8, size=16) * 3 + 5
    masters = chosen("calibrated", model, x=x).baseline
    mean, spread = x.mean((0, 2, 3)), x.std((0, 2, 3))
    assert bool(((masters["0.running_mean"] - mean).abs() < 0.21 * spread).all())
    assert bool(((masters["0.running_var"] / spread**2 - 1).abs() < 0.25).all())
    assert not masters["0.running_mean"].equal(mean)


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    one, two, three = (chosen("calibrated", network(), seed=seed).baseline for seed in (1, 1, 2))
    assert all(one[name].equal(two[name]) for name in one)
    assert any(not one[name].equal(three[name]) for name in one)


@pytest.mark.parametrize("mode", ["calibrated", "init", "transfer", "as-is"])
def test_neither_model_is_written_to(mode: str) -> None:
    a, b = network(), network(Rewritten, seed=1)
    before = [{k: v.clone() for k, v in state_of(m).items()} for m in (a, b)]
    random_state = torch.get_rng_state()
    chosen(mode, a, b)
    for model, kept in zip((a, b), before, strict=True):
        assert all(kept[name].equal(tensor) for name, tensor in state_of(model).items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_the_candidate_shares_the_baselines_tensors() -> None:
    masters = chosen("calibrated", network(), network(Rewritten, seed=1))
    for name, twin in masters.whole.items():
        assert masters.candidate[name].data_ptr() == masters.baseline[twin].data_ptr()
    assert masters.info.kept == ()
    assert masters.info.unmapped_baseline == masters.info.unmapped_candidate == ()


def test_as_is_gives_each_model_its_own() -> None:
    a, b = network(), network(Rewritten, seed=1)
    masters = chosen("as-is", a, b)
    assert all(masters.candidate[name].equal(tensor) for name, tensor in state_of(b).items())


@pytest.mark.parametrize("mode", ["calibrated", "init", "transfer"])
def test_an_edit_of_a_copy_is_kept(mode: str) -> None:
    edited = network()
    with torch.no_grad():
        edited[1].conv1.weight *= 1 + 1e-4
        edited[2].downsample[1].running_mean += 1e-3
    masters = chosen(mode, network(), edited)
    assert set(masters.info.kept) == {"1.conv1.weight", "2.downsample.1.running_mean"}
    ratio = masters.candidate["1.conv1.weight"] / masters.baseline["1.conv1.weight"]
    assert ratio.numpy() == pytest.approx(1 + 1e-4, abs=2e-7)  # one rounding to float32
    shift = masters.candidate["2.downsample.1.running_mean"] - masters.baseline["2.downsample.1.running_mean"]
    assert shift.numpy() == pytest.approx(1e-3, abs=1e-6)


def test_what_a_map_says_is_never_overruled_by_an_edit() -> None:
    baseline, edited, x = network(), network(), images()
    with torch.no_grad():
        edited[6].weight *= 1.5
    alignment = align(graph_of(baseline, x), graph_of(edited, x))
    given = {"6.weight": Assembly.of("6.weight")}
    masters = choose("transfer", baseline, edited, alignment, ((x,), {}), given=given)
    assert masters.info.kept == ()
    assert masters.candidate["6.weight"].equal(baseline[6].weight.detach())


def test_other_initial_values_of_a_copy_are_no_edit() -> None:
    other = network()
    with torch.no_grad():
        other[1].bn2.weight.zero_()
        nn.init.normal_(other[6].weight)
    assert chosen("calibrated", network(), other).info.kept == ()


def test_live_values_of_a_copy_are_all_its_own_under_transfer() -> None:
    other = network()
    with torch.no_grad():
        other[1].bn2.weight.zero_()
        nn.init.normal_(other[6].weight)
    masters = chosen("transfer", network(), other)
    assert set(masters.info.kept) == {"1.bn2.weight", "6.weight"}
    assert masters.candidate["6.weight"].equal(other[6].weight.detach())


def test_unexercised_parameters_are_listed() -> None:
    assert "1.bn1.weight" in chosen("init", network()).info.unexercised
    assert "1.bn1.bias" in chosen("init", network()).info.unexercised
    assert "0.weight" not in chosen("init", network()).info.unexercised


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_file_with_either_models_names_is_loaded_into_both(tmp_path: Path, suffix: str, side: str) -> None:
    a, b = network(), network(Rewritten, seed=1)
    saved = network(seed=5) if side == "baseline" else network(Rewritten, seed=5)
    path = tmp_path / f"w{suffix}"
    state = {name: tensor.contiguous() for name, tensor in saved.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    masters = chosen(str(path), a, b)
    assert masters.info.mode == "file"
    expected = saved.state_dict()
    for name, twin in masters.whole.items():
        source = expected[twin] if side == "baseline" else expected[name]
        assert masters.baseline[twin].equal(source)
        assert masters.candidate[name].equal(source)


def test_a_prefix_left_by_data_parallel_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({f"module.{k}": v for k, v in network(seed=5).state_dict().items()}, path)
    assert set(read_state(path)) == set(network().state_dict())


def test_a_file_of_another_architecture_says_which_tensors_differ(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(2, 2))
    save_file(dict(other.state_dict()), path)
    with pytest.raises(
        WeightsError, match=r"another architecture.*0\.weight is \(8, 3, 3, 3\).*missing.*1\.conv1\.weight"
    ):
        chosen(str(path), network())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    state = dict(network().state_dict())
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WeightsError, match="damaged"):
        read_state(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb-went-off"),))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Bomb()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="could run code"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "bomb-went-off").exists()


@pytest.mark.parametrize("name", ["missing.pt", "calibratd", "weights.bin"])
def test_what_is_no_mode_and_no_file_is_a_usage_error(tmp_path: Path, name: str) -> None:
    if name == "weights.bin":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError):
        read_state(tmp_path / name)


def test_published_weights_are_torchvisions_alone() -> None:
    with pytest.raises(UsageError, match=r"torchvision:NAME"):
        chosen("imagenet", network(), spec="file.py:net")


def test_half_precision_files_become_the_models_dtype(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in network().state_dict().items()}, path)
    masters = chosen(str(path), network())
    assert masters.baseline["0.weight"].dtype is torch.float32
    assert masters.baseline["0.weight"].numpy() == pytest.approx(
        network().state_dict()["0.weight"].half().float().numpy()
    )
    assert np.isfinite(masters.baseline["0.weight"].numpy()).all()


class _NormOnesOwn(nn.Module):
    """A batch norm in evaluation mode, written without what counts batches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return nn.functional.batch_norm(x, mean, var, self.weight, self.bias)


def test_what_counts_batches_is_no_missing_partner_and_no_missing_tensor_of_a_file(tmp_path: Path) -> None:
    def net(norm: Callable[[int], nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU()).eval()

    torch.save(net(nn.BatchNorm2d).state_dict(), tmp_path / "state.pt")
    for norms in ((_NormOnesOwn, nn.BatchNorm2d), (nn.BatchNorm2d, _NormOnesOwn)):
        baseline, candidate = map(net, norms)
        for weights in ("transfer", str(tmp_path / "state.pt")):
            found = verify(baseline, candidate, torch.randn(2, 3, 8, 8), weights=weights)
            assert found.verdict == "match"
            assert (found.weights.unmapped_baseline, found.weights.unmapped_candidate) == ((), ())
            assert not any("no partner in the baseline" in note for note in found.notes)
        started = verify_initialisation(partial(net, norms[0]), partial(net, norms[1]))
        assert {row.standing for row in started.tensors} == {TensorStanding.IDENTICAL}
