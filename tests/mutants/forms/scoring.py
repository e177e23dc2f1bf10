"""What the verifier said of a form with a fault, or of one that is right, against what is true."""

from __future__ import annotations

import contextlib
import copy
import random
import time
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torch._ops import OpOverload

from tests.mutants.forms import backend_faults, graph_faults, onnx_faults
from tests.mutants.forms.benign import BENIGN
from tests.mutants.forms.networks import (
    EXPORTERS,
    NETWORKS,
    build,
    exported_onnx,
    exported_program,
    inputs,
)
from verifier import Verdict, verify
from verifier.forms import loading
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram
from verifier.graph import Graph, record
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.mutants.forms.onnx_faults import Shapes
    from verifier.records import CellResult, PairResult
    from verifier.storage.saving import Verification

FORMS = (*EXPORTERS, "program", "compiled")
TRIES = 40  # faults that are drawn before one shows
SHOWS = 1e-5  # how far outputs must be apart (NRMSE): rounded weights are a tenth of that apart


@dataclass(frozen=True)
class Fault:
    """A form with a fault.

    Attributes:
        network: The baseline.
        form: How it is deployed: ONNX by one of the exporters, an exported program, or compiled by a wrong backend.
        kind: The fault.
        node: The node that is wrong, or of one that was dropped its first reader.
        candidate: The form.
        sites: The sites that are the node's, by name; and of the baseline those that stood in its place.
    """

    network: str
    form: str
    kind: str
    node: str
    candidate: Any
    sites: frozenset[str]
    before: frozenset[str]


@dataclass(frozen=True)
class FormScore:
    """The marks of one form with a fault; `site` and `stage` imply `detected`."""

    index: int
    network: str
    form: str
    kind: str
    node: str
    detected: bool
    site: bool
    stage: bool
    said: str
    seconds: float

    def __str__(self) -> str:
        return f"fault {self.index}, {self.network} ({self.form}): {self.kind} at {self.node}: {self.said}"


@dataclass(frozen=True)
class FormBenign:
    """The mark of one form that is right."""

    index: int
    network: str
    kind: str
    verdict: str
    said: str
    seconds: float

    def __str__(self) -> str:
        return f"benign {self.index}, {self.network}: {self.kind}: {self.said}"


@cache
def _named(network: str, exporter: str) -> onnx.ModelProto:
    """The exported model, each of whose nodes has a name of its own."""
    model = copy.deepcopy(exported_onnx(network, exporter))
    for k, node in enumerate(model.graph.node):
        node.name = f"{node.name or node.op_type}#{k}"
    return model


@cache
def _shapes(network: str, exporter: str) -> Shapes:
    """What every value is when the model runs."""
    model = copy.deepcopy(_named(network, exporter))
    del model.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = _run_onnx(model, network)
    return {
        name: (tuple(np.shape(value)), str(value.dtype)) for name, value in zip(names, found, strict=True)
    }


def _run_onnx(model: onnx.ModelProto, network: str) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [
        np.asarray(each)
        for each in session.run(None, {session.get_inputs()[0].name: inputs(network).numpy()})
    ]


@cache
def _right(network: str) -> Tensor:
    found: Tensor = build(network)(inputs(network))
    return found


def _shows(found: Tensor | np.ndarray, network: str) -> bool:
    right, found = _right(network), torch.as_tensor(found)
    if right.shape != found.shape or not bool(found.isfinite().all()):
        return right.shape != found.shape
    return float((found - right).norm()) > SHOWS * float(right.norm())


def draw(rng: random.Random) -> Fault | None:
    """A form with a fault that shows on the inputs; None where none of many did."""
    network, form = rng.choice(sorted(NETWORKS)), rng.choice(FORMS)
    for _ in range(TRIES):
        if form == "compiled":
            planted = _compiled(network, rng)
        else:
            planted = _program(network, rng) if form == "program" else _onnx(network, form, rng)
        if planted is not None:
            return planted
    return None


