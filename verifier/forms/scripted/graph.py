"""What a TorchScript module's methods say, read once: instructions by name, with where each is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.forms.scripted.operators import operator
from verifier.graph.interpreted import Node
from verifier.graph.traced import CONTAINERS, Origin
from verifier.records import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CALL = "parity::call"  # a call of a method, which stays one where functions are written out

# Instructions that `verifier.forms.scripted.program` has; all others are operators.
CONTROL = frozenset(
    {
        "prim::GetAttr",
        "prim::SetAttr",
        "prim::If",
        "prim::Loop",
        "prim::CreateObject",
        "prim::Enter",
        "prim::Exit",
    }
)
CONTROL |= {CALL}

_CONSTANTS = frozenset({"prim::Constant", "prim::ConstantMKLDNNTensor"})
_GRAD_MODES = "__torch__.torch.autograd.grad_mode."


class Unreadable(Exception):  # noqa: N818 - the module runs all the same
    """A method does something that has a meaning in TorchScript's own runtime alone; the message says what."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One node of a graph.

    Attributes:
        kind: What it does: one of `CONTROL`, or an operator.
        inputs: Names of the values it reads.
        outputs: Names of the values it gives.
        function: What computes these, of an operator.
        name: Of the attribute or method it is about.
        blocks: What it runs itself.
        done: Names of the values that nothing reads after it.
        place: Where it comes from.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[..., Any] | None
    name: str
    blocks: tuple[Block, ...]
    done: tuple[str, ...]
    place: Node


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions in order, with the names of what they are given and of what they give."""

    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """A method of modules of one type.

    Attributes:
        block: What it does.
        schema: What it is given, by name and with defaults.
        constants: What is written in it, by the names of values.
        tensors: Tensors among these, and in lists among these.
        lists: Lists of tensors among these, each with the names of what it holds.
        attributes: Names of what it reads or writes of modules.
    """

    block: Block
    schema: Any
    constants: dict[str, Any]
    tensors: dict[str, Tensor]
    lists: dict[str, tuple[str, ...]]
    attributes: frozenset[str]

    def __deepcopy__(self, _memo: object) -> Method:
        return self


def method(module: Any, name: str) -> Method:
    """What a method says.

    Args:
        module: The module, as torch has it in C++.
        name: The method's name.

    Raises:
        Unreadable: It cannot be run node by node.
    """
    found = module._get_method(name)
    graph = found.graph.copy()
    for node in [*graph.findAllNodes("prim::CallMethod")]:
        _keep_call(graph, node)
    torch._C._jit_pass_inline(graph)
    torch._C._jit_pass_inline_fork_wait(graph)
    return _Reader(module, name).read(graph, found.schema)


def _keep_call(graph: Any, node: Any) -> None:
    """Take a method's call out of the reach of inlining, which writes functions out: so its module is known."""
    call = graph.create(CALL, [*node.inputs()], node.outputsSize())
    call.copyMetadata(node)
    call.s_("name", node.s("name"))
    call.insertBefore(node)
    for old, new in zip(node.outputs(), call.outputs(), strict=True):
        new.setType(old.type())
        old.replaceAllUsesWith(new)
    node.destroy()


