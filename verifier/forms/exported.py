"""Programs of torch.export: what was captured, and the same after it was decomposed into core operators."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.align.sequence import longest_common_subsequence
from verifier.border.error_texts import account
from verifier.forms.form import Form, Kernel, reading
from verifier.forms.pt2e import is_quantised
from verifier.forms.pt2e import of as quantised
from verifier.forms.taps import described
from verifier.graph.operators import operator_name
from verifier.graph.tensors import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Graph as FxGraph
    from torch.fx import GraphModule, Node

    from verifier.graph import Graph


class Decomposed:
    """The program as `run_decompositions` leaves it, which is what most backends start from.

    Args:
        module: It.
        program: The graph that it was made of.
    """

    name = "run_decompositions"

    def __init__(self, module: GraphModule, program: FxGraph) -> None:
        self._module = module
        self._program = program

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns."""
        return self._run(copy.deepcopy(self._module), args, kwargs)

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        """What it has of the program's values: the last that it computes of each operator that gives one tensor."""
        parts = {site: nodes for site, nodes in self._parts(graph).items() if len(_given(site, graph)) == 1}
        for first in range(0, len(parts), _AT_ONCE):
            chunk = dict(list(parts.items())[first : first + _AT_ONCE])
            kept: dict[str, Tensor] = {}
            self._run(_keeping(self._module, [nodes[-1] for nodes in chunk.values()], kept), args, kwargs)
            for site, nodes in chunk.items():
                value = kept.get(nodes[-1].name)
                if value is not None and tuple(value.shape) == graph.sites[site].shape:
                    yield site, " + ".join(map(_called, nodes)), value

    def kernels(self, graph: Graph) -> Iterator[Kernel]:
        """The core operators that each operator of the program has become, one after the other."""
        for site, nodes in self._parts(graph).items():
            yield Kernel(nodes[-1].name, " + ".join(map(_called, nodes)), _given(site, graph))

    def _run(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        own, named = mapped((tuple(args), dict(kwargs)), torch.clone)
        return module(*own, **named)

    def _parts(self, graph: Graph) -> dict[int, list[Node]]:
        """The nodes that an operator of the program has become, by its site, in the order in which they end."""
        names = [node for node in self._program.nodes if _computes(node)]
        values = [(told[1], 0, told[3]) for told in (described(0, node) for node in names)]
        sites = [(site.op, site.output, site.scope) for site in graph.sites]
        place = {names[k].name: index for k, index in longest_common_subsequence(values, sites)}
        found: dict[int, list[Node]] = {}
        for node in self._module.graph.nodes:
            site = place.get(_origin(node))
            if site is not None and node.op == "call_function":
                found.setdefault(site, []).append(node)
        order = {node: k for k, node in enumerate(self._module.graph.nodes)}
        return dict(sorted(found.items(), key=lambda each: order[each[1][-1]]))


_AT_ONCE = 64  # values that one run shows, so that not all of them are in memory


def _computes(node: Node) -> bool:
    """Whether a node is an operator that gives tensors, and does not only take one out of several."""
    known = node.meta.get("val")
    return (
        node.op == "call_function"
        and node.target is not operator.getitem
        and isinstance(known, Tensor | tuple | list)
    )


def _given(site: int, graph: Graph) -> tuple[int, ...]:
    """A call's first site and those of its other outputs behind it."""
    last = site + 1
    while last < len(graph.sites) and graph.sites[last].output == last - site:
        last += 1
    return tuple(range(site, last))


def _origin(node: Node) -> str:
    """The name of the node that a decomposed one was made of; empty where torch does not tell."""
    made = node.meta.get("from_node") or []
    before = made[-1].from_node if made else []
    return str(before[-1].name) if before else ""


def _called(node: Node) -> str:
    return operator_name(node.target) if callable(node.target) else str(node.target)


def _keeping(module: GraphModule, nodes: Sequence[Node], kept: dict[str, Tensor]) -> GraphModule:
    """A copy that puts what some of its nodes give into `kept`, by their names, when it runs."""

    def keep(name: str, value: Tensor) -> None:
        kept[name] = value.clone()

    copied = copy.deepcopy(module)
    wanted = {node.name for node in nodes}
    for node in list(copied.graph.nodes):
        if node.name in wanted:
            with copied.graph.inserting_after(node):
                copied.graph.call_function(keep, (node.name, node))
    copied.recompile()
    return copied


def of(program: ExportedProgram) -> Form:
    """The form of an exported program."""
    program = copy.deepcopy(program)  # whose buffers its modules share
    module = program.module()
    for name, value in list(vars(module).items()):  # numbers that the model's Python has written down
        if isinstance(value, Tensor):
            delattr(module, name)
            module.register_buffer(name, value, persistent=False)
    if is_quantised(module):
        return quantised(module)
    try:
        decomposed = program.run_decompositions().module()
    except Exception as error:  # torch's own, of which it has many
        note = f"run_decompositions, from which most backends start, fails on the exported program: {account(error)}"
        return Form("an exported program", module, notes=(note,), guarded=True, captured=True)
    return Form(
        "an exported program", module, (Decomposed(decomposed, module.graph),), guarded=True, captured=True
    )


def read(path: Path) -> Form:
    """The form in a `.pt2` file.

    Raises:
        SourceError: It holds no exported program.
    """
    with reading(str(path), "an exported program (.pt2)"):
        try:
            program = torch.export.load(path)
        except Exception:  # operators of quantisers, which torchao has and registers
            if importlib.util.find_spec("torchao") is None:
                raise
            importlib.import_module("torchao.quantization.pt2e")
            program = torch.export.load(path)
    return of(program)