def _onnx(network: str, exporter: str, rng: random.Random) -> Fault | None:
    model = copy.deepcopy(_named(network, exporter))
    kind = rng.choice(sorted(onnx_faults.FAULTS))
    node = onnx_faults.FAULTS[kind](onnx_faults.Draft(model, _shapes(network, exporter), rng))
    if node is None:
        return None
    del model.graph.value_info[:]
    try:
        if not _shows(_run_onnx(model, network)[0], network):
            return None
    except Exception:  # the runtime's own: no fault that anybody could ship
        return None
    sites = _of_nodes(record(OnnxProgram(Plan(model, "model.onnx")), (inputs(network),), {}))
    own, stood = _blamed(network, exporter, node.name, sites)
    return Fault(network, exporter, kind, node.name, model, own, stood)


def _of_nodes(graph: Graph) -> dict[str, set[str]]:
    """The sites of each node that what is returned depends on, by name."""
    found: dict[str, set[str]] = {}
    for site in graph.sites:
        if site.source is not None and site.live:
            found.setdefault(site.source.function, set()).add(site.name)
    return found


def _program(network: str, rng: random.Random) -> Fault | None:
    program = copy.deepcopy(exported_program(network))
    kind = rng.choice(sorted(graph_faults.FAULTS))
    node = graph_faults.FAULTS[kind](graph_faults.Draft(program, rng))
    if node is None:
        return None
    program.graph_module.recompile()
    try:
        with warnings.catch_warnings(action="ignore"):
            if not _shows(program.module()(inputs(network)), network):
                return None
    except Exception:  # as above
        return None
    own, stood = _blamed(network, "program", node, _of_calls(program, network))
    return Fault(network, "program", kind, node, program, own, stood)


def _compiled(network: str, rng: random.Random) -> Fault | None:
    kind = rng.choice(sorted(backend_faults.FAULTS))
    backend = backend_faults.Wrong(kind, rng)
    torch.compiler.reset()  # after a few recompilations a function stays as it is
    model: Any = torch.compile(build(network), backend=backend)
    if not _shows(model(inputs(network)).detach(), network):
        return None
    graph = record(build(network), (inputs(network),), {})
    if len(graph.calls) != backend.count:  # nobody could say which is which
        return None
    call = graph.calls[backend.place]
    own = {site.name for site in graph.sites[call.first : call.first + call.count]}
    return Fault(network, "compiled", kind, min(own), model, frozenset(own), frozenset())


def _of_calls(program: Any, network: str) -> dict[str, set[str]]:
    """The sites of each node of an exported program, by name; nothing where that cannot be told."""
    form = loading.of_object("candidate", program)
    assert form is not None
    module: Any = form.program
    graph = record(module, (inputs(network),), {})
    nodes = [node.name for node in module.graph.nodes if isinstance(node.target, OpOverload)]
    if len(nodes) != len(graph.calls):
        return {}
    made = {
        name: {site.name for site in graph.sites[call.first : call.first + call.count] if site.live}
        for name, call in zip(nodes, graph.calls, strict=True)
    }
    return {name: sites for name, sites in made.items() if sites}


def _blamed(
    network: str, form: str, node: str, sites: Mapping[str, set[str]]
) -> tuple[frozenset[str], frozenset[str]]:
    """The sites that may be blamed for a node that is wrong: its own, and the baseline's that stood in its place.

    And those of the baseline that stand for what the form as it was exported has, and nothing depends on any more.
    """
    known, places = _places(network, form)
    nodes = {node, *(each for each in known if each not in sites)}
    before = {site for each in nodes for site in known.get(each, ())}
    return frozenset(sites.get(node, ())), frozenset(name for site in before for name in places.get(site, ()))


@cache
def _places(network: str, form: str) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
    """The sites of the right form's nodes, and for each of these the baseline's that it stands for."""
    if form == "program":
        candidate: Any = exported_program(network)
        known = _of_calls(candidate, network)
    else:
        candidate = _named(network, form)
        known = _of_nodes(record(OnnxProgram(Plan(candidate, "model.onnx")), (inputs(network),), {}))
    found: dict[str, set[str]] = {}
    for cell in verify(build(network), candidate, inputs(network)).cells:
        for row in cell.layers:
            here = {name for name in (row.baseline, *row.between_baseline) if name is not None}
            for name in (row.candidate, *row.between_candidate):
                if name is not None:
                    found.setdefault(name, set()).update(here)
    return known, found


