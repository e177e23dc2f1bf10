"""Parameter maps: read from TOML, resolved against two models, written out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, verify
from verifier.align import Assembly
from verifier.errors import MapError
from verifier.weights import as_toml, read_map, resolve

if TYPE_CHECKING:
    from pathlib import Path

OURS = {"a.0.weight": (4, 4), "a.1.weight": (4, 4), "a.0.bias": (4,), "all": (12, 4), "turned": (2, 5)}
THEIRS = {"b.0.w": (4, 4), "b.1.w": (4, 4), "b.0.b": (4,), "fused": (12, 4), "plain": (5, 2)}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_names_patterns_rows_transposes_and_lists(tmp_path: Path) -> None:
    file = written(
        tmp_path / "map.toml",
        '"b.*.w" = "a.*.weight"\n'
        "b.0.b = 'a.0.bias'\n"  # TOML reads a dotted key without quotes as tables
        'plain = "turned.T"\n'
        'fused = ["all[4:8]", "all[0:4]", "a.1.weight"]\n',
    )
    found = resolve(read_map(file), OURS, THEIRS)
    assert {name: recipe and recipe.text for name, recipe in found.items()} == {
        "b.0.b": "a.0.bias",
        "plain": "turned.T",
        "fused": ("all[4:8]", "all[0:4]", "a.1.weight"),
        "b.0.w": "a.0.weight",
        "b.1.w": "a.1.weight",
    }


def test_a_full_name_comes_before_a_pattern_and_the_first_pattern_before_the_second() -> None:
    entries = {"**.w": "a.1.weight", "b.*.w": "a.0.weight", "b.0.w": "a.0.weight", "fused": False}
    found = resolve(entries, OURS, THEIRS)
    assert found == {"b.0.w": Assembly.of("a.0.weight"), "b.1.w": Assembly.of("a.1.weight"), "fused": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("b.0.w = 3", "b.0.w is 3. Give the name of a tensor of the baseline, a list of such, or false."),
        ("b.0.w = true", "b.0.w is true."),
        ("b.0.w = []", "b.0.w is []."),
        ('b.0.v = "a.0.weight"', "the candidate has no tensor b.0.v; did you mean 'b.0.w'"),
        ('"c.*" = "a.*"', "the candidate has no tensor c.*"),
        ('b.0.w = "a.0.wieght"', "which the baseline has not; did you mean 'a.0.weight'"),
        ('b.0.w = "a.0.bias"', "b.0.w (4, 4) cannot be made of a.0.bias (4,)."),
        ('b.0.w = "a.*.weight"', "a.*.weight has more stars than the name it is given for, b.0.w."),
        ('fused = ["all", "a.0.bias"]', "fused (12, 4) cannot be made of all (12, 4), a.0.bias (4,)."),
        ('b.0.w = "a.0.weight', "map.toml is no TOML: "),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(MapError) as refused:
        resolve(read_map(written(tmp_path / "map.toml", text)), OURS, THEIRS)
    assert says in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"none\.toml cannot be read: No such file"):
        read_map(tmp_path / "none.toml")


class Apart(nn.Module):
    """Two branches nobody can tell apart by structure."""

    def __init__(self, *, crossed: bool = False) -> None:
        super().__init__()
        self.one, self.two, self.crossed = nn.Linear(6, 6), nn.Linear(6, 6), crossed

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        return torch.sin(two) + torch.cos(one) if self.crossed else torch.sin(one) + torch.cos(two)


def test_a_map_decides_against_what_would_be_inferred_and_comes_back_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b, x = Apart(), Apart(), torch.randn(4, 6)
    assert verify(a, b, x).verdict is Verdict.MATCH
    wrong = {"one.*": "two.*", "two.*": "one.*"}
    against = verify(a, b, x, parameter_map=wrong)
    assert against.verdict is Verdict.DIVERGED
    assert against.weights.parameter_map == {
        "one.weight": "two.weight",
        "one.bias": "two.bias",
        "two.weight": "one.weight",
        "two.bias": "one.bias",
    }
    saved = written(tmp_path / "map.toml", as_toml(against.weights))
    again = verify(a, b, x, parameter_map=read_map(saved))
    assert again.weights.parameter_map == against.weights.parameter_map
    assert again.verdict is Verdict.DIVERGED


def test_a_tensor_that_is_told_to_keep_its_own_value_is_found_to_differ() -> None:
    torch.manual_seed(0)
    a, b = Apart(), Apart()
    found = verify(a, b, torch.randn(4, 6), parameter_map={"two.weight": False})
    assert found.verdict is Verdict.DIVERGED
    assert [culprit.baseline for culprit in found.culprits] == ["two"]
    assert found.weights.unmapped_candidate == ("two.weight",)
    assert "two.weight" in found.weights.kept
