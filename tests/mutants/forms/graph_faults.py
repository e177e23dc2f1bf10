"""Faults of exported programs: an argument, an operator or an input of a node is another, or a weight is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from torch.export import ExportedProgram
    from torch.fx import Node

aten = torch.ops.aten


@dataclass
class Draft:
    """A copy of a program that is about to get a fault, with the random numbers to draw it from."""

    program: ExportedProgram
    rng: random.Random

    @property
    def graph(self) -> Any:
        return self.program.graph_module.graph

    @property
    def nodes(self) -> list[Node]:
        """What computes tensors, in order."""
        return [
            node
            for node in self.graph.nodes
            if isinstance(node.target, OpOverload) and isinstance(node.meta.get("val"), Tensor)
        ]

    def some(self, of: Sequence[Any]) -> Any:
        return self.rng.choice(of) if of else None


FAULTS: dict[str, Callable[[Draft], str | None]] = {}


def fault(function: Callable[[Draft], str | None]) -> Callable[[Draft], str | None]:
    """Register a kind of fault: it gives the name of the node that is wrong then; None where it cannot be planted."""
    FAULTS[function.__name__] = function
    return function


_INT, _FLOAT, _BOOL, _INTS = "int", "float", "bool", "List[int]"


def _changed(value: Any, kind: str, rng: random.Random) -> Any:
    if kind == _FLOAT:
        return value * 1.1 + 0.01
    if kind == _BOOL:
        return not value
    if kind == _INT:
        return value + rng.choice([-1, 1])
    changed = list(value)
    k = rng.randrange(len(changed))
    changed[k] += rng.choice([-1, 1])
    return changed


@fault
def argument_changed(draft: Draft) -> str | None:
    """A number or a switch among the arguments of a node is another."""
    found = []
    for node in draft.nodes:
        schema = node.target._schema.arguments  # type: ignore[union-attr] # an overload
        for k, argument in enumerate(schema):
            value = (
                node.args[k] if k < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
            )
            kind = (
                str(argument.type)
                .removeprefix("Optional[")
                .removesuffix("]")
                .replace("List[int", "List[int]")
            )
            kind = {"number": _FLOAT}.get(kind, kind)
            plain = isinstance(value, int | float) or (isinstance(value, list) and value)
            numbers = isinstance(value, list) and all(type(each) is int for each in value)
            if plain and kind in (_INT, _FLOAT, _BOOL, _INTS) and (kind != _INTS or numbers):
                found.append((node, k, argument.name, value, kind))
    if not found:
        return None
    node, k, name, value, kind = draft.rng.choice(found)
    other = _changed(value, kind, draft.rng)
    if k < len(node.args):
        node.update_arg(k, other)
    else:
        node.update_kwarg(name, other)
    return str(node.name)


_OTHERS: dict[Any, tuple[tuple[Any, tuple[Any, ...]], ...]] = {
    aten.relu.default: ((aten.leaky_relu.default, (0.05,)), (aten.gelu.default, ())),
    aten.leaky_relu.default: ((aten.relu.default, ()),),
    aten.gelu.default: ((aten.relu.default, ()), (aten.silu.default, ())),
    aten.silu.default: ((aten.mish.default, ()),),
    aten.sigmoid.default: ((aten.hardsigmoid.default, ()), (aten.tanh.default, ())),
    aten.tanh.default: ((aten.sigmoid.default, ()),),
    aten.hardswish.default: ((aten.silu.default, ()),),
    aten.elu.default: ((aten.relu.default, ()),),
    aten.rsqrt.default: ((aten.reciprocal.default, ()),),
}


@fault
def operator_replaced(draft: Draft) -> str | None:
    node = draft.some([node for node in draft.nodes if node.target in _OTHERS])
    if node is None:
        return None
    target, more = draft.rng.choice(_OTHERS[node.target])
    node.target, node.args, node.kwargs = target, (node.args[0], *more), {}
    return str(node.name)


@fault
def sum_replaced(draft: Draft) -> str | None:
    swaps = {
        aten.add.Tensor: aten.sub.Tensor,
        aten.sub.Tensor: aten.add.Tensor,
        aten.mul.Tensor: aten.add.Tensor,
    }
    node = draft.some([node for node in draft.nodes if node.target in swaps])
    if node is None:
        return None
    node.target = swaps[node.target]
    return str(node.name)


@fault
def reduction_replaced(draft: Draft) -> str | None:
    node = draft.some([node for node in draft.nodes if node.target in (aten.mean.dim, aten.amax.default)])
    if node is None:
        return None
    node.target = aten.amin.default
    return str(node.name)


@fault
def dropped(draft: Draft) -> str | None:
    """A node of one shape is gone; what reads it reads what it read."""
    found = [
        node
        for node in draft.nodes
        if (given := next(iter(node.all_input_nodes), None)) is not None
        and isinstance(given.meta.get("val"), Tensor)
        and given.meta["val"].shape == node.meta["val"].shape
        and given.meta["val"].dtype == node.meta["val"].dtype
        and any(user.op == "call_function" for user in node.users)
    ]
    node = draft.some(found)
    if node is None:
        return None
    reader = next(user for user in node.users if user.op == "call_function")
    node.replace_all_uses_with(node.all_input_nodes[0])
    draft.graph.erase_node(node)
    return str(reader.name)


@fault
def rewired(draft: Draft) -> str | None:
    """An input comes from another node above, of the same shape."""
    found = []
    above: list[Node] = []
    for node in draft.nodes:
        for given in node.all_input_nodes:
            value = given.meta.get("val")
            others = [
                each
                for each in above
                if isinstance(value, Tensor)
                and each is not given
                and each.meta["val"].shape == value.shape
                and each.meta["val"].dtype == value.dtype
            ]
            found += [(node, given, other) for other in others if given in above]
        above.append(node)
    if not found:
        return None
    node, given, other = draft.rng.choice(found)
    node.replace_input_with(given, other)
    return str(node.name)


@fault
def operands_exchanged(draft: Draft) -> str | None:
    ordered = (aten.sub.Tensor, aten.div.Tensor, aten.matmul.default)
    node = draft.some(
        [
            node
            for node in draft.nodes
            if node.target in ordered
            and len(node.all_input_nodes) == 2
            and len({each.meta["val"].shape for each in node.all_input_nodes}) == 1
        ]
    )
    if node is None:
        return None
    node.args = (node.args[1], node.args[0], *node.args[2:])
    return str(node.name)


def _reader(draft: Draft, name: str) -> str | None:
    """The first node that reads a parameter or buffer."""
    signature = draft.program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in draft.graph.nodes:
        if node.op == "placeholder" and names.get(node.name) == name:
            return next((str(user.name) for user in node.users), None)
    return None


def _on_weight(change: Callable[[Tensor, random.Random], Tensor | None]) -> Callable[[Draft], str | None]:
    def planted(draft: Draft) -> str | None:
        state = draft.program.state_dict
        found = [name for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel() > 4]
        name = draft.some(found)
        if name is None:
            return None
        before = state[name].detach()
        after = change(before.clone(), draft.rng)
        reader = _reader(draft, name)
        if after is None or reader is None or torch.equal(before, after):
            return None
        state[name] = (
            torch.nn.Parameter(after, requires_grad=False)
            if isinstance(state[name], torch.nn.Parameter)
            else after
        )
        return reader

    return planted


def _permuted(tensor: Tensor, rng: random.Random) -> Tensor:
    order = list(range(len(tensor)))
    rng.shuffle(order)
    return tensor[order]


def _channel_zeroed(tensor: Tensor, rng: random.Random) -> Tensor | None:
    if tensor.dim() < 2:
        return None
    tensor[rng.randrange(len(tensor))] = 0
    return tensor


FAULTS |= {
    "weight_scaled": _on_weight(lambda tensor, rng: tensor * rng.choice([0.9, 1.01, -1.0])),
    "weight_permuted": _on_weight(_permuted),
    "weight_in_half": _on_weight(lambda tensor, _: tensor.half().float()),
    "channel_zeroed": _on_weight(_channel_zeroed),
}


@fault
def weights_exchanged(draft: Draft) -> str | None:
    state = draft.program.state_dict
    names = [name for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel() > 4]
    pairs = [
        (one, other)
        for k, one in enumerate(names)
        for other in names[:k]
        if state[one].shape == state[other].shape
    ]
    if not pairs:
        return None
    one, other = draft.rng.choice(pairs)
    state[one], state[other] = state[other], state[one]
    order = [node.name for node in draft.graph.nodes]
    readers = [name for name in (_reader(draft, one), _reader(draft, other)) if name is not None]
    return min(readers, key=order.index) if readers else None