def score_fault(seed: int, index: int) -> dict[str, Any]:
    """Draw the fault with this number and score it. The record is plain, so that it travels."""
    fault = draw(random.Random(f"{seed}/form/{index}"))
    if fault is None:
        return {}
    return asdict(score(fault, index))


def score(fault: Fault, index: int = 0) -> FormScore:
    """Verify a form with a fault against its baseline."""
    started = time.perf_counter()
    try:
        found = verify(build(fault.network), fault.candidate, inputs(fault.network))
    except Exception as error:  # a crash is a miss
        marks, said = (False, False, False), f"{type(error).__name__}: {error}"
    else:
        marks, said = _marks(fault, found), _said(found)
    return FormScore(
        index,
        fault.network,
        fault.form,
        fault.kind,
        fault.node,
        *marks,
        said,
        time.perf_counter() - started,
    )


def _marks(fault: Fault, found: Verification) -> tuple[bool, bool, bool]:
    if found.verdict is not Verdict.DIVERGED:
        return False, False, False
    first = next(iter(found.culprits), None)
    if first is None:
        return True, False, False
    if fault.form == "compiled":
        named = {each.site for each in found.stages if each.verdict is Verdict.DIVERGED}
        return True, not named.isdisjoint(fault.sites), first.stage == "fusion"
    return True, _names(first, fault, found), first.stage == "translation"


def _names(row: PairResult, fault: Fault, found: Verification) -> bool:
    """Whether a row is about the fault: about its sites, or about what has no partner beside them.

    Dimensions that have changed places are no fault by themselves: what reads the tensor is wrong.
    """
    beside = [row]
    beside += [
        each
        for cell in found.cells
        for each in cell.layers
        if each.layout and (each.index in row.above or row.baseline in _readers(cell, each))
    ]
    if row.status is Status.UNMATCHED:
        beside += [
            each
            for cell in found.cells
            for each in cell.layers
            if row.candidate in each.between_candidate or row.baseline in each.between_baseline
        ]
    here = {name for each in beside for name in (each.candidate, *each.between_candidate)}
    there = {name for each in beside for name in (each.baseline, *each.between_baseline)}
    return not here.isdisjoint(fault.sites) or not there.isdisjoint(fault.before)


def _readers(cell: CellResult, row: PairResult) -> set[str | None]:
    """The baseline's sites right behind a row, and those without a partner between."""
    below = [each for each in cell.layers if row.index in each.above]
    return {name for each in below for name in (each.baseline, *each.between_baseline)}


def _said(found: Verification) -> str:
    if found.verdict is not Verdict.DIVERGED:
        return f"{found.verdict} {found.reason}".strip()
    rows = [
        f"{row.baseline}/{row.candidate} ({row.stage}: {row.cause and row.cause.code})"
        for row in found.culprits
    ]
    return f"{'; '.join(rows[:4]) or 'nothing blamed'}"


def score_benign(seed: int, index: int) -> dict[str, Any]:
    """Draw the right form with this number and score it."""
    rng = random.Random(f"{seed}/right/{index}")
    network = rng.choice(sorted(NETWORKS))
    kinds = sorted(BENIGN)
    return asdict(score_variant(network, kinds[index % len(kinds)], rng, index))


def score_variant(network: str, kind: str, rng: random.Random, index: int = 0) -> FormBenign:
    """Verify a right form against its baseline."""
    with warnings.catch_warnings(action="ignore"):
        made = BENIGN[kind](network, rng)
    started = time.perf_counter()
    threads = torch.get_num_threads()
    options = dict(made.options)
    try:
        torch.set_num_threads(options.pop("threads", threads))
        with contextlib.closing(_Keeping(made.keep)):
            found = verify(build(network), made.candidate, made.inputs, **options)
    except Exception as error:
        verdict, said = "error", f"{type(error).__name__}: {error}"
    else:
        verdict, said = str(found.verdict), _said(found)
    finally:
        torch.set_num_threads(threads)
    return FormBenign(index, network, kind, verdict, said, time.perf_counter() - started)


class _Keeping:
    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def close(self) -> None:
        if self._kept is not None:
            self._kept.cleanup()
