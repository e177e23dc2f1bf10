"""Graphs that were quantised by PT2E: what they round, and the same graphs with some of that left out."""

from __future__ import annotations

import operator
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from verifier.forms.form import Form
from verifier.forms.paths import registered
from verifier.forms.quantisers import Grid, Layer, Rounding, Shown, Stored
from verifier.graph.returned import Returned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from verifier.graph import Graph

_DOMAIN = "quantized_decomposed::"
_ROUNDS = frozenset({"quantize_per_tensor", "quantize_per_channel"})
_READS = frozenset({"dequantize_per_tensor", "dequantize_per_channel"})


class QuantisedGraph:
    """A graph with quantisers, and what can be left out of it.

    A layer that is in float reads what it reads in float: PT2E rounds a tensor for each of its readers.

    Args:
        module: The graph, as `convert_pt2e` gives it, or as it was exported then.
    """

    kind = "a PT2E model"
    exclusion = "quantizer.set_module_name_qconfig(NAME, None)"
    stage = ""
    watched = True

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        nodes = [node for node in module.graph.nodes if node.op == "call_function"]
        reading = [node for node in nodes if _kind(node) in _READS]
        layers = [
            node
            for node in nodes
            if not _kind(node) and any(_kind(each) in _READS for each in node.all_input_nodes)
        ]
        modules = Counter(_module_of(node) for node in layers)
        self._called = {
            node.name: _module_of(node) if modules[_module_of(node)] == 1 and _module_of(node) else node.name
            for node in layers
        }
        self.layers = tuple(
            Layer(name := self._called[node.name], _op(node), node.name, name == _module_of(node))
            for node in layers
        )
        self._names = {layer.name for layer in self.layers}
        self._stored_at: dict[str, fx.Node] = {}
        found = []
        for node in reading:
            codes, grid = self._constant(node.args[0]), self._grid(node)
            if codes is not None and grid is not None and grid.fits(codes.shape):
                readers = tuple(dict.fromkeys(self._called[each.name] for each in node.users))
                name = f"{readers[0]}.weight" if readers else node.name
                name = node.name if name in self._stored_at else name
                self._stored_at[name] = node
                found.append(Stored(name, readers, codes.to(torch.int64), grid))
        self.stored = tuple(found)
        self.roundings = tuple(self._rounding(node) for node in nodes if _kind(node) in _ROUNDS)

    def _rounding(self, node: fx.Node) -> Rounding:
        reads = [each for each in node.users if _kind(each) in _READS]
        readers = [self._called.get(user.name, "") for each in reads for user in each.users]
        layers = tuple(dict.fromkeys(filter(None, readers)))
        grid, source = self._grid(node), node.args[0]
        back = [self._grid(each) for each in reads]
        other = next((each for each in back if each and grid and not each.same(grid)), grid)
        assert isinstance(source, fx.Node)  # noqa: S101 - what is rounded is no number
        inside = source.op in ("call_function", "placeholder")
        return Rounding(source.name, layers, layers, grid, other, inside, _positive(source))

    def _constant(self, value: Any) -> Tensor | None:
        """What a node holds that reads an attribute; None for any other."""
        if not isinstance(value, fx.Node) or value.op != "get_attr":
            return None
        owner, _, leaf = str(value.target).rpartition(".")
        found = getattr(self._module.get_submodule(owner), leaf)
        return found.detach() if isinstance(found, Tensor) else None

    def _grid(self, node: fx.Node) -> Grid | None:
        """The numbers that a quantiser rounds to; None where they are made as it runs."""
        channels = _kind(node).endswith("channel")
        axis, rest = (node.args[3], node.args[4:6]) if channels else (None, node.args[3:5])
        numbers = []
        for value in node.args[1:3]:
            held = self._constant(value)
            if held is None and isinstance(value, fx.Node):
                return None
            numbers.append((torch.as_tensor(value) if held is None else held).to(torch.float64))
        low, high = rest
        if not isinstance(low, int) or not isinstance(high, int):
            return None
        scale, zero = numbers
        return Grid(scale, zero, low, high, axis if isinstance(axis, int) else None)

    def cutting(self, ceilings: Mapping[str, float]) -> QuantisedGraph:  # noqa: ARG002
        """The same: activations are never left out."""
        return self

    def undone(self, weights: Mapping[str, Tensor]) -> Form:
        """The form with nothing rounded, with other weights in place of those that it stores, by name."""
        return Form(self.kind, self._without(self._names, weights))

    def keeping(
        self,
        layers: Collection[str],
        weights: Mapping[str, Tensor],
        show: Sequence[str] = (),
        *,
        shipped: bool = False,  # noqa: ARG002 - what runs it is a compiler's choice
    ) -> Callable[[Sequence[Any], Mapping[str, Any]], Shown]:
        """The graph with some layers in float (`verifier.forms.quantisers.Quantised`)."""
        values: dict[str, Tensor] = {}

        def note(name: str, value: Tensor) -> None:
            values[name] = value.detach().clone()

        module = self._without(layers, weights, dict.fromkeys(show, note))

        def shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shown:
            values.clear()
            return Shown(tuple(Returned.of(module(*args, **kwargs)).values()), dict(values))

        return shown

    def sites(self, graph: Graph) -> Mapping[str, int]:
        """For each layer its site in the graph of the undone program, as far as it has one."""
        return {name: graph.by_name[name].index for name in self._names if name in graph.by_name}

    def _without(
        self,
        layers: Collection[str],
        weights: Mapping[str, Tensor],
        noted: Mapping[str, Callable[[str, Tensor], None]] | None = None,
    ) -> fx.GraphModule:
        """The graph with some layers in float."""
        kept = {*layers}
        graph = fx.Graph(tracer_cls=self._module.graph._tracer_cls)
        copies: dict[fx.Node, fx.Node] = {}
        graph.output(graph.graph_copy(self._module.graph, copies))
        graph.set_codegen(self._module.graph._codegen)
        holder = nn.Module()
        for stored in self.stored:
            original = self._stored_at[stored.name]
            readers = [user for user in original.users if self._kept(user, kept)]
            if readers:
                value = weights.get(stored.name, stored.value).detach().to(torch.float32)
                path = registered(holder, stored.name, nn.Parameter(value, requires_grad=False))
                with graph.inserting_before(copies[original]):
                    instead = graph.get_attr(".".join(filter(None, path)))
                for user in readers:
                    copies[user].replace_input_with(copies[original], instead)
        for original in self._module.graph.nodes:
            made = original.args[0] if _kind(original) in _READS else None
            if isinstance(made, fx.Node) and _kind(made) in _ROUNDS and isinstance(made.args[0], fx.Node):
                for user in original.users:
                    if self._kept(user, kept):
                        copies[user].replace_input_with(copies[original], copies[made.args[0]])
        for node in reversed(
            [*graph.nodes]
        ):  # also what scales are made with, and weights that nothing reads
            if not node.users and (_kind(node) or node.op == "get_attr" or node.target is operator.getitem):
                graph.erase_node(node)
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        for original, node in copies.items():
            if noted and original.name in noted:
                last = inputs[-1] if node in inputs else node
                with graph.inserting_after(last):
                    graph.call_function(noted[original.name], (original.name, node))
        return self._made(graph, holder)

    def _kept(self, node: fx.Node, kept: Collection[str]) -> bool:
        name = self._called.get(node.name)
        return name in kept if name is not None else self._names <= {*kept}

    def _made(self, graph: fx.Graph, holder: nn.Module) -> fx.GraphModule:
        """A module of a graph, with new weights beside those that the graph reads still."""
        attributes: dict[str, Any] = {}
        for node in graph.nodes:
            if node.op in ("get_attr", "call_module"):
                path = str(node.target)
                owner, _, leaf = path.rpartition(".")
                for root in (holder, self._module):
                    try:
                        attributes[path] = getattr(root.get_submodule(owner), leaf)
                        break
                    except AttributeError:
                        continue
        module = fx.GraphModule(attributes, graph)
        module.training = False
        return module


