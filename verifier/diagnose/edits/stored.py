"""The weight that an operator should have stored: what the baseline makes of several, solved for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit
from verifier.graph import KeptCall
from verifier.recognise.values import relate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key, Step

_MOST_DRAWS = 48
_MOST_UNKNOWNS = 4096
_EXACT = 1e-9  # relative; what a solved system leaves is rounding
_MORE_ROWS = 1.25  # equations for each unknown: more than as many, or anything could be solved for


def effective(context: Context) -> Iterator[Edit]:
    """The weight and the bias with which an operator gives what the baseline's operators give on any numbers."""
    for at, step in context.steps():
        if step.op not in _KERNELS or "weight" not in step.call.state or step.sources[0] is None:
            continue
        if step.call.arguments.get("groups", 1) != 1:
            continue
        found = _solved(context, at, step)
        if found is None:
            continue
        weight, bias = found
        held = step.call.arguments["weight"]
        call = step.call.with_argument("weight", weight)
        told = [f"the stored weight of {step.op} {_told(held, weight)}"]
        if bias is not None and not _alike(step.call.arguments["bias"], bias):
            told.append(f"its bias {_told(step.call.arguments['bias'], bias)}")
            call = call.with_argument("bias", bias)
        ops = ", ".join(dict.fromkeys(each.op for each in context.baseline.steps))
        relation = relate(held, weight)
        yield Edit(
            codes.of_tensor("weight", "perturbed" if relation is None else relation.kind),
            "; ".join(told),
            f"store what the baseline's {ops} make together",
            context.program.with_call(at, call),
            (step.name,),
            evidence=(
                f"the right ones were solved for from what the baseline's {ops} give on other numbers",
            ),
        )


_KERNELS = {"linear": 0, "conv1d": 1, "conv2d": 2}


def _alike(held: Tensor, right: Tensor) -> bool:
    return float((held - right).norm()) <= _EXACT * float(right.norm())


def _told(held: Tensor, right: Tensor) -> str:
    relation = relate(held, right)
    if relation is not None:
        return relation.summary
    share = float((held - right).norm() / right.norm())
    return f"is right but for {share:.2g} of its size" if share < 1 else f"is off by {share:.2g} of its size"


def _solved(context: Context, at: int, step: Step) -> tuple[Tensor, Tensor | None] | None:
    order = _order(context, at, step)
    held = step.call.arguments["weight"]
    bias = step.call.arguments.get("bias")
    if not isinstance(bias, Tensor) or "bias" not in step.call.state:
        bias = None
    unknowns = held[0].numel() + (bias is not None)
    if order is None or unknowns > _MOST_UNKNOWNS:
        return None
    generator = torch.Generator().manual_seed(1)
    rows: list[Tensor] = []
    rights: list[Tensor] = []
    for _ in range(_MOST_DRAWS):
        drawn = _drawn(context, generator, step.sources[0])
        if drawn is None:
            return None
        x, wanted = drawn
        made = wanted.flatten()[order.argsort()].reshape(context.tensor(step.first).shape)
        matrix = _rows(step, x)
        if matrix is None:
            return None
        rows.append(matrix)
        channel = -1 if step.op == "linear" else 1
        rights.append(made.movedim(channel, -1).reshape(-1, held.shape[0]))
        if len(matrix) != len(rights[-1]):
            return None
        if sum(map(len, rows)) > _MORE_ROWS * unknowns:
            break
    else:
        return None
    a, b = torch.cat(rows).double(), torch.cat(rights).double()
    if bias is not None:
        a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
    if bool((a.norm(dim=0) == 0).any()):
        return None
    solution = torch.linalg.lstsq(a.cpu(), b.cpu(), driver="gelsd").solution.to(b.device)
    if float((a @ solution - b).norm()) > _EXACT * float(b.norm()):
        return None
    weight = solution[: held[0].numel()].t().reshape(held.shape).to(held.dtype)
    return weight, None if bias is None else solution[-1].to(bias.dtype)


def _drawn(context: Context, generator: torch.Generator, source: Key | None) -> tuple[Tensor, Tensor] | None:
    """What the operator reads and what should come out, on other numbers."""
    values, other = dict(context.baseline.values), dict(context.program.values)
    for key, tensor in values.items():
        twin = context.twins.get(key)
        if tensor.is_floating_point():
            if twin is None:
                return None
            values[key] = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            other[twin] = context.laid(values[key], other[twin])
    context.meter.spend()
    try:
        baseline, program = context.baseline.on(values), context.program.on(other)
        x = program.run().of_key[source] if source is not None else None
        wanted = baseline.result_of(baseline.run())
    except Exception:
        return None
    return None if x is None or wanted.shape != context.wanted.shape else (x, wanted)


def _order(context: Context, at: int, step: Step) -> Tensor | None:
    """Which of an operator's numbers each of those that come out is; None where they are not the same ones."""
    made = context.tensor(step.first)
    numbers = torch.arange(made.numel(), dtype=made.dtype, device=made.device).reshape(made.shape)
    call = KeptCall.of(torch.clone, (numbers,), {}, set())
    marked = context.program.with_step(at, replace(step, op="clone", call=call, sources=(None,)))
    out = context.made(marked)
    if out is None or out.numel() != numbers.numel() or out.shape != context.wanted.shape:
        return None
    order = out.flatten().long()
    return order if order.sort().values.equal(torch.arange(len(order), device=order.device)) else None


def _rows(step: Step, x: Tensor) -> Tensor | None:
    """What each row of the weight is multiplied by."""
    arguments = step.call.arguments
    if step.op == "linear":
        return x.reshape(-1, x.shape[-1])
    kernel = arguments["weight"].shape[2:]
    options: dict[str, Any] = {
        name: _both(arguments.get(name, default), len(kernel))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    if any(value is None for value in options.values()):
        return None
    if step.op == "conv1d":
        x = x[:, :, None]
        kernel = (1, *kernel)
        options = {name: (0 if name == "padding" else 1, *value) for name, value in options.items()}
    return F.unfold(x, kernel, **options).transpose(1, 2).reshape(-1, arguments["weight"][0].numel())


def _both(value: Any, rank: int) -> tuple[int, ...] | None:
    if isinstance(value, int):
        return (value,) * rank
    return tuple(value) * (rank if len(value) == 1 else 1) if isinstance(value, list | tuple) else None
