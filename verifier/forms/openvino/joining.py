"""Operators that OpenVINO has in parts and torch as one: products with a bias, norms with a gain and a shift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from verifier.forms.openvino.node import OpenvinoNode


@dataclass(frozen=True)
class Part:
    """A node, or several in a row that are one.

    Attributes:
        node: What it says.
        handles: The nodes as OpenVINO has them, in the order of execution.
        slots: For each input of `node`, which handle reads it, and as which of its inputs.
    """

    node: OpenvinoNode
    handles: tuple[Any, ...]
    slots: tuple[tuple[int, int], ...]


def joined(parts: Sequence[Part], held: dict[str, np.ndarray], names: dict[str, str]) -> list[Part]:
    """The same with what follows a product or norm and adds or multiplies a constant of it.

    Args:
        parts: All nodes.
        held: Constants by the names of values; those that torch has in another shape are added in that.
        names: What the constants are called, likewise.
    """
    first = {part.handles[0].get_instance_id(): part for part in parts}
    gone: set[int] = set()
    found: list[Part] = []
    for part in parts:
        if part.handles[0].get_instance_id() in gone:
            continue
        made = _with_own_weight(part, held, names)
        for op in _FOLLOWING.get(part.node.op, ()):
            behind = _only_reader(made, first)
            longer = None if behind is None else _with(made, behind, op, held, names)
            if longer is None or behind is None:
                break
            gone.add(behind.handles[0].get_instance_id())
            made = longer
        found.append(made)
    # Where the first of a row stood, what the last reads may not be there yet; constants always are.
    return found


_PRODUCTS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
)
_FOLLOWING: Mapping[str, tuple[str, ...]] = {**dict.fromkeys(_PRODUCTS, ("Add",)), "MVN": ("Multiply", "Add")}


def _only_reader(part: Part, first: Mapping[int, Part]) -> Part | None:
    """The node that alone reads what a part gives."""
    readers = part.handles[-1].output(0).get_target_inputs()
    if len(part.node.outputs) != 1 or len(readers) != 1:
        return None
    return first.get(next(iter(readers)).get_node().get_instance_id())


def _with(
    part: Part, behind: Part, op: str, held: dict[str, np.ndarray], names: dict[str, str]
) -> Part | None:
    """A part with the node behind it, if that is such an operator with a constant that torch's one call has."""
    node = part.node
    if behind.node.op != op or node.outputs[0] not in behind.node.inputs:
        return None
    slot = 1 - behind.node.inputs.index(node.outputs[0])
    key = behind.node.inputs[slot]
    shape = _shape_of(part, held)
    if key not in held or shape is None or held[key].dtype.kind != "f":
        return None
    wide = held[key].shape
    plain = _own_shape(node.op, wide, shape, part.handles[-1].get_output_partial_shape(0).rank)
    if plain is None:
        return None
    own = f"{key} of {node.name}"
    held[own], names[own] = held[key].reshape(plain), names[key]
    shapes = {**node.shapes, len(node.inputs): wide}
    longer = replace(
        node,
        name=node.name if node.name.startswith(("__module", "/")) else behind.node.name,
        inputs=(*node.inputs, own),
        outputs=behind.node.outputs,
        kinds=behind.node.kinds,
        place=behind.node.place,
        shapes=shapes,
    )
    slots = (*part.slots, (len(part.handles), slot))
    return Part(longer, (*part.handles, *behind.handles), slots)


def _shape_of(part: Part, held: Mapping[str, np.ndarray]) -> tuple[int, ...] | None:
    """The shape that torch's bias or gain has; None where the node is none of torch's with one."""
    node = part.node
    if node.op == "MVN":
        sizes = part.handles[0].get_input_partial_shape(0)
        along = held.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if sizes.rank.is_dynamic or along is None:
            return None
        rank = sizes.rank.get_length()
        last = sorted(int(axis) % rank for axis in along.reshape(-1))
        if last != [*range(rank - len(last), rank)] or any(sizes[k].is_dynamic for k in last):
            return None
        return tuple(sizes[k].get_length() for k in last)
    weight = held.get(node.inputs[1])
    if weight is None:
        return None
    if node.op == "MatMul":
        turned = node.get("transpose_b") and not node.get("transpose_a") and weight.ndim == 2
        return (weight.shape[0],) if turned else None
    if node.op.endswith("ConvolutionBackpropData"):  # inputs x outputs of a group
        return (weight.shape[1] * node.get("groups", 1),)
    return (weight.shape[0],)


def _own_shape(op: str, wide: tuple[int, ...], shape: tuple[int, ...], rank: Any) -> tuple[int, ...] | None:
    """The shape of a constant in torch, if it stands for that in the one that it has here."""
    if rank.is_dynamic or len(wide) > rank.get_length():
        return None
    full = (1,) * (rank.get_length() - len(wide)) + wide
    behind = 0 if op in ("MatMul", "MVN") else rank.get_length() - 2
    expected = (1,) * (rank.get_length() - len(shape) - behind) + shape + (1,) * behind
    return shape if full == expected else None


def _with_own_weight(part: Part, held: dict[str, np.ndarray], names: dict[str, str]) -> Part:
    """A convolution in groups with its weight as torch has it, the groups in no dimension of their own."""
    node = part.node
    if not node.op.startswith("GroupConvolution") or node.inputs[1] not in held:
        return part
    key = node.inputs[1]
    weight = held[key]
    own = f"{key} of {node.name}"
    held[own], names[own] = weight.reshape(-1, *weight.shape[2:]), names[key]
    grouped = replace(
        node,
        inputs=(node.inputs[0], own, *node.inputs[2:]),
        attributes={**node.attributes, "groups": weight.shape[0]},
        shapes={1: weight.shape},
    )
    return replace(part, node=grouped)
