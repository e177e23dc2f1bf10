from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from verifier.records import schema, to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification


@pytest.fixture(scope="module")
def validator() -> Any:
    return Draft202012Validator(schema.schema())


def test_the_shipped_schema_is_current() -> None:
    assert schema.FILE.read_text(encoding="utf-8") == schema.text(), (
        "write it anew: python -m verifier.records.schema"
    )


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema.schema())


# A record holds hundreds of values, which a busy machine is slow to draw.
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_result_validates(
    draw_verification: Callable[[st.DataObject], Verification], validator: Any, data: st.DataObject
) -> None:
    validator.validate(json.loads(json.dumps(to_builtins(draw_verification(data)), allow_nan=False)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verdict", "maybe"),
        ("seconds", "fast"),
        ("seconds", "NaN"),
        ("seconds", True),
        ("schema_version", 2),
        ("culprits", None),
        ("unknown", 1),
    ],
)
def test_what_is_no_result_does_not_validate(
    verification: Verification, validator: Any, field: str, value: object
) -> None:
    content = to_builtins(verification)
    assert validator.is_valid(content)
    assert not validator.is_valid(content | {field: value})


def test_every_field_is_required(verification: Verification, validator: Any) -> None:
    content = to_builtins(verification)
    for field in content:
        assert not validator.is_valid({key: value for key, value in content.items() if key != field})
