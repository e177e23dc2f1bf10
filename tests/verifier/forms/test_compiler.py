"""Compiling leaves nothing behind for whoever compiles in the same process, and takes nothing from there."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from verifier.forms.compiler import APART, Shapes, undisturbed


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x).relu()
        return found


class Counting:
    """Python for a backend, which counts the graphs it is handed and the symbols in their sizes."""

    def __init__(self) -> None:
        self.graphs = self.dynamic = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        self.dynamic += any(isinstance(each, torch.SymInt) for each in inputs)
        return graph.forward


def _versions() -> int:
    entries: Any = torch._C._dynamo.eval_frame._debug_get_cache_entry_list(Net.forward.__code__)
    return len(entries)


def _compiled_inside(shapes: Shapes, x: Tensor) -> Counting:
    backend = Counting()
    with undisturbed(shapes, draws=False):
        torch.compile(Net(), backend=backend, **APART)(x)
    return backend


def test_what_the_caller_compiled_is_not_compiled_again_and_may_be_more_often() -> None:
    torch.compiler.reset()
    own = Counting()
    model = torch.compile(Net(), backend=own)
    model(torch.ones(2, 4))
    for _ in range(10):  # more than torch keeps of a function
        assert _compiled_inside(Shapes(), torch.ones(2, 4)).graphs == 1
    model(torch.ones(2, 4))
    assert own.graphs == 1 if APART else 2  # once more where torch cannot tell whose a version is
    before = own.graphs
    model(torch.ones(3, 4))
    assert own.graphs == before + 1


def test_what_nobody_else_compiled_is_gone_afterwards() -> None:
    torch.compiler.reset()
    net = Net()
    alive = weakref.ref(net)
    with undisturbed(Shapes(), draws=False):
        torch.compile(net, backend=Counting())(torch.ones(2, 4))
        assert _versions() == 1
    assert _versions() == 0
    del net
    gc.collect()
    assert alive() is None


def test_sizes_are_dynamic_where_the_same_program_had_others_and_not_where_the_caller_had() -> None:
    torch.compiler.reset()
    torch.compile(Net(), backend="eager")(torch.ones(5, 4))
    shapes = Shapes()
    assert _compiled_inside(shapes, torch.ones(2, 4)).dynamic == 0
    assert _compiled_inside(shapes, torch.ones(3, 4)).dynamic == 1


def test_a_compiler_that_is_turned_off_compiles_here_and_is_off_again() -> None:
    import torch._dynamo as dynamo

    off: Any = dynamo.config
    with dynamo.set_stance("force_eager"), off.patch(disable=True, suppress_errors=True):
        assert _compiled_inside(Shapes(), torch.ones(2, 4)).graphs == 1
        assert (off.disable, off.suppress_errors) == (True, True)
        again = Counting()
        torch.compile(Net(), backend=again)(torch.ones(2, 4))
        assert again.graphs == 0
    assert (off.disable, off.suppress_errors) == (False, False)
