"""One side of a region as lines of Python: a call each, on named tensors."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.diagnose.repros.spelling import UnwritableError, call_text
from verifier.graph.chance import random_state
from verifier.graph.operators import operator_name, writes_in_place
from verifier.graph.tensors import same_numbers, tensors_in
from verifier.graph.widening import widened, wider

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.diagnose.edits.program import Key, Program, Step
    from verifier.graph import KeptCall

# What a safetensors file calls the dtypes that a script reads.
DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TAKEN = frozenset({"t", "F", "torch", "json", "sys", "read", "candidate", "baseline", "error"})


@dataclass
class Kept:
    """The tensors that a script reads, by name, on the CPU; what both sides are given alike is there once."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def text(self, name: str, tensor: Tensor, *, other: str = "the candidate's ") -> str:
        """How a script says a tensor that is kept under a name, or with `other` before it where that is taken.

        Raises:
            UnwritableError: It cannot be kept.
        """
        held = self.held(tensor)
        key = next((key for key, each in self.tensors.items() if _is_one(each, held)), name)
        while key in self.tensors and not same_numbers(self.tensors[key], held):
            key = other + key
        self.tensors.setdefault(key, held)
        text = f't["{key}"]' if '"' not in key and "\\" not in key else f"t[{key!r}]"
        return f"torch.view_as_complex({text})" if tensor.is_complex() else text

    @staticmethod
    def held(tensor: Tensor) -> Tensor:
        """A copy that can be kept: of complex numbers the two parts.

        Raises:
            UnwritableError: There is no such.
        """
        if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
            raise UnwritableError("a tensor is not stored densely")
        plain = tensor.detach().resolve_conj().resolve_neg()
        plain = torch.view_as_real(plain) if plain.is_complex() else plain
        if plain.dtype not in DTYPES:
            raise UnwritableError(f"a tensor is of the dtype {plain.dtype}")
        return plain.to("cpu", copy=True).contiguous()


def _is_one(kept: Tensor, tensor: Tensor) -> bool:
    """Whether two tensors are one by all they hold: no two of so many numbers are alike by chance."""
    return tensor.numel() >= _MANY and same_numbers(kept, tensor)


_MANY = 1024


def lines_of(program: Program, names: Mapping[Key, str], kept: Kept) -> list[str]:
    """The steps that the result depends on as assignments, then the return of the result.

    Args:
        program: One side of a region, on the baseline's tensors.
        names: What the tensors that come in are called.
        kept: Receives every tensor that the lines read.

    Raises:
        UnwritableError: A step cannot be written, or not be made again.
    """
    known: dict[Key, str] = {}
    lines: list[str] = []
    used: set[str] = set()

    def read(source: Key | None, own: Tensor, name: str) -> str:
        if source is not None and source in known:
            return known[source]
        if source is not None and source in program.values:
            return kept.text(names[source], program.values[source])
        return kept.text(name, own)

    for step in _needed(program):
        result, draws = _made(step.call)
        name = _identifier(step, used)
        operands = iter(
            [
                read(source, own, f"{step.name}, constant {k}")
                for k, (source, own) in enumerate(zip(step.sources, step.call.operands, strict=True))
            ]
        )
        if draws and step.call.chance is not None:
            lines.append(f"torch.set_rng_state({kept.text(f'{step.name}, chance', step.call.chance.torch)})")
        lines += _assigned(step, name, list(_expressions(step, operands, kept)))
        paths = list(_paths(result)) if operator_name(step.call.function) != "setitem" else [""]
        known.update((step.first + k, f"{name}{path}") for k, path in enumerate(paths))
    if program.result in known:
        result_text = known[program.result]
    elif program.result in program.values:
        result_text = kept.text(names[program.result], program.values[program.result])
    else:
        raise UnwritableError("what comes out is made by none of its calls")
    return _chained([*lines, f"return {result_text}"])


