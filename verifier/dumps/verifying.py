"""The verification of a candidate where dumped tensors of another program stand in the baseline's place."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from verifier.align import Alignment
from verifier.bench.as_given import as_given, with_runs
from verifier.bench.intact import intact
from verifier.bench.side import Side
from verifier.border.depth import room_for
from verifier.cells import ORACLE, Cell, missing_here
from verifier.certificates.file import KEY, LARGEST_HEADER
from verifier.certificates.recording import alone, undisturbed
from verifier.dumps import judging
from verifier.dumps.archive import ENDINGS, Dump, read
from verifier.dumps.comparing import aligned, dtype_of
from verifier.dumps.content import Conventions, distance, fitting, mark, may_agree
from verifier.dumps.judging import InputSeen
from verifier.dumps.names import of_input
from verifier.dumps.parameters import Parameters, differences, recognised, said
from verifier.dumps.watching import Runner, as_dumped
from verifier.environment import describe
from verifier.errors import DeviceError, DumpError
from verifier.graph import Graph
from verifier.graph.sites import UNTRACED
from verifier.inputs import named, tensors
from verifier.inputs.samples import batch_size
from verifier.judge import concluded, with_sources
from verifier.metrics.agreement import agreement
from verifier.models.compiled import interpreted
from verifier.models.copying import state_of
from verifier.records import CellResult, ModelInfo, Verdict, WeightsInfo, brief
from verifier.storage.saving import Verification
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from verifier.bench.protocol import Protocol
    from verifier.cells import Request
    from verifier.dumps.comparing import Aligned
    from verifier.inputs import Inputs
    from verifier.records import Coverage, OutputAgreement

_OWN = ("transfer", "calibrated", "as-is")  # what is asked for where nobody asks, and what it means here
_SAFETENSORS = ".safetensors"
_SOME = 3


@dataclass(frozen=True)
class _Found:
    """What comparing with dumped tensors has found; `open` is why that is no match, where nothing diverged."""

    alignment: Alignment
    parameters: Parameters
    aligned: Aligned
    given: Sequence[InputSeen]
    cell: CellResult
    covered: Coverage
    open: str


def is_dump(baseline: object) -> bool:
    """Whether a baseline names a folder, an archive or a file of tensors; a certificate is none."""
    if not isinstance(baseline, str | Path) or (isinstance(baseline, str) and ":" in baseline):
        return False
    path = Path(baseline)
    ending = path.suffix.lower()
    if ending == _SAFETENSORS and not path.is_dir():
        return _plain(path)
    return ending in ENDINGS or path.is_dir() or _names_folder(baseline)


def _names_folder(baseline: str | Path) -> bool:
    """Whether it is written as only a folder is, be there one or not."""
    return isinstance(baseline, str) and baseline.endswith(("/", "\\"))


def _plain(path: Path) -> bool:
    """Whether a safetensors file can be read as one and does not say that it is a certificate."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if 0 < length <= LARGEST_HEADER else None
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(header, dict):
        return False
    metadata = header.get("__metadata__")
    return not (isinstance(metadata, dict) and KEY in metadata)


