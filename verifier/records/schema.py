"""The JSON schema of `result.json`, generated from the records; `python -m verifier.records.schema` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from verifier.records import SCHEMA_VERSION, Result

FILE = Path(__file__).parents[1] / "result.schema.json"

# Strict JSON has no way to write these as numbers.
_FLOAT = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}


def schema() -> dict[str, Any]:
    """What `result.json` holds, as JSON Schema of draft 2020-12: every field is there and no other."""
    generated: dict[str, Any] = _tightened(msgspec.json.schema(Result))
    generated["$defs"]["Result"]["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The result of a parity verification",
        **generated,
    }


def text() -> str:
    """The schema as the shipped file has it."""
    return json.dumps(schema(), indent=2) + "\n"


def _tightened(node: Any) -> Any:
    if isinstance(node, list):
        return [_tightened(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "number":
        return _FLOAT
    tightened = {key: _tightened(value) for key, value in node.items() if key != "default"}
    if "properties" in node:
        tightened |= {"required": list(node["properties"]), "additionalProperties": False}
    return tightened


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
