"""What is multiplied and added by channel is found, and only where what is kept is its rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from verifier.diagnose.reruns import Half
from verifier.graph import record
from verifier.lockstep import Lane
from verifier.proof.scaled import Scaled, scaled


class Affine(nn.Module):
    """A factor and a shift by channel, both kept in float32."""

    factor: Tensor
    shift: Tensor | None

    def __init__(self, factor: Tensor, shift: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("factor", factor.float())
        self.register_buffer("shift", None if shift is None else shift.float())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.factor
        return y if self.shift is None else y + self.shift


def seen(model: Affine, x: Tensor, wanted: Tensor) -> Scaled | None:
    """What is found of the last operators of a model that runs in float64."""
    model = model.double()
    graph = record(model, [x], {})
    calls = [k for k, call in enumerate(graph.calls) if call.op in ("mul", "add")]
    lane = Lane("candidate", model, graph, (x,), {}, stops={len(graph.sites) - 1}, keep=calls)
    while lane.advance() is not None:
        pass
    lane.close()
    last = graph.sites[-1]
    between = tuple(graph.sites[:-1]) if model.shift is not None else ()
    side = Half(graph, last, between).neighbourhood(lane.kept, wanted)
    assert side is not None
    return scaled(side, wanted, 1e-12)


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("channels", [(5,), (1, 5, 1, 1)])
def test_numbers_that_were_rounded_are_found(channels: tuple[int, ...], *, shifted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5
    shift = torch.randn(channels, generator=generator, dtype=torch.float64) if shifted else None
    x = torch.randn((6, 5) if len(channels) == 1 else (3, 5, 4, 4), generator=generator, dtype=torch.float64)
    wanted = x * factor + (0 if shift is None else shift)

    found = seen(Affine(factor, shift), x, wanted)

    assert found is not None
    assert found.everywhere
    assert found.exact["factor"].numpy() == pytest.approx(factor.numpy(), rel=1e-13)
    if shift is not None:
        assert found.exact["shift"].numpy() == pytest.approx(shift.numpy(), rel=1e-12, abs=1e-13)
        rows = x.movedim(1, -1).reshape(-1, 5).numpy(), wanted.movedim(1, -1).reshape(-1, 5).numpy()
        for k in range(5):  # numpy's line through the same points
            line = np.polyfit(rows[0][:, k], rows[1][:, k], 1)
            assert [float(found.exact[name].flatten()[k]) for name in ("factor", "shift")] == pytest.approx(
                line
            )


@pytest.mark.parametrize("wrong", ["factor", "shift", "shape"])
def test_numbers_that_are_no_rounding_are_not(wrong: str) -> None:
    torch.manual_seed(0)
    factor, shift = torch.rand(5).double() + 0.5, torch.randn(5).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    wanted = x * factor + shift
    kept = {"factor": factor.clone(), "shift": shift.clone()}
    if wrong == "shape":
        wanted = wanted + x.square() * 1e-6
    else:
        kept[wrong][2] += 2e-5
    assert seen(Affine(kept["factor"], kept["shift"]), x, wanted) is None


def test_what_one_sample_cannot_tell_is_not_known_for_others() -> None:
    factor, shift = torch.rand(5).double() + 0.5, torch.randn(5).double()
    x = torch.randn(1, 5, dtype=torch.float64)
    found = seen(Affine(factor, shift), x, x * factor + shift)
    assert found is not None
    assert not found.everywhere