class _Reader:
    def __init__(self, module: Any, name: str) -> None:
        kind = module._type().qualified_name()
        kind = re.sub(r"\.___torch_mangle_\d+", "", kind).removeprefix("__torch__.")
        last = kind.rpartition(".")[2]
        leaf = kind.startswith("torch.nn.") and last not in CONTAINERS
        self._origin = Origin("", leaf and not torch._C.ModuleDict(module).items())
        self._function = f"{last}.{name}"
        self._constants: dict[str, Any] = {}
        self._tensors: dict[str, Tensor] = {}
        self._lists: dict[str, tuple[str, ...]] = {}
        self._attributes: set[str] = set()

    def read(self, graph: Any, schema: Any) -> Method:
        inputs = [*graph.inputs()]
        block = self._block([each.debugName() for each in inputs], graph.nodes(), graph.return_node())
        return Method(block, schema, self._constants, self._tensors, self._lists, frozenset(self._attributes))

    def _block(self, inputs: Sequence[str], nodes: Iterator[Any], end: Any) -> Block:
        read = [(node, _names_read(node)) for node in nodes]
        outputs = tuple(each.debugName() for each in end.inputs())
        made = (value for node, _ in read if node.kind() not in _CONSTANTS for value in node.outputs())
        own = {*inputs, *(value.debugName() for value in made)} - {*outputs}
        last = {name: k for k, (_, names) in enumerate(read) for name in names if name in own}
        instructions = []
        for k, (node, names) in enumerate(read):
            if node.kind() in _CONSTANTS:
                self._constant(node)
                continue
            unread = {value.debugName() for value in node.outputs()} & own - last.keys()
            done = {name for name in names if last.get(name) == k} | unread
            instructions.append(self._instruction(node, tuple(done)))
        return Block(tuple(inputs), tuple(instructions), outputs)

    def _instruction(self, node: Any, done: tuple[str, ...]) -> Instruction:
        kind = node.kind()
        blocks = tuple(
            self._block([each.debugName() for each in block.inputs()], block.nodes(), block.returnNode())
            for block in node.blocks()
        )
        inputs = tuple(each.debugName() for each in node.inputs())
        named = kind in {"prim::GetAttr", "prim::SetAttr", CALL}
        name = node.s("name") if named else ""
        if kind in {"prim::GetAttr", "prim::SetAttr"}:
            self._attributes.add(name)
        function = None
        if kind == "prim::CreateObject":
            if not _type(node.output()).startswith(_GRAD_MODES):
                raise Unreadable(f"it makes an object of a class of its own ({_type(node.output())})")
        elif kind not in CONTROL:
            function = operator(node)
            if function is None or blocks:
                raise Unreadable(f"it has a node {kind}, which only TorchScript's own runtime runs")
        return Instruction(
            kind=kind,
            inputs=inputs,
            outputs=tuple(each.debugName() for each in node.outputs()),
            function=function,
            name=name,
            blocks=blocks,
            done=done,
            place=Node(self._origin, self._source(node)),
        )

    def _constant(self, node: Any) -> None:
        kind = _type(node.output())
        try:
            value = node.t("value").to_dense() if "MKLDNN" in node.kind() else node.output().toIValue()
        except RuntimeError as error:
            if node.hasAttribute("name"):  # a function, which is written out where it was called
                return
            raise Unreadable(f"it holds a constant of type {kind}, which Python does not know") from error
        name = node.output().debugName()
        if isinstance(value, list) and any(isinstance(each, Tensor) for each in value):
            self._lists[name] = tuple(f"{name}.{k}" for k in range(len(value)))
            self._tensors |= zip(self._lists[name], value, strict=True)
        elif isinstance(value, Tensor) and not _is_number(value):
            self._tensors[name] = value
        else:
            self._constants[name] = value.item() if isinstance(value, Tensor) else value

    def _source(self, node: Any) -> Source:
        """The innermost line outside torch that is written down for a node, else the innermost."""
        text = node.sourceRange()
        traced = [(file, line, name) for file, line, name in _TRACED.findall(text)]
        lines = traced or [(file, line, self._function) for file, line in _SCRIPTED.findall(text)]
        if not lines:
            return Source(file="TorchScript", line=0, function=self._function)
        own = (each for each in lines if not _shown(each[0]).startswith("torch/"))
        file, line, name = next(own, lines[0])
        return Source(file=_shown(file), line=int(line), function=name)


_TRACED = re.compile(r"^(.+)\((\d+)\): (\S+)$", re.MULTILINE)
_SCRIPTED = re.compile(r'File "([^"]+)", line (\d+)')


def _shown(file: str) -> str:
    """A file as records name it: by its package, else by its name alone."""
    path = PurePath(file)
    sites = [k for k, part in enumerate(path.parts) if part in ("site-packages", "dist-packages")]
    return PurePath(*path.parts[sites[-1] + 1 :]).as_posix() if sites else path.name


def _type(value: Any) -> str:
    return str(value.type().annotation_str)


def _is_number(tensor: Tensor) -> bool:
    """Whether a constant is a number that Python had while a model was traced."""
    return tensor.dtype in (torch.float64, torch.int64, torch.bool) and not (tensor.dim() or tensor.is_meta)


def _names_read(node: Any) -> set[str]:
    """Names of the values that a node reads, or its blocks do."""
    found = {each.debugName() for each in node.inputs()}
    for block in node.blocks():
        found |= {each.debugName() for each in block.returnNode().inputs()}
        for inside in block.nodes():
            found |= _names_read(inside)
    return found
