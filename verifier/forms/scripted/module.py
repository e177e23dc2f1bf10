"""TorchScript modules, as torch runs them: their program, and themselves after their executor has optimised them."""

from __future__ import annotations

import copy
import warnings
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier.align.sequence import longest_common_subsequence
from verifier.errors import SourceError
from verifier.forms.form import Form, reading
from verifier.forms.paths import registered
from verifier.forms.scripted.graph import Unreadable
from verifier.forms.scripted.program import ScriptProgram, bound_by
from verifier.graph.chance import random_state, set_random_state
from verifier.graph.interpreted import Step
from verifier.graph.tensors import mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from verifier.graph import Graph

_UNTIL_WARM = (
    3  # runs: the executor watches the first, optimises at the second, and runs what it made from then on
)


class Whole(nn.Module):
    """A module that cannot be looked into, as a program of one call. Its tensors have the names they have there."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self._behind = _Behind(module)
        parameters = ((name, nn.Parameter(each.detach())) for name, each in module.named_parameters())
        self._paths = [registered(self, name, each) for name, each in (*parameters, *module.named_buffers())]
        self._step = Step(f"opaque:{module.original_name}", self._behind.run)
        self.training = bool(getattr(module, "training", False))  # frozen ones have none

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns with these tensors."""
        state = [getattr(self.get_submodule(owner), leaf) for owner, leaf in self._paths]
        return self._step(args, kwargs, state)


class _Behind:
    """A module of which copies are run."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        self._module = module

    def __deepcopy__(self, _memo: object) -> _Behind:
        return self

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any], state: Sequence[Tensor]) -> Any:
        """What it returns with other tensors than its own."""
        module = copy.deepcopy(self._module)
        for tensor, own in zip((*module.parameters(), *module.buffers()), state, strict=True):
            tensor.data = own.detach()
        return module(*args, **kwargs)


class Warm:
    """The module itself, run until its executor has optimised it."""

    name = "torchscript"

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        self._module = module

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns at last; each run begins with what the module holds now."""
        return self._warm(lambda module, own, named: module(*own, **named), args, kwargs)

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        """What its operators outside of branches and loops give, of a graph that returns that as well.

        They are the program's in its order. What is returned is not fused, so a fault of a fusion shows in none.
        """
        count = sum(map(_shown, self._module.inlined_graph.nodes()))
        schema = self._module._c._get_method("forward").schema
        for first in range(0, count, _AT_ONCE):
            tapped = self._module.inlined_graph.copy()
            nodes = [node for node in tapped.nodes() if _shown(node)][first : first + _AT_ONCE]
            found = self._warm(partial(_called, _returning(tapped, nodes), schema), args, kwargs)
            names = [node.kind().partition("::")[2] for node in nodes]
            values = [(_plain(name), tuple(value.shape)) for name, value in zip(names, found, strict=True)]
            sites = [(site.op, site.shape) if site.output == 0 else None for site in graph.sites]
            for k, index in longest_common_subsequence(values, sites):
                if found[k].layout == torch.strided:
                    yield index, names[k], found[k]

    def _warm(
        self, call: Callable[[Any, Any, Any], Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """What a call gives at last, each time of a copy; copies share what the executor has made."""
        before, result = random_state(), None
        for _ in range(_UNTIL_WARM):
            set_random_state(before)
            own, named = mapped((tuple(args), dict(kwargs)), torch.clone)
            result = call(copy.deepcopy(self._module), own, named)
        return result


_AT_ONCE = 64  # values that one run shows, so that not all of them are in memory


def _shown(node: Any) -> bool:
    """Whether a node is an operator that gives one tensor."""
    outputs = list(node.outputs())
    return node.kind().startswith("aten::") and len(outputs) == 1 and outputs[0].type().kind() == "TensorType"


def _returning(graph: Any, nodes: Sequence[Any]) -> Any:
    """A function of a graph that returns what some of its nodes give, as it is when it is computed."""
    none = graph.create("prim::Constant", [], 1)
    none.output().setType(torch._C.NoneType.get())
    none.insertBefore(next(iter(graph.nodes())))
    values = []
    for node in nodes:
        copied = graph.create("aten::clone", [node.output(), none.output()], 1)
        copied.insertAfter(node)
        values.append(copied.output())
    several = graph.appendNode(graph.create("prim::TupleConstruct", values, 1))
    several.output().setType(torch._C.TupleType([value.type() for value in values]))
    for k in reversed(range(len(list(graph.outputs())))):
        graph.eraseOutput(k)
    graph.registerOutput(several.output())
    return torch._C._create_function_from_graph("shown", graph)


def _called(function: Any, schema: Any, module: Any, own: Sequence[Any], named: Mapping[str, Any]) -> Any:
    return function(module, *bound_by(schema, own, named))


def _plain(name: str) -> str:
    """An operator's name without what says that it writes in place."""
    return name if name.endswith("__") else name.removesuffix("_")


def of(module: torch.jit.ScriptModule) -> Form:
    """The form of a module."""
    notes: tuple[str, ...] = ()
    try:
        program: nn.Module = ScriptProgram(module._c)
    except Unreadable as error:
        program = Whole(module)
        notes = (f"the TorchScript module cannot be looked into: {error}; only what it returns is compared",)
    return Form("a TorchScript module", program, (Warm(module),), notes=notes, captured=True)


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of torch.jit.save, by what is in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def read(path: Path) -> Form:
    """The form in a `.pt` file.

    Raises:
        SourceError: It holds no TorchScript module.
    """
    if not is_archive(path):
        raise SourceError(
            f"{path} is no TorchScript module (torch.jit.save): if it holds a state dict, give it with --weights and "
            "name the model that it is for, such as path/to/file.py:build."
        )
    with reading(str(path), "a TorchScript module (.pt)"), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.load` is "
        )  # deprecated: what else reads such files
        module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return of(module)
