"""What modules in one place are and how they are set: operators and settings that differ, as written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verifier.diagnose.codes import of_attribute, of_operator, of_region
from verifier.graph.operators import ACTIVATIONS, REPLACEABLE, canonical, kind
from verifier.sharded.aligning import IDENTITY
from verifier.sharded.watching import MODULE, Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from verifier.sharded.aligning import Aligned, Names
    from verifier.sharded.candidate import Noted
    from verifier.sharded.watching import Event, Pass

# What a part has less of, and what no number of a forward pass depends on.
_OF_PARTS = frozenset(
    {"embedding_dim", "groups", "in_channels", "in_features", "normalized_shape", "num_channels"}
    | {"num_embeddings", "num_features", "num_groups", "num_parameters", "out_channels", "out_features"}
    | {"affine", "elementwise_affine", "inplace", "max_norm", "padding_idx", "scale_grad_by_freq", "sparse"}
)
_DRAWN = frozenset({"momentum", "p"})  # read in training mode only
_TRAINING = "training"


@dataclass(frozen=True)
class Otherwise:
    """A place where some rank's module is set otherwise, or another operator, than the baseline's.

    `telling` says that it changes what torch's own operator gives on some inputs, `idle` that nothing reads it,
    `reached` that it changes what it gives on these: where what follows agrees, it is computed elsewhere.
    """

    scope: str
    code: str
    said: str
    telling: bool
    idle: bool = False
    reached: bool = False


def settings_of(module: nn.Module) -> dict[str, object]:
    """A module's settings: those that torch.nn's classes name, of others the numbers with a point that it has."""
    named = [
        name
        for base in type(module).__mro__
        if base.__module__.startswith("torch.nn.")
        for name in vars(base).get("__constants__", ())
    ]
    own = [name for name, value in vars(module).items() if type(value) is float and not name.startswith("_")]
    found = {name: getattr(module, name, None) for name in (*named, *own) if name not in _OF_PARTS}
    plain = {name: canonical(value) for name, value in found.items() if _is_plain(value)}
    return {**plain, _TRAINING: module.training} if _DRAWN & plain.keys() else plain


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def otherwise(
    baseline: Pass, noted: Sequence[Noted], names: Sequence[Names], pairs: Aligned
) -> dict[str, list[Otherwise]]:
    """All such places by the module's name, each told once."""
    found: dict[str, dict[str, Otherwise]] = {}
    for rank, (called, each) in enumerate(zip(names, noted, strict=True)):
        for name, settings in each.settings.items():
            scope = called.whole(name)
            if scope in baseline.settings and not called.outside(name):
                for one in _set_otherwise(scope, baseline, settings, each.kinds[name]):
                    found.setdefault(scope, {}).setdefault(one.said, one)
        for one in _other_operators(rank, baseline, each, pairs):
            found.setdefault(one.scope, {}).setdefault(one.said, one)
    for one in _left_out(baseline, noted, names, pairs):
        found.setdefault(one.scope, {}).setdefault(one.said, one)
    return {scope: list(each.values()) for scope, each in found.items()}


def _set_otherwise(
    scope: str, baseline: Pass, settings: Mapping[str, object], kinds: Sequence[str]
) -> Iterator[Otherwise]:
    known, base = baseline.settings[scope], baseline.kinds[scope]
    torchs = next((each for each in base if each.startswith("torch.nn.") and each in kinds), "")
    root = torchs.rpartition(".")[2]
    if base[0] not in kinds and root in ("", "Module"):
        return
    event = baseline.events.get(Key(scope, "", 0))
    op = root.lower() if event is None or event.op == MODULE else event.op
    on = any(each.get(_TRAINING) for each in (known, settings))
    for name in known.keys() & settings.keys():
        if known[name] != settings[name]:
            said = f"{name} is {settings[name]}, the baseline's {known[name]}"
            word = (op if root != "Module" else base[0].rpartition(".")[2].lower()) or "module"
            idle = not on and root != "Module" and name in _DRAWN
            telling = root != "Module" and name != _TRAINING and not idle
            yield Otherwise(scope, of_attribute(word, name), said, telling, idle)


def _other_operators(rank: int, baseline: Pass, noted: Noted, pairs: Aligned) -> Iterator[Otherwise]:
    """Operators of torch.nn in one place, and activations that stand alone without a partner in one module."""
    ops = {held.key: held.op for held in noted.held}
    for key, parts in pairs.parts.items():
        op = baseline.events[key].op
        for own in parts[rank][:1]:
            # What is called last in one may be what moves its tensors between processes: that is of no such kind.
            if not key.op and op != ops[own] and {kind(op), kind(ops[own])} <= REPLACEABLE:
                yield _another(key.scope, ops[own], op)
    lone: dict[str, list[str]] = {}
    for where, key, op in pairs.lone:
        if where == rank and key.op:
            lone.setdefault(key.scope, []).append(op)
    for scope, found in lone.items():
        missing = [k.op for k, parts in pairs.parts.items() if k.scope == scope and k.op and not parts[rank]]
        if len(missing) == 1 == len(found) and {*missing, *found} <= ACTIVATIONS:
            yield _another(scope, found[0], missing[0])


def _left_out(
    baseline: Pass, noted: Sequence[Noted], names: Sequence[Names], pairs: Aligned
) -> Iterator[Otherwise]:
    """Activations that no rank has: their module hands on what it is given, or is of one class and calls none."""
    kinds = [
        {called.whole(n): k for n, k in each.kinds.items()} for called, each in zip(names, noted, strict=True)
    ]
    moved = {op for _, _, op in pairs.lone}
    lone = [(names[rank].whole(key.scope), key.op) for rank, key, _ in pairs.lone]
    for key, parts in pairs.parts.items():
        event, scope = baseline.events[key], key.scope
        there = [each[scope] for each in kinds if scope in each]
        if event.op not in ACTIVATIONS - moved or any(parts) or not there:
            continue
        front = f"{scope}." if scope else ""
        inside = any(op if name == scope else name.startswith(front) for name, op in lone)
        alike = all(baseline.kinds[scope][0] in kind for kind in there) and not inside
        if alike if key.op else all(kind[0] == IDENTITY for kind in there):
            code, said = of_region([event.op], [], ""), f"{event.op} is left out"
            yield Otherwise(scope, code, said, telling=True, reached=_reached(baseline, event))


def _reached(baseline: Pass, event: Event) -> bool:
    """Whether a call of one tensor gives other numbers than it is given."""
    above = [baseline.events[key].value for key in event.above[:1] if key in baseline.events]
    given = next(iter(above), None) if event.given is None else event.given
    return given is not None and not (given.shape == event.value.shape and bool((given == event.value).all()))


def _another(scope: str, op: str, wanted: str) -> Otherwise:
    return Otherwise(scope, of_operator(op, wanted), f"{op}, the baseline's is {wanted}", telling=True)
