"""Networks whose scores are averaged over several sizes: their own modules, verified at every size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import verifier
from tests.verifier.training.conftest import NETS
from verifier.errors import CannotRunError, InputError
from verifier.inputs import at_scales, images, normal
from verifier.models import scales

if TYPE_CHECKING:
    from pathlib import Path

FAULTY = """
def faulty():
    net = build(Rewritten)
    net[1].eps = 1e-3
    return net

class Two(nn.Module):
    def forward(self, images):
        return images, images

def two():
    return Two()
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    file = tmp_path / "nets.py"
    file.write_text(NETS + FAULTY, encoding="utf-8")
    return file


def test_scores_are_averaged_and_names_and_tensors_stay(nets: Path) -> None:
    alone, averaged = (scales.load(f"{prefix}{nets}:ours", seed=0) for prefix in ("", "scales:"))
    assert averaged.spec == alone.spec
    assert averaged.model.state_dict().keys() == alone.model.state_dict().keys()
    assert [name for name, _ in averaged.model.named_modules()] == [
        name for name, _ in alone.model.named_modules()
    ]
    one, other = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 12, 12)
    expected = (alone.model(one) + alone.model(other)) / 2
    assert torch.allclose(averaged.model(one, other), expected, rtol=1e-6, atol=0)


def test_a_fault_is_told_at_every_size(nets: Path) -> None:
    given = at_scales([normal(2, size, 0) for size in (32, 40)])
    found = verifier.verify(f"scales:{nets}:ours", f"scales:{nets}:faulty", given)
    assert found.verdict == "diverged"
    alone = verifier.verify(f"{nets}:ours", f"{nets}:faulty", normal(2, 32, 0))
    assert len(found.culprits) == 2 * len(alone.culprits) > 0
    same = verifier.verify(f"scales:{nets}:ours", f"scales:{nets}:theirs", given)
    assert same.verdict == "match"
    assert same.coverage.compared == 2 * alone.coverage.compared + 2  # their sum, divided
    assert same.inputs.shapes == ((2, 3, 32, 32), (2, 3, 40, 40))


def test_what_returns_no_scores_is_told(nets: Path) -> None:
    given = at_scales([normal(2, size, 0) for size in (32, 40)])
    with pytest.raises(
        (InputError, CannotRunError), match="scores of several scales are averaged, and Two returns"
    ):
        verifier.verify(f"scales:{nets}:two", f"scales:{nets}:two", given)


def test_photographs_are_prepared_at_every_size() -> None:
    sizes = [images("samples", 2, size, "reference") for size in (32, 48)]
    given = at_scales(sizes)
    assert [tuple(each.shape) for each in given.args] == [(2, 3, 32, 32), (2, 3, 48, 48)]
    assert all(torch.equal(one, each.args[0]) for one, each in zip(given.args, sizes, strict=True))
    assert given.info.files == sizes[0].info.files
    assert given.preprocessing == sizes[0].preprocessing
    assert given.other is None


def test_what_the_candidate_makes_of_photographs_goes_along(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torchvision import transforms as T\n\n"
        "def prepare(image):\n"
        "    return T.Compose([T.Resize(37), T.CenterCrop(32), T.ToTensor()])(image)\n",
        encoding="utf-8",
    )
    given = at_scales([images("samples", 2, 32, f"{file}:prepare"), images("samples", 2, 48)])
    assert given.preprocessing is not None
    assert given.preprocessing.applied
    assert given.other is not None
    assert not torch.equal(given.other.args[0], given.args[0])
    assert torch.equal(given.other.args[1], given.args[1])
