from __future__ import annotations

import base64
import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from verifier import verify
from verifier.diagnose.exhibits import BARS, MOST, SIDE, pictured
from verifier.records import Exhibit, Plane

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


def seen(candidate: Tensor, baseline: Tensor, op: str = "") -> Exhibit:
    return pictured(Exhibit(index=0, site="x"), candidate, baseline, op)


def numbers(plane: Plane | None) -> np.ndarray:
    """What a plane shows, NaN where it is not finite."""
    assert plane is not None
    steps = np.frombuffer(base64.b64decode(plane.values), dtype=np.uint8).reshape(plane.rows, plane.columns)
    shown = plane.low + steps / 254 * (plane.high - plane.low)
    return np.where(steps == 255, np.nan, shown)


# --- one pair of tensors


@pytest.fixture
def baseline() -> Tensor:
    return torch.randn(3, 8, 12, 10, generator=torch.Generator().manual_seed(0))


def test_the_worst_channel_and_sample_are_shown(baseline: Tensor) -> None:
    candidate = baseline.clone()
    candidate[2, 5, 3, 4] += 2.0
    candidate[0, 1] += 0.01
    found = seen(candidate, baseline)
    assert (found.channel, found.sample) == (5, 2)
    assert np.allclose(numbers(found.baseline), baseline[2, 5].numpy(), atol=0.02)
    assert np.allclose(numbers(found.candidate), candidate[2, 5].numpy(), atol=0.02)
    difference = numbers(found.difference)
    assert np.unravel_index(np.abs(difference).argmax(), difference.shape) == (3, 4)
    assert math.isclose(difference[3, 4], 2.0, rel_tol=0.01)
    assert (found.difference.low, found.difference.high) == (-2.0, 2.0)  # type: ignore[union-attr]


def test_the_error_of_each_channel_is_relative_to_the_whole_tensor(baseline: Tensor) -> None:
    candidate = baseline.clone()
    candidate[:, 3] += 0.5
    found = seen(candidate, baseline)
    size = float(np.sqrt((baseline.double().numpy() ** 2).mean()))
    assert np.allclose(found.channels, [0, 0, 0, 0.5 / size, 0, 0, 0, 0], rtol=1e-5)
    assert found.channels_each == 1


