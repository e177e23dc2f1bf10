"""What others take for the same work: both models run, every tensor between their layers compared.

Each is used as its own documentation shows, with the mean squared error and Pearson's r (scipy's) of each pair of
tensors, which is what their users write next. What can be prepared once (a traced graph, a pairing) is not counted.
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from scipy.stats import pearsonr
from torch import Tensor, nn

from tests.benchmarks.measuring import alternate, peak_memory, ratio
from tests.benchmarks.subjects import Given, Prepared, of_the_peers
from verifier.cells import Cell
from verifier.estimate.memory import known
from verifier.inputs import tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- measured by `nox -s bench -- peers` -->", "<!-- end of what was measured -->"


class Cost(NamedTuple):
    """What one way takes: seconds of each round, these over two bare forwards, peak memory over theirs."""

    seconds: list[float]
    times: float
    memory: float | None
    compared: int


def scored(pairs: Iterable[tuple[Any, Any]]) -> int:
    """Compare what two models have given, as people do, and count it."""
    count = 0
    for one, other in pairs:
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)) or one.shape != other.shape:
            continue
        if not one.is_floating_point() or one.numel() < 2:
            continue
        a, b = one.detach().float(), other.detach().float()
        torch.mean((a - b) ** 2).item()
        with warnings.catch_warnings(action="ignore"):  # of tensors that hold but one number
            pearsonr(a.flatten().numpy(), b.flatten().numpy())
        count += 1
    return count


def hooks(models: tuple[nn.Module, nn.Module], x: Tensor, *, leaves: bool) -> int:
    """Forward hooks that clone what modules give: of leaves, or of blocks (what holds them)."""
    kept: list[list[object]] = []
    for model in models:
        given: list[object] = []
        handles = [
            module.register_forward_hook(_keeping(given))
            for name, module in model.named_modules()
            if name and any(module.children()) is not leaves
        ]
        model(x)
        for handle in handles:
            handle.remove()
        kept.append(given)
    return scored(zip(*kept, strict=False))


def _keeping(given: list[object]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: object, result: object) -> None:
        given.append(result.clone() if isinstance(result, Tensor) else result)

    return hook


def extractor(models: tuple[nn.Module, nn.Module], x: Tensor) -> Callable[[], int]:
    """Torchvision's feature extractor, which gives all nodes of a traced graph."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    made = []
    for model in models:
        _, *names = get_graph_node_names(model)[1]  # the first is what goes in
        made.append(create_feature_extractor(model, names))

    def compare() -> int:
        given = [list(each(x).values()) for each in made]
        return scored(zip(*given, strict=False))

    return compare


def torchlens(models: tuple[nn.Module, nn.Module], x: Tensor) -> Callable[[], int]:
    """TorchLens: a trace of each model with what every operation gives."""
    import torchlens as lens  # type: ignore[import-not-found, unused-ignore]

    back = lens.options.CaptureOptions(unwrap_when_done=True)  # else it stays in torch's functions

    def compare() -> int:
        traces = [lens.trace(model, x, capture=back) for model in models]
        try:
            return scored((one.out, other.out) for one, other in zip(*(t.ops for t in traces), strict=False))
        finally:
            for trace in traces:
                trace.cleanup()

    return compare


def debugger(models: tuple[nn.Module, nn.Module], x: Tensor) -> Callable[[], int]:
    """The model debugger of transformers: what modules take and give, written to files, which are then read."""
    from safetensors.torch import load_file
    from transformers.model_debugging_utils import model_addition_debugger_context

    def compare() -> int:
        with tempfile.TemporaryDirectory() as folder:
            listed = []
            for name, model in zip(("baseline", "candidate"), models, strict=True):
                place = str(Path(folder) / name)
                with model_addition_debugger_context(model, place, do_prune_layers=False, use_repr=False):
                    model.forward(x)
                (written,) = Path(place).glob("*_FULL_TENSORS.json")
                listed.append([Path(place) / each for each in _files(json.loads(written.read_text("utf-8")))])
            return scored(
                (load_file(one)["data"], load_file(other)["data"])
                for one, other in zip(*listed, strict=False)
            )

    return compare


def _files(tree: Any) -> Iterator[str]:
    """The files that hold what modules give."""
    for child in tree.get("children", []):
        yield from _files(child)
    stack = [tree.get("outputs")]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            value = each.get("value")
            if isinstance(value, str) and value.endswith(".safetensors"):
                yield value
            else:
                stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)


