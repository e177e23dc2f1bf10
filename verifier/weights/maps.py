"""Parameter maps as people write and read them: which of the baseline's tensors each of the candidate's is made of.

A map is a TOML file of `candidate name = baseline name`. A star stands for part of a name between two dots, two stars
for any part; what they match is put in place of the stars on the other side, one after the other:

    "blocks.*.attn.proj.*" = "layers.*.self_attention.out_proj.*"
    "blocks.*.attn.q.weight" = "layers.*.self_attention.in_proj_weight[0:768]"     # rows
    "blocks.*.mlp.fc1.weight" = "layers.*.mlp.c_fc.weight.T"                       # transposed
    "blocks.*.attn.qkv.weight" = ["layers.*.q.weight", "layers.*.k.weight", "layers.*.v.weight"]
    "cell.bias" = "rnn.bias_ih_l0 + rnn.bias_hh_l0"                                # a sum; "0 * fc.bias" for zeros
    "head.scale" = false                                                           # keeps its own value

A name written out in full comes before a pattern, and of two patterns the first that matches.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from verifier.align import Assembly
from verifier.border import toml
from verifier.errors import MapError, suggestion
from verifier.weights.patterns import STARS, Pattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from verifier.records import WeightsInfo

Entry = str | tuple[str, ...] | None
"""What a map says of one name: the baseline's tensor, several to be put together, None to keep its own."""


def read_map(path: Path) -> dict[str, Entry]:
    """The entries of a map file by candidate name or pattern.

    Raises:
        MapError: The file cannot be read, is no TOML, or holds something else than names.
    """
    content = toml.read(path, f"--map {path}", MapError)
    return dict(_entries(content, str(path)))


def _entries(table: Mapping[str, object], source: str, prefix: str = "") -> Iterator[tuple[str, Entry]]:
    """Names and values; a dotted key without quotes is a table within a table to TOML."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _entries(value, source, f"{name}.")
        else:
            yield name, _entry(name, value, source)


def _entry(name: str, value: object, source: str) -> Entry:
    if value is False or value is None:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise MapError(
        f"{source}: {name} is {json.dumps(value, default=str)}. Give the name of a tensor of the baseline, a list of "
        "such, or false."
    )


def resolve(
    entries: Mapping[str, object],
    baseline: Mapping[str, Sequence[int]],
    candidate: Mapping[str, Sequence[int]],
    source: str = "the parameter map",
) -> dict[str, Assembly | None]:
    """What a map says of each of the candidate's tensors it speaks of; None for one that keeps its own value.

    Args:
        entries: Names or patterns, as `read_map` gives them.
        baseline: The baseline's tensors: shapes by name.
        candidate: The candidate's, likewise.
        source: What the map is called in messages.

    Raises:
        MapError: A name is unknown, a pattern matches nothing, or sizes do not go together.
    """
    named = {name: _entry(name, value, source) for name, value in entries.items()}
    found: dict[str, Assembly | None] = {}
    for name, entry in sorted(named.items(), key=lambda item: "*" in item[0]):
        matches = _matches(name, candidate)
        if not matches:
            raise MapError(
                f"{source}: the candidate has no tensor {name}{suggestion(name, candidate) or '.'}"
            )
        for target, parts in matches.items():
            if target not in found:
                found[target] = (
                    None
                    if entry is None
                    else _assembly(target, entry, parts, baseline, candidate[target], source)
                )
    return found


def _matches(name: str, candidate: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """The candidate's tensors that a name or pattern means, with what its stars stand for."""
    if name in candidate:
        return {name: ()}
    pattern = Pattern(name)
    found = ((target, pattern.stars(target)) for target in candidate)
    return {target: parts for target, parts in found if parts is not None}


def _assembly(
    target: str,
    entry: str | tuple[str, ...],
    parts: Sequence[str],
    baseline: Mapping[str, Sequence[int]],
    shape: Sequence[int],
    source: str,
) -> Assembly:
    texts = [_filled(text, parts, target, source) for text in ([entry] if isinstance(entry, str) else entry)]
    try:
        assembly = Assembly.parsed(texts, baseline)
    except ValueError as error:  # Python reads no number of more than some thousand digits
        raise MapError(
            f"{source}: {target} is to be rows whose numbers have more digits than any tensor."
        ) from error
    for name in assembly.names:
        if name not in baseline:
            raise MapError(
                f"{source}: {target} is to be {name}, which the baseline has not{suggestion(name, baseline) or '.'}"
            )
    for piece in (term for each in assembly.pieces for term in each.terms):
        whole = piece._replace(start=None, stop=None).shape(baseline[piece.name])
        if piece.stop is not None and whole and piece.stop > whole[0]:
            raise MapError(f"{source}: {target} is to be {piece}, but {piece.name} has only {whole[0]} rows.")
    if not assembly.fits(baseline, shape):
        given = ", ".join(f"{name} {tuple(baseline[name])}" for name in assembly.names)
        raise MapError(f"{source}: {target} {tuple(shape)} cannot be made of {given}.")
    return assembly


def _filled(text: str, parts: Sequence[str], target: str, source: str) -> str:
    pieces = STARS.split(text)
    if len(pieces) - 1 > len(parts):
        raise MapError(f"{source}: {text} has more stars than the name it is given for, {target}.")
    filled = [*parts[: len(pieces) - 1], ""]
    return "".join(piece + part for piece, part in zip(pieces, filled, strict=True))


def as_toml(weights: WeightsInfo) -> str:
    """The map a run has used, as a file that `read_map` takes."""
    lines = ["# candidate = baseline"]
    lines += [f"{json.dumps(name)} = {_value(entry)}" for name, entry in weights.parameter_map.items()]
    for title, names in (
        ("the candidate's without a partner", weights.unmapped_candidate),
        ("the baseline's without a partner", weights.unmapped_baseline),
    ):
        if names:
            lines += ["", f"# {title}:", *(f"# {json.dumps(name)}" for name in names)]
    return "\n".join(lines) + "\n"


def _value(entry: str | Sequence[str]) -> str:
    return json.dumps(entry if isinstance(entry, str) else list(entry), ensure_ascii=False)