def is_quantised(module: nn.Module) -> TypeGuard[fx.GraphModule]:
    """Whether a module is a graph that PT2E has put quantisers into."""
    return isinstance(module, fx.GraphModule) and any(_kind(node) in _READS for node in module.graph.nodes)


def of(module: fx.GraphModule) -> Form:
    """The form of a graph with quantisers."""
    return Form(QuantisedGraph.kind, module, quantised=QuantisedGraph(module))


def _kind(node: fx.Node) -> str:
    """The operator of a quantiser; empty for any other node."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    name = node.target._schema.name
    return name.removeprefix(_DOMAIN) if name.startswith(_DOMAIN) else ""


def _op(node: fx.Node) -> str:
    target = node.target
    return (
        target._schema.name.partition("::")[2] if isinstance(target, torch._ops.OpOverload) else str(target)
    )


def _positive(node: Any) -> bool:
    """Whether nothing that a node gives can be below 0."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    op = _op(node)
    return op in _POSITIVE or (op in _HANDS_ON and _positive(node.args[0]))


# Operators of which no result is below 0, and those that only hand on what they read.
_POSITIVE = frozenset({"abs", "exp", "hardsigmoid", "relu", "relu_", "relu6", "sigmoid", "softmax", "sqrt"})
_HANDS_ON = frozenset(
    {
        "adaptive_avg_pool2d",
        "avg_pool2d",
        "clone",
        "dropout",
        "flatten",
        "max_pool2d",
        "mean",
        "permute",
        "reshape",
    }
) | {"transpose", "view"}


def _module_of(node: fx.Node) -> str:
    """The module that a node comes from; empty for the model itself, and where that is not told."""
    stack = node.meta.get("nn_module_stack")
    return str([*stack.values()][-1][0]) if stack else ""