def test_of_many_channels_each_bar_shows_the_worst_of_its_neighbours() -> None:
    baseline = torch.ones(2, 300, 2, 2)
    candidate = baseline.clone()
    candidate[:, 297] += 1
    found = seen(candidate, baseline)
    assert len(found.channels) <= BARS
    assert found.channels_each * len(found.channels) >= 300
    assert found.channels[297 // found.channels_each] == 1.0
    assert sum(found.channels) == 1.0


def test_a_single_wrong_pixel_survives_being_made_small() -> None:
    baseline = torch.zeros(1, 1, 500, 500)
    candidate = baseline.clone()
    candidate[0, 0, 123, 456] = -7.0
    found = seen(candidate, baseline)
    assert found.difference is not None
    assert (found.difference.rows, found.difference.columns) == (SIDE, SIDE)
    assert numbers(found.difference).min() == pytest.approx(-7.0)


def test_the_histogram_counts_every_difference_once(baseline: Tensor) -> None:
    candidate = baseline.clone()
    candidate[0] += torch.randn(8, 12, 10, generator=torch.Generator().manual_seed(1))
    candidate[1, 0, 0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    histogram = seen(candidate, baseline).histogram
    assert histogram is not None
    assert histogram.nonfinite == 3
    assert histogram.equal == 2 * 8 * 12 * 10 - 3
    difference = (candidate[0] - baseline[0]).double().numpy()
    largest = np.abs(difference).max()
    counts, _ = np.histogram(difference, bins=len(histogram.counts), range=(-largest, largest))
    assert np.abs(np.array(histogram.counts) - counts).sum() <= 2  # the edges of bins are rounded
    assert sum(histogram.counts) == difference.size


def test_numbers_that_are_not_finite_are_shown_as_such(baseline: Tensor) -> None:
    candidate = baseline.clone()
    candidate[1, 2, 0, 0] = math.nan
    found = seen(candidate, baseline)
    assert (found.channel, found.sample) == (2, 1)
    assert found.channels[2] == math.inf
    assert np.isnan(numbers(found.candidate)[0, 0])
    assert np.isnan(numbers(found.candidate)).sum() == 1
    assert not np.isnan(numbers(found.baseline)).any()


def test_equal_infinities_are_no_difference(baseline: Tensor) -> None:
    both = baseline.clone()
    both[0, 0, 0, 0] = math.inf
    found = seen(both.clone(), both)
    assert found.histogram is not None
    assert (found.histogram.equal, found.histogram.counts) == (both.numel(), ())
    assert max(found.channels) == 0


def test_tokens_have_their_channels_last_and_sequences_second() -> None:
    tokens = torch.zeros(2, 7, 5)
    wrong = tokens.clone()
    wrong[1, :, 3] = 1.0
    found = seen(wrong, tokens)
    assert (found.channel, len(found.channels)) == (3, 5)
    assert found.baseline is not None
    assert (found.baseline.rows, found.baseline.columns) == (7, 5)
    found = seen(wrong, tokens, "conv1d")
    assert len(found.channels) == 7


@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.bool])
def test_tensors_of_any_rank_and_dtype_can_be_shown(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    baseline = torch.zeros(shape, dtype=dtype)
    found = seen(torch.ones(shape, dtype=dtype), baseline)
    assert found.histogram is not None
    assert sum(found.histogram.counts) == baseline.numel()
    assert (found.difference is None) == (len(shape) < 3)


def test_what_cannot_be_compared_is_not_shown() -> None:
    assert seen(torch.zeros(2, 3), torch.zeros(2, 4)).histogram is None
    assert seen(torch.zeros(0, 3), torch.zeros(0, 3)).histogram is None


def test_neither_tensor_is_changed(baseline: Tensor) -> None:
    candidate = baseline + 1
    before = baseline.clone(), candidate.clone()
    seen(candidate, baseline)
    assert torch.equal(baseline, before[0])
    assert torch.equal(candidate, before[1])


# --- in a verification


class Block(nn.Module):
    def __init__(self, *, dropped: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.dropped = dropped
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if not self.dropped:
            x = torch.relu(x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def verified(candidate: nn.Module, baseline: nn.Module) -> Verification:
    return verify(baseline, candidate, torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block().eval()


def test_a_culprit_is_pictured_on_the_baselines_inputs(block: Block) -> None:
    candidate = copy.deepcopy(block)
    candidate.bn.eps = 1e-2
    cell = verified(candidate, block).cells[0]
    [found] = cell.exhibits
    [culprit] = cell.culprits
    assert (found.index, found.site) == (culprit.index, "bn")
    differing = {
        name for name, value in found.baseline_settings.items() if found.candidate_settings[name] != value
    }
    assert differing == {"eps"}
    # In eval mode another eps is another gain: all channels differ, and by less than the gain itself.
    assert len(found.channels) == 8
    assert 0 < min(found.channels) <= max(found.channels) < 0.01
    assert found.difference is not None
    assert (found.difference.rows, found.difference.columns) == (8, 8)


def test_a_match_has_no_exhibits(block: Block) -> None:
    assert all(not cell.exhibits for cell in verified(copy.deepcopy(block), block).cells)


def test_a_missing_operator_is_pictured_where_it_is_missed(block: Block) -> None:
    candidate = Block(dropped=True).eval()
    candidate.load_state_dict(block.state_dict())
    cell = verified(candidate, block).cells[0]
    [culprit] = [row for row in cell.culprits if row.baseline == "relu"]
    [found] = [each for each in cell.exhibits if each.index == culprit.index]
    assert found.site != "relu"
    assert found.candidate_settings == {}
    assert found.histogram is not None
    assert sum(found.histogram.counts) > 0


def test_many_culprits_are_pictured_up_to_a_number() -> None:
    torch.manual_seed(0)
    baseline = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(MOST + 6))).eval()
    candidate = copy.deepcopy(baseline)
    for norm in candidate:
        norm.eps = 1e-2  # type: ignore[assignment]
    cell = verified(candidate, baseline).cells[0]
    assert len(cell.culprits) == MOST + 6
    assert [each.index for each in cell.exhibits] == [row.index for row in cell.culprits[:MOST]]


def test_a_cause_behind_many_of_another_is_pictured_too() -> None:
    torch.manual_seed(0)
    baseline = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(MOST + 2)), nn.ReLU()).eval()
    candidate = copy.deepcopy(baseline)
    for norm in candidate[:-1]:
        norm.eps = 1e-2  # type: ignore[assignment]
    candidate[-1] = nn.GELU()
    cell = verified(candidate, baseline).cells[0]
    rows = [*cell.culprits[: MOST - 1], cell.culprits[-1]]
    assert [each.index for each in cell.exhibits] == [row.index for row in rows]