def _chained(lines: Sequence[str]) -> list[str]:
    """Lines of which each that only the next one reads, and at its very start, has become that start."""
    found: list[str] = []
    for k, line in enumerate(lines):
        name, assigned, text = found[-1].partition(" = ") if found else ("", "", "")
        head, equals, rest = (
            line.partition(" = ") if not line.startswith("return ") else ("return ", "", line[7:])
        )
        uses = sum(len(re.findall(rf"\b{re.escape(name)}\b", each)) for each in lines[k:]) if assigned else 0
        if assigned and uses == 1 and re.match(rf"{re.escape(name)}(?![\w ])", rest) and name.isidentifier():
            start = text if rest == name or _is_primary(text) else f"({text})"
            found[-1] = f"{head}{equals}{start}{rest[len(name) :]}"
        else:
            found.append(line)
    return found


def _is_primary(text: str) -> bool:
    """Whether an attribute of an expression can be taken without brackets around it."""
    return isinstance(ast.parse(text, mode="eval").body, ast.Call | ast.Attribute | ast.Subscript)


def _needed(program: Program) -> list[Step]:
    """The steps that the result depends on, in order."""
    wanted = {program.result}
    found: list[Step] = []
    for k in range(len(program.steps) - 1, -1, -1):
        step = program.steps[k]
        if any(program.maker(key) == k for key in wanted):
            found.append(step)
            wanted.update(source for source in step.sources if source is not None)
    return found[::-1]


def _expressions(step: Step, operands: Iterator[str], kept: Kept) -> Iterator[str]:
    """What stands for each tensor of a call, in the order of its arguments: the model's own by their names."""
    call, held = step.call, list(step.held)
    for name, value in call.arguments.items():
        for k, tensor in enumerate(tensors_in(value)):
            if name not in call.state:
                yield next(operands)
            elif held:
                yield kept.text(held.pop(0), tensor)
            else:
                yield kept.text(f"{step.name}, {name} {k}", tensor)


def _assigned(step: Step, name: str, tensors: list[str]) -> list[str]:
    """A call as an assignment. What it overwrites is a copy: others may read what was there."""
    call = step.call
    function, arguments = call.function, dict(call.arguments)
    if call.widens:  # as it was run: what names float32 in a comparison in float64 has been given float64
        arguments = widened(function, arguments)
        function = wider(function)
    sets = operator_name(function) == "setitem"
    if sets:
        text = call_text(function, arguments, call.positional, iter([name, *tensors[1:]]))
        return [f"{name} = {tensors[0]}.clone()", text]
    if writes_in_place(call.function, call.arguments) and tensors:
        tensors = [f"{tensors[0]}.clone()", *tensors[1:]]
    return [f"{name} = {call_text(function, arguments, call.positional, iter(tensors))}"]


def _made(call: KeptCall) -> tuple[Any, bool]:
    """What a call returns, nested as it is, and whether it draws random numbers."""
    seen: list[tuple[Any, bool]] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        before = None if call.chance is None else random_state()
        result = call.function(*args, **kwargs)
        seen.append((result, before is not None and not before.same(random_state())))
        return result

    try:
        replace(call, function=watched).run()
    except Exception as error:
        raise UnwritableError("a call cannot be made again") from error
    return seen[0]


def _paths(result: Any, path: str = "") -> Iterator[str]:
    """Where in what a call returns its tensors stand, in the order of `tensors_in`."""
    if isinstance(result, Tensor):
        yield path
    elif isinstance(result, tuple | list):
        for k, each in enumerate(result):
            yield from _paths(each, f"{path}[{k}]")
    elif any(True for _ in tensors_in(result)):
        raise UnwritableError(f"a call returns a {type(result).__name__}")


def _identifier(step: Step, used: set[str]) -> str:
    """A variable named after the place of a call."""
    leaf = step.name.rpartition(".")[2]
    bare = re.sub(r"\W", "_", step.op if leaf.isdigit() or not leaf else leaf)
    if bare[:1].isdigit() or keyword.iskeyword(bare) or bare in _TAKEN:
        bare = f"{bare}_"
    bare = f"_{bare}" if bare[:1].isdigit() else bare
    name, number = bare, 1
    while name in used:
        number += 1
        name = f"{bare}_{number}"
    used.add(name)
    return name


def input_names(sources: Sequence[Key], shown: Mapping[Key, str]) -> dict[Key, str]:
    """Names of tensors that come in from above: of the site that makes each, or the model's input by number."""
    return {key: f"input {-1 - key}" if key < 0 else shown[key] for key in sources}
