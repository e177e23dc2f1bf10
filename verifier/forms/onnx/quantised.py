"""ONNX models with quantisers (QDQ): what they round, and the same models with some of that left out."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from verifier.forms.onnx.integers import with_quantisers
from verifier.forms.onnx.rounded import RoundedOnnx, name_of
from verifier.forms.quantisers import UNCUT, Rounding, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.forms.form import Form
    from verifier.forms.quantisers import Grid
    from verifier.graph import Graph

Running = (
    "Callable[[onnx.ModelProto, str], Callable[[Sequence[Any], Mapping[str, Any]], Sequence[np.ndarray]]]"
)

_ROUNDING = frozenset({"DequantizeLinear", "QuantizeLinear"})
_RELU6 = 6.0
_SAME = 1e-6  # of an end that a scale in single precision tells


class QuantisedOnnx(RoundedOnnx):
    """A model with quantisers, and what can be left out of it.

    Args:
        model: The model.
        form: Makes the form of a model without quantisers.
        run: Runs a model, given with the level of its session, on arguments.
    """

    kind = "a quantised ONNX model"
    exclusion = "nodes_to_exclude"
    stage = "all"
    watched = True

    def __init__(
        self,
        model: onnx.ModelProto,
        form: Callable[[onnx.ModelProto], Form],
        run: Callable[[onnx.ModelProto, str], Callable[[Sequence[Any], Mapping[str, Any]], Sequence[Any]]],
    ) -> None:
        super().__init__(with_quantisers(model))
        self._shipped = model
        self._form, self._run = form, run
        self._ceilings: dict[str, float] = {}

    def cutting(self, ceilings: Mapping[str, float]) -> QuantisedOnnx:
        """The same, where it is known what the activation behind some layers cuts off above."""
        other = copy.copy(self)
        other._ceilings = dict(ceilings)
        return other

    def undone(self, weights: Mapping[str, Tensor]) -> Form:
        """The form with nothing rounded, with other weights in place of those that it stores, by name."""
        return self._form(self._without(self._names, weights))

    def keeping(
        self,
        layers: Collection[str],
        weights: Mapping[str, Tensor],
        show: Sequence[str] = (),
        *,
        shipped: bool = False,
    ) -> Callable[[Sequence[Any], Mapping[str, Any]], Shown]:
        """The model with some layers in float (`verifier.forms.quantisers.Quantised`)."""
        model = self._without(layers, weights)
        if shipped and not layers:
            model.CopyFrom(self._shipped)
        count = len(model.graph.output)
        own = {each.name for each in model.graph.output}
        renamed = self._renamed(layers)
        wanted = [renamed.get(name, name) for name in show]
        given = {each.name for each in model.graph.input} & {*wanted}
        shown_as = {name: f"{name}/given" for name in given}  # an input is no output of its own
        nodes = [helper.make_node("Identity", [name], [other]) for name, other in shown_as.items()]
        model.graph.node.extend(nodes)
        wanted = [shown_as.get(name, name) for name in wanted]
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted) if name not in own
        )
        names = [each.name for each in model.graph.output]
        run = self._run(model, self.stage if shipped else "disable_all")

        def shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shown:
            found = dict(zip(names, map(_tensor, run(args, kwargs)), strict=True))
            values = {name: found[own] for name, own in zip(show, wanted, strict=True)}
            return Shown(tuple(found[name] for name in names[:count]), values)

        return shown

    def sites(self, graph: Graph) -> Mapping[str, int]:
        """For each layer its site in the graph of the undone program, as far as it has one."""
        found: dict[str, int] = {}
        for site in graph.sites:
            if site.source is not None and site.source.function in self._names and not site.output:
                found[site.source.function] = site.index
        return found

    def _dropped(self, layers: Collection[str]) -> list[Rounding]:
        """What is not rounded where some layers are in float."""
        kept = {*layers}
        if self._names <= kept:
            return [*self.roundings]
        dropped: dict[str, Rounding] = {}
        for each in self.roundings:  # in order of execution
            handing, source = self._follows.get(each.name, ("", ""))
            follows = bool(source) and handing not in kept and source not in dropped
            if not follows and kept.issuperset(each.layers) and (each.layers or source):
                dropped[each.name] = each
        return [*dropped.values()]

    def _renamed(self, layers: Collection[str]) -> dict[str, str]:
        """What tensors are called in the model with some layers in float, that have a name of an output there."""
        outputs = {each.name for each in self._model.graph.output}
        found = {}
        for rounding in self._dropped(layers):
            _, *reads = self._rounded_at[rounding.name]
            name = next((each.output[0] for each in reads if each.output[0] in outputs), None)
            if name is not None and rounding.name in self._made and not self._cut_off(rounding):
                found[rounding.name] = name
        return found

    def _cut_off(self, rounding: Rounding) -> bool:
        """Whether rounding a tensor also sets what is below 0 to 0, as the activation did that it is in place of."""
        grid = rounding.grid
        return (
            grid is not None
            and grid.axis is None
            and float(grid.zero) == grid.low
            and rounding.name in self._made
            and not self._positive(rounding.name)
            and self._ceiling(rounding, grid) != UNCUT
        )

    def _ceiling(self, rounding: Rounding, grid: Grid) -> float:
        """What the activation that rounding is in place of cuts off above; `UNCUT` where it is in place of none.

        That is the baseline's ceiling as far as rounding leaves no more. Rounding that leaves as much as an
        activation does, to the last digit, is in place of that one.
        """
        if any(map(self._adds, self._reading(rounding.name))):
            return UNCUT
        maker: onnx.NodeProto | None = self._made[rounding.name]
        while maker is not None and name_of(maker) not in self._ceilings and self._adds(maker):
            maker = next(filter(None, map(self._behind, maker.input)), None)
        known = math.inf if maker is None else self._ceilings.get(name_of(maker), math.inf)
        step = float(grid.scale)
        end = step * (grid.high - grid.low)
        if known == UNCUT or (math.isfinite(known) and end <= known + step):
            return known
        ceilings = {_RELU6, *self._ceilings.values()}
        return next((each for each in ceilings if math.isclose(end, each, rel_tol=_SAME)), math.inf)

    def _adds(self, node: onnx.NodeProto) -> bool:
        """Whether a node is what a layer ends with, of which the baseline may have made one: a bias, or a norm."""
        held = [self._behind(name) is None for name in node.input]
        return node.op_type == "BatchNormalization" or (node.op_type == "Add" and held.count(True) == 1)

    def _behind(self, name: str) -> onnx.NodeProto | None:
        """What makes a value, before it is rounded and read; None of what the file holds, and of inputs."""
        made = self._made.get(name)
        while made is not None and made.op_type in _ROUNDING:
            made = self._made.get(made.input[0])
        return None if name in self._held or (made is not None and made.op_type == "Constant") else made

    def _reading(self, name: str) -> Iterator[onnx.NodeProto]:
        """What reads a value, or what it is rounded to."""
        for node in self._readers.get(name, ()):
            if node.op_type in _ROUNDING:
                yield from self._reading(node.output[0])
            else:
                yield node

    def _without(self, layers: Collection[str], weights: Mapping[str, Tensor]) -> onnx.ModelProto:
        """The model with some layers in float."""
        kept = {*layers}
        every = self._names <= kept
        renamed = self._renamed(layers)
        instead: dict[str, str] = {}  # what is read in place of what quantisers give
        before: dict[int, list[onnx.NodeProto]] = {}
        gone: set[int] = set()
        new: list[onnx.TensorProto] = []
        outputs = {each.name for each in self._model.graph.output}
        for rounding in self._dropped(layers):
            place, *reads = self._rounded_at[rounding.name]
            gone |= {id(place), *map(id, reads)}
            source = renamed.get(rounding.name, rounding.name)
            names = [each.output[0] for each in reads]
            if self._cut_off(rounding):
                given = next((name for name in names if name in outputs), names[0])
                maker = self._made[rounding.name]
                assert rounding.grid is not None  # noqa: S101 - it cuts off
                ceiling = self._ceiling(rounding, rounding.grid)
                if math.isfinite(ceiling):
                    ends = [f"{given}/low", f"{given}/high"]
                    new += [
                        numpy_helper.from_array(np.array(end, np.float32), name)
                        for end, name in zip((0.0, ceiling), ends, strict=True)
                    ]
                    node = helper.make_node("Clip", [source, *ends], [given], f"{place.name}/Clip")
                else:
                    node = helper.make_node("Relu", [source], [given], f"{place.name}/Relu")
                node.metadata_props.extend(maker.metadata_props)
                before[id(place)] = [node]
                source = given
            for name in names:
                if name != source and name in outputs:
                    before.setdefault(id(place), []).append(helper.make_node("Identity", [source], [name]))
            instead |= {name: source for name in names if name != source}
        for stored in self.stored:
            value = self._stored_at[stored.name]
            if every or (stored.layers and kept.issuperset(stored.layers)):
                gone.add(id(self._made[value]))
                float_weight = weights.get(stored.name, stored.value)
                array = float_weight.detach().numpy().astype(np.float32)
                name = stored.name if stored.name not in (self._made.keys() - {value}) else value
                name = name if name not in self._held else f"{name}/float"
                new.append(numpy_helper.from_array(array, name))
                instead[value] = name
        return self._written(gone, before, instead, renamed, new)

    def _written(
        self,
        gone: set[int],
        before: Mapping[int, Sequence[onnx.NodeProto]],
        instead: Mapping[str, str],
        renamed: Mapping[str, str],
        new: Sequence[onnx.TensorProto],
    ) -> onnx.ModelProto:
        """The model without some nodes, with others in their place."""

        def final(name: str) -> str:
            name = instead.get(name, name)
            return renamed.get(name, name)

        nodes: list[onnx.NodeProto] = []
        for node in self._model.graph.node:
            nodes += before.get(id(node), [])
            if id(node) in gone:
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [final(name) for name in node.input]
            copy.output[:] = [renamed.get(name, name) for name in node.output]
            nodes.append(copy)
        read = {name for node in nodes for name in _read(node)}
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(
            each for each in (*self._model.graph.initializer, *new) if each.name in read
        )
        return model


def _read(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for each in graph.node:
                yield from _read(each)
            yield from (each.name for each in graph.output)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
