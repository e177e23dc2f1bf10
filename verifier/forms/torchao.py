"""Modules whose weights torchao has quantised (`quantize_`), and the same with some of them in float."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier.errors import UsageError
from verifier.forms.form import Form
from verifier.forms.quantisers import Grid, Layer, Rounding, Shown, Stored
from verifier.graph.returned import Returned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from verifier.graph import Graph

_CODES = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


class QuantisedModules:
    """A module with weights in few bits, and what of that can be left out.

    Args:
        model: The module; it is not written to.
    """

    kind = "a torchao model"
    exclusion = "the names that filter_fn of quantize_ refuses"
    stage = ""
    watched = False

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        found: list[tuple[str, nn.Module, Tensor, Grid]] = []
        for name, module in model.named_modules():
            weight = module._parameters.get("weight")
            if weight is None or not is_packed(weight):
                continue
            if (grid := _grid(weight)) is not None:
                found.append((name, module, weight, grid))
        self.layers = tuple(Layer(name, type(module).__name__, name) for name, module, _, _ in found)
        self.stored = tuple(
            Stored(f"{name}.weight", (name,), _held(weight, "qdata").to(torch.int64), grid)
            for name, _, weight, grid in found
        )
        self.roundings = tuple(
            Rounding(f"the input of {name}", (name,), (name,), None, None, inside=False)
            for name, _, weight, _ in found
            if getattr(weight, "act_quant_kwargs", None) is not None
        )

    def cutting(self, ceilings: Mapping[str, float]) -> QuantisedModules:  # noqa: ARG002
        """The same: activations are never left out."""
        return self

    def undone(self, weights: Mapping[str, Tensor]) -> Form:
        """The module with nothing rounded, with other weights in place of those that it stores, by name."""
        return Form(self.kind, self._without([layer.name for layer in self.layers], weights))

    def keeping(
        self,
        layers: Collection[str],
        weights: Mapping[str, Tensor],
        show: Sequence[str] = (),
        *,
        shipped: bool = False,  # noqa: ARG002 - it is run as it is
    ) -> Callable[[Sequence[Any], Mapping[str, Any]], Shown]:
        """The module with some layers in float (`verifier.forms.quantisers.Quantised`)."""
        model = self._without(layers, weights)
        values: dict[str, Tensor] = {}
        for name in show:

            def note(_module: nn.Module, _args: Any, result: Tensor, name: str = name) -> None:
                values[name] = result.detach().clone()

            model.get_submodule(name).register_forward_hook(note)

        def shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shown:
            values.clear()
            return Shown(tuple(Returned.of(model(*args, **kwargs)).values()), dict(values))

        return shown

    def sites(self, graph: Graph) -> Mapping[str, int]:
        """For each layer its site in the graph of the undone program, as far as it has one."""
        return {
            layer.name: graph.by_name[layer.name].index
            for layer in self.layers
            if layer.name in graph.by_name
        }

    def _without(self, layers: Collection[str], weights: Mapping[str, Tensor]) -> nn.Module:
        """A copy with some layers in float, which shares all other tensors."""
        kept = {*layers}
        model = copy.deepcopy(self._model, {id(each): each for each in _tensors(self._model)})
        for stored in self.stored:
            [name] = stored.layers
            if name in kept:
                module = model.get_submodule(name)
                dtype = _held(_weight(self._model.get_submodule(name)), "scale").dtype
                value = weights.get(stored.name, stored.value).to(dtype)
                module._parameters["weight"] = nn.Parameter(value, requires_grad=False)
                if module.__dict__.get("extra_repr") is not None:  # torchao's, which asks the weight
                    del module.__dict__["extra_repr"]
        return model


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor is one of torchao's, which keeps codes."""
    return type(tensor).__module__.startswith("torchao.")


def is_quantised(model: nn.Module) -> bool:
    """Whether torchao has quantised weights of a module.

    Raises:
        UsageError: It has, and not in a way that can be taken apart.
    """
    packed = {id(each) for each in model.parameters() if is_packed(each)}
    if not packed:
        return False
    known = {id(model.get_parameter(each.name)) for each in QuantisedModules(model).stored}
    if known != packed:
        raise UsageError(
            "the model holds weights that torchao has quantised, and not all as int8 with one scale a row: this "
            "verifier cannot take it apart yet. Give it as it was before quantize_."
        )
    return True


def of(model: nn.Module) -> Form:
    """The form of a module with quantised weights."""
    quantised = QuantisedModules(model)
    return Form(QuantisedModules.kind, quantised.undone({}).program, quantised=quantised)


def _grid(weight: Tensor) -> Grid | None:
    """What the codes of a weight stand for, one scale for all or one a row; None for any other layout."""
    if not hasattr(weight, "qdata") or not hasattr(weight, "scale"):
        return None
    codes, scale = _held(weight, "qdata"), _held(weight, "scale")
    zero = getattr(weight, "zero_point", None)
    if codes.dtype not in _CODES or scale.numel() not in (1, len(codes)):
        return None
    zeros = torch.zeros_like(scale) if zero is None else zero
    axis = None if scale.numel() == 1 else 0
    return Grid(scale.reshape(-1).double(), zeros.reshape(-1).double(), *_CODES[codes.dtype], axis=axis)


def _held(tensor: Tensor, name: str) -> Tensor:
    found: Tensor = getattr(tensor, name)
    return found


def _weight(module: nn.Module) -> Tensor:
    found: Tensor = module.get_parameter("weight")
    return found


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