def numeric_debugger(models: tuple[nn.Module, nn.Module], x: Tensor) -> Callable[[], int]:
    """The numeric debugger of PT2E: a captured graph beside a copy of it, which is all that it relates."""
    from torchao.quantization.pt2e import (  # type: ignore[import-untyped]
        compare_results,
        extract_results_from_loggers,
        prepare_for_propagation_comparison,
    )

    graph = torch.export.export(models[0], (x,)).module()

    def compare() -> int:
        given = []
        for _ in models:
            logged = prepare_for_propagation_comparison(graph)
            logged(x)
            given.append(extract_results_from_loggers(logged))
        results = [each for summary in compare_results(*given).values() for each in summary.results]
        return len([(each.mse_loss, each.sqnr) for each in results])

    return compare


PEERS: dict[str, Callable[[tuple[nn.Module, nn.Module], Tensor], Callable[[], int]]] = {
    "hooks on leaves that clone, then scipy": lambda models, x: lambda: hooks(models, x, leaves=True),
    "hooks on blocks that clone, then scipy": lambda models, x: lambda: hooks(models, x, leaves=False),
    "torchvision's feature extractor, all nodes": extractor,
    "TorchLens, all operations": torchlens,
    "transformers' model debugger": debugger,
    "PT2E's numeric debugger, a graph and its copy": numeric_debugger,
}


def measured(given: Given, rounds: int) -> tuple[dict[str, Cost], dict[str, str]]:
    """What each way takes on one pair of models, and why others do not take it."""
    dtype = getattr(torch, given.cells[-1].rpartition("/")[2])
    models = given.baseline.to(dtype), given.candidate.to(dtype)
    models[1].load_state_dict(models[0].state_dict())
    x = given.inputs.to(dtype) if given.inputs.is_floating_point() else given.inputs
    ways: dict[str, Callable[[], int]] = {}
    refused: dict[str, str] = {}
    for name, prepare in PEERS.items():
        try:
            with torch.no_grad():
                ways[name] = prepare(models, x)
                ways[name]()
        except Exception as error:
            ways.pop(name, None)
            refused[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}"
    prepared = Prepared(
        given.built("baseline"), given.built("candidate"), tensors(given.inputs), Cell.parse(given.cells[-1])
    )

    def free_pass() -> int:
        prepared.free_pass()
        return len(prepared.bench.alignment.pairs)

    ways["verifier, free pass, all sites"] = free_pass
    ways["verifier, all of verify()"] = lambda: sum(len(cell.layers) for cell in given.verify().cells[-1:])
    bare: dict[str, Callable[[], object]] = {"bare": given.bare}
    costs: dict[str, Cost] = {}
    with torch.no_grad():
        base = peak_memory(given.bare)[1] if known() else 0
        for name, way in ways.items():
            seconds = alternate({**bare, name: way}, rounds)
            counted = 0

            def once(way: Callable[[], int] = way) -> None:
                nonlocal counted
                counted = way()

            memory = peak_memory(once)[1] / base if base else None
            if not base:
                once()
            costs[name] = Cost(seconds[name], ratio(seconds[name], seconds["bare"]), memory, counted)
    return costs, refused


def peers(rounds: int) -> None:
    """Print what each way takes on each pair, and put it into the page."""
    told = [_machine()]
    for given in of_the_peers():
        costs, refused = measured(given, rounds)
        told.append(_table(given.name, costs, refused))
        print(told[-1], flush=True)
    PAGE.write_text(with_measured(PAGE.read_text(encoding="utf-8"), "\n".join(told)), encoding="utf-8")


def with_measured(page: str, told: str) -> str:
    """A page with other text between the two marks.

    Raises:
        ValueError: It has no such marks.
    """
    before, _, rest = page.partition(BEGIN)
    old, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"no part of the page is marked as measured: {old[:40]!r}")
    return f"{before}{BEGIN}\n\n{told}\n{END}{after}"


def _machine() -> str:
    names = ("torch", "torchvision", "transformers", "torchao", "torchlens", "scipy")
    versions = []
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name).partition('+')[0]}")
    return (
        f"{_processor()}, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"{', '.join(versions)}. Times are medians, in brackets the least and the largest.\n"
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _table(name: str, costs: Mapping[str, Cost], refused: Mapping[str, str]) -> str:
    lines = [
        f"{name}:\n",
        "| | seconds | over two bare forwards | peak memory over theirs | tensors compared |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way, cost in costs.items():
        seconds = f"{statistics.median(cost.seconds):.2f} ({min(cost.seconds):.2f}, {max(cost.seconds):.2f})"
        memory = "" if cost.memory is None else f"{cost.memory:.2f}"
        lines.append(f"| {way} | {seconds} | {cost.times:.1f} | {memory} | {cost.compared} |")
    lines += [f"| {way} | does not take it ({why}) | | | |" for way, why in refused.items()]
    return "\n".join(lines) + "\n"