def verified_with_dump(
    baseline: str | Path,
    candidate: nn.Module | str,
    inputs: Any,
    *,
    weights: str,
    parameter_map: Mapping[str, object] | None,
    requests: Sequence[Request],
    protocol: Protocol,
    seed: int,
    command: str,
    needing: Mapping[str, bool],
) -> Verification:
    """Does `candidate` compute the tensors that were dumped, and if not, where does it part from them?

    It computes with its own weights; the dump's are compared with them where it holds any.

    Args:
        baseline: The folder, archive or file.
        candidate: The model under test, or a specification of it.
        inputs: What the dumped tensors were computed from.
        weights: A mode of `verifier.verify`; its defaults stand for `as-is`.
        parameter_map: Must be None: parameters are recognised by content.
        requests: The cells asked for; their device and memory format count, the dtype is the dump's.
        protocol: How it is judged.
        seed: For a candidate that is built.
        command: How it was asked for, for the record.
        needing: What was asked for that only a live baseline could give, by its option.

    Raises:
        DumpError: The dump cannot be read, or cannot give what was asked.
        CannotRunError: This machine cannot run it, or the candidate raised.
    """
    started = time.perf_counter()
    asked = [option for option, wanted in {**needing, "--map": bool(parameter_map)}.items() if wanted]
    if asked:
        raise DumpError(
            f"{asked[0]} needs a live baseline, and dumped tensors are none: leave it out, or give the trusted model "
            "itself as the baseline."
        )
    if weights not in _OWN:
        raise DumpError(
            f"a candidate is compared with dumped tensors as it is: weights {weights} cannot be had."
        )
    if not Path(baseline).exists():  # before more is asked for that would be for nothing
        what = "folder" if _names_folder(baseline) else "file"
        raise DumpError(f"{baseline}: there is no such {what} to read dumped tensors from.")
    if inputs is None:
        raise DumpError(
            "dumped tensors do not say what they were computed from: give the inputs (--input FILE)."
        )
    dump = read(Path(baseline))
    given = tensors(inputs)
    with undisturbed(), intact({"candidate": candidate}, given) as kept:
        side = Side.of("candidate", candidate, seed)
        with room_for(side.model):
            protocol.progress("running the model as it was given", 0, 0)
            shown = as_given(side, [given])
            with interpreted():
                found = _compared(dump, side, given, requests, protocol)
    cell = with_runs((found.cell,), (shown,))
    results = with_sources(cell, found.alignment)
    ended = concluded(protocol.policy, results, found.covered)._asdict()
    if found.open and ended["verdict"] is not Verdict.DIVERGED:
        ended |= {"verdict": Verdict.INCONCLUSIVE, "reason": brief(found.open)}
    parameters = found.parameters
    return Verification(
        **ended,
        baseline=ModelInfo(
            spec=dump.source,
            type="tensors",
            parameters=sum(dump.tensors[name].numel() for name in parameters.names),
            sites=found.covered.baseline_sites,
        ),
        candidate=side.info(found.alignment.candidate),
        weights=WeightsInfo(
            mode="as-is",
            source=dump.source if parameters.held else "",
            parameter_map={held.own: held.text for held in parameters.held if "[" not in held.own},
            unmapped_baseline=parameters.lost,
            candidate_digest=Hasher().of_all(state_of(side.model).items()),
        ),
        inputs=msgspec.structs.replace(given.info, digest=Hasher().of_all(named(given))),
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=protocol.policy.name,
        notes=(*side.notes, *shown.notes, *kept.notes, *_notes(dump, found)),
        static=differences(parameters),
    )


def _compared(
    dump: Dump, side: Side, given: Inputs, requests: Sequence[Request], protocol: Protocol
) -> _Found:
    started = time.perf_counter()
    graph = side.record(given)
    state = state_of(side.model)
    seen, used, conventions = _inputs(dump.tensors, given)
    parameters = recognised({name: t for name, t in dump.tensors.items() if name not in used}, state, graph)
    apart = parameters.names | used
    activations = {name: tensor for name, tensor in dump.tensors.items() if name not in apart}
    cell = _cell(dtype_of(list(activations.values())), requests)
    protocol.progress(f"comparing in {cell.name}", 0, 0)
    runner = Runner(alone(side.model, graph, state, given), cell, protocol.policy)
    found = aligned(runner, activations, conventions)
    rows = judging.judged(runner, found, seen, parameters, len(dump.tensors))
    judged = rows.judged
    result = CellResult(
        name=cell.name,
        role="semantics" if cell == ORACLE else "numerics",
        batch_size=batch_size(given),
        **judged.told(),
        seconds=time.perf_counter() - started,
        output=_agreement(runner, found, dump.tensors),
        outputs=rows.outputs,
    )
    if rows.open and result.verdict is not Verdict.DIVERGED:
        result = msgspec.structs.replace(result, verdict=Verdict.INCONCLUSIVE, reason=brief(rows.open))
    beside = Graph((), (), (UNTRACED,) * len(graph.outputs), graph.inputs, {})
    covered = judging.coverage(runner, found, rows)
    return _Found(Alignment(beside, graph, ()), parameters, found, seen, result, covered, rows.open)


def _agreement(runner: Runner, found: Aligned, dumped: Mapping[str, Tensor]) -> OutputAgreement | None:
    """How well what comes out agrees, laid out as it was dumped, if all of it was compared."""
    count = len(runner.graph.sites)
    compared = [found.outputs.get(k) for k in range(len(runner.graph.outputs))]
    pairs = [
        (dumped[each.dumped], each.layout.back(runner.values[count + k], each.shape))
        for k, each in enumerate(compared)
        if each is not None and each.layout is not None
    ]
    return agreement(*zip(*pairs, strict=True)) if pairs and len(pairs) == len(compared) else None


