"""Results from outside: what is damaged or contradicts itself is refused, by the name of the field."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from verifier.errors import OutputError
from verifier.storage import saving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.storage.saving import Verification


@pytest.fixture
def sound(verification: Verification) -> dict[str, Any]:
    """A result as it is saved."""
    content: dict[str, Any] = json.loads(saving.to_json(verification))
    return content


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[Any], str]:
    """Why a result is refused."""

    def told(content: Any) -> str:
        file = tmp_path / "result.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        with pytest.raises(OutputError) as raised:
            saving.load(file)
        message = str(raised.value)
        assert "\n" not in message
        assert message.startswith(str(file))
        assert len(message) < 400 + len(str(file))
        return message

    return told


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a path such as `cells.0.layers.1.above`."""
    new = copy.deepcopy(content)
    *way, last = path.split(".")
    inner: Any = new
    for step in way:
        inner = inner[int(step) if isinstance(inner, list) else step]
    inner[int(last) if isinstance(inner, list) else last] = value
    return new


WRONG: list[tuple[str, Any, str]] = [
    ("schema_version", 0, "schema_version is 0"),
    ("schema_version", -5, "schema_version is -5"),
    ("schema_version", True, "schema_version is true"),
    ("schema_version", "1", 'schema_version is "1"'),
    ("schema_version", 1.0, "schema_version is 1.0"),
    ("schema_version", None, "schema_version is null"),
    ("schema_version", 99, "newer version"),
    ("cells", [], "cells is empty"),
    ("cells", {}, "cells: expected `array`"),
    ("verdict", "maybe", "verdict: invalid enum value"),
    ("verdict", "skipped", "verdict is skipped"),
    ("verdict", "match", "verdict is match, but cpu/float64 diverged"),
    ("cells.0.verdict", "match", "cells[0].verdict is match, but bn1 is blamed"),
    ("cells.0.first_divergence", None, "cells[0].verdict is diverged, but nothing is named"),
    ("cells.0.name", "cpu", "cells[0].name is 'cpu'"),
    ("cells.1.name", "cpu/float64", "cells has two of one name"),
    ("cells.0.role", "judge", "cells[0].role is 'judge'"),
    ("cells.0.batch_size", -8, "cells[0].batch_size is -8"),
    ("cells.0.batch_size", "8", 'cells[0].batch_size is "8"'),
    ("cells.0.seconds", "nan", "cells[0].seconds is nan"),
    ("cells.0.layers", [], "cells[0].culprits[0].index is 1, where layers has no row"),
    ("cells.0.layers.0.index", 7, "cells[0].layers[0].index is 7"),
    ("cells.0.layers.1.above", [17], "cells[0].layers[1].above[0] is 17"),
    ("cells.0.layers.1.above", [-1], "cells[0].layers[1].above[0] is -1"),
    ("cells.0.layers.1.above", [1], "cells[0].layers[1].above[0] is 1"),
    ("cells.0.layers.0.shape", [8, -64], "cells[0].layers[0].shape[1] is -64"),
    ("cells.0.layers.0.shape", "8x64", "cells[0].layers[0].shape: expected `array`"),
    ("cells.0.layers.0.status", "fine", "cells[0].layers[0].status: invalid enum"),
    ("cells.0.layers.0.total.elements", -1, "cells[0].layers[0].total.elements is -1"),
    ("cells.0.layers.0.total.mse", -1e-9, "cells[0].layers[0].total.mse is -1e-09"),
    ("cells.0.layers.0.total.pearson", 1.5, "cells[0].layers[0].total.pearson is 1.5"),
    ("cells.0.layers.0.total.nrmse", "NaN", 'cells[0].layers[0].total.nrmse is "NaN"'),
    ("cells.0.layers.0.total.nrmse", True, "cells[0].layers[0].total.nrmse"),
    ("cells.0.layers.0.budget.total", "nan", "cells[0].layers[0].budget.total is nan"),
    ("cells.0.layers.0.budget.intrinsic", -1.0, "cells[0].layers[0].budget.intrinsic is -1"),
    ("cells.0.culprits.0.index", 2, "cells[0].culprits[0].index is 2, where layers has no row of bn1"),
    ("cells.0.first_divergence.index", 40, "cells[0].first_divergence.index is 40"),
    ("first_divergence.baseline", "elsewhere", "first_divergence is elsewhere, which is"),
    ("first_divergence", "bn1", "first_divergence: expected `object | null`"),
    ("first_divergence", {}, "first_divergence: object missing required field"),
    ("culprits.0.baseline", "elsewhere", "culprits[0] is elsewhere, which is a culprit of no cell"),
    ("coverage.compared", 3, "coverage.compared is 3, more than a model has sites"),
    ("coverage.baseline_share", 1.5, "coverage.baseline_share is 1.5"),
    ("coverage.baseline_share", "nan", "coverage.baseline_share is nan"),
    ("baseline.parameters", -1, "baseline.parameters is -1"),
    ("seconds", "inf", "seconds is inf"),
    ("seconds", 1e400, "Infinity is no number in strict JSON"),
    ("command", 3, "command: expected `str`"),
    ("notes", ["fine", 3], "notes[1]: expected `str`"),
    ("surprise", 1, "surprise is no field that is known here"),
    ("coverage.surprise", 1, "coverage.surprise is no field that is known here"),
    (
        "criteria",
        [{"name": "output MSE", "value": 2.0, "comparison": "<", "limit": 1.0, "passed": True}],
        "criteria[0].passed is true, but it says of 2 < 1",
    ),
    (
        "criteria",
        [{"name": "output MSE", "value": 2.0, "comparison": "~", "limit": 1.0, "passed": True}],
        "criteria[0].comparison is '~'",
    ),
]


@pytest.mark.parametrize(("path", "value", "says"), WRONG, ids=[f"{p}={v!r:.30}" for p, v, _ in WRONG])
def test_what_cannot_be_is_refused_by_its_field(
    sound: dict[str, Any], refusal: Callable[[Any], str], path: str, value: Any, says: str
) -> None:
    assert says in refusal(changed(sound, path, value))


def test_a_field_that_is_missing_is_named(sound: dict[str, Any], refusal: Callable[[Any], str]) -> None:
    del sound["cells"][1]["layers"][0]["op"]

    assert "cells[1].layers[0]" in refusal(sound)
    assert "`op`" in refusal(sound)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is no JSON"),
        ("null", "not a saved result"),
        ('"schema_version"', "not a saved result"),
        ("[" * 200_000, "nested deeper"),
        ('{"a":' * 200_000, "nested deeper"),
        ('{"schema_version": 1, "schema_version": 1}', "stands twice"),
        ('{"schema_version": 1, "seconds": NaN}', "NaN is no number"),
        ('{"schema_version": ' + "9" * 5_000 + "}", "is damaged"),
    ],
    ids=lambda text: text[:30],
)
def test_a_text_that_is_no_record_is_refused(refusal: Callable[[Any], str], text: str, says: str) -> None:
    assert says in refusal(text)


def test_a_result_of_before_may_lack_what_was_added_since(sound: dict[str, Any], tmp_path: Path) -> None:
    for field in ("static", "steps", "preprocessing", "policy"):
        del sound[field]
    (tmp_path / "result.json").write_text(json.dumps(sound), encoding="utf-8")

    assert saving.load(tmp_path).policy == "strict"