def _cell(dtype: str, requests: Sequence[Request]) -> Cell:
    """The cell that is judged: on the device asked for, in the dump's dtype."""
    cells = [request.cell for request in requests]
    for cell in cells:
        if cell.dtype not in ("float32", dtype) or cell.autocast:
            raise DumpError(
                f"the dumped tensors are of {dtype}, so that {cell.name} cannot be compared with them."
            )
    if len({replace(cell, dtype=dtype) for cell in cells}) > 1:
        raise DumpError("dumped tensors are of one run: ask for one cell.")
    missing = missing_here(requests)
    if cells[0] in missing:
        raise DeviceError(f"{cells[0].name} cannot run here: {missing[cells[0]]}.")
    return ORACLE if dtype == ORACLE.dtype else replace(cells[0], dtype=dtype)


def _inputs(dumped: Mapping[str, Tensor], given: Inputs) -> tuple[list[InputSeen], set[str], Conventions]:
    """The given inputs among the dumped tensors, by content, else by name; and the layouts that they show."""
    conventions = Conventions()
    found: list[InputSeen] = []
    used: set[str] = set()
    marks = {name: mark(tensor) for name, tensor in dumped.items()}
    items = [(name, tensor.detach().cpu()) for name, tensor in named(given)]
    for position, (name, tensor) in enumerate(items):
        shape, own = tuple(tensor.shape), mark(tensor)
        limit = 2.0**-23 if tensor.is_floating_point() else 0.0
        for other_name, other in dumped.items():
            if other_name in used or not own.varies or not may_agree(marks[other_name], own, limit):
                continue
            for layout in fitting(tuple(other.shape), shape):
                error = distance(other, tensor, layout)
                if error is not None and error.within(limit):
                    text = "" if layout.trivial and other.shape == tensor.shape else layout.text
                    found.append(
                        InputSeen(position, name, other_name, text, tuple(other.shape), shape, error)
                    )
                    conventions.vote(other_name, tuple(other.shape), shape, layout)
                    used.add(other_name)
                    break
            if other_name in used:
                break
    held = {each.position for each in found}
    names = [name for name in dumped if of_input(name) and name not in used]
    for position, (name, tensor) in enumerate(items):
        if position in held or len(names) != 1 or len(items) > 1:
            continue
        other = dumped[names[0]]
        shape = tuple(other.shape)
        fits = fitting(shape, tuple(tensor.shape))
        error = distance(other, tensor, fits[0]) if fits else None
        laid = as_dumped(shape, tuple(tensor.shape), conventions)
        text = fits[0].text if fits and not (fits[0].trivial and shape == tuple(tensor.shape)) else ""
        found.append(InputSeen(position, name, names[0], text, shape, laid, error))
        used.add(names[0])
    found.sort(key=lambda each: each.position)
    return found, used, conventions


def _notes(dump: Dump, found: _Found) -> Iterator[str]:
    aligned_, parameters = found.aligned, found.parameters
    yield (
        f"the baseline is {len(dump.tensors)} dumped tensors: {len(aligned_.compared)} are compared at sites of the "
        f"candidate's ({len(aligned_.same)} more hold the same numbers as another), {len(parameters.held)} are "
        f"parameters of its, {len(found.given)} went in"
    )
    layouts = sorted({row.layout for row in found.cell.layers if row.layout})
    if layouts:
        yield f"the candidate's tensors are laid out otherwise than the dumped ones: {', '.join(layouts[:_SOME])}"
    equal = len(parameters.held) - len(parameters.differing)
    if parameters.held:
        total = len(parameters.held)
        yield f"{equal} of the {total} dumped parameters are the candidate's, up to the order of their axes"
    if parameters.differing:
        more = "; ..." if parameters.differing[_SOME:] else ""
        yield f"likely cause: {'; '.join(map(said, parameters.differing[:_SOME]))}{more}"
    if parameters.lost:
        yield f"dumped parameters that could not be told to be any of the candidate's: {_listed(parameters.lost)}"
    if aligned_.lost:
        yield f"dumped tensors without a partner: {_listed(sorted(aligned_.lost))}"
    if not found.given:
        yield "none of the dumped tensors is the input, so that it is taken on trust that they were computed from it"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SOME]) + (f" and {len(names) - _SOME} more" if names[_SOME:] else "")
