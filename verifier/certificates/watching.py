"""Recording passes of a model that its own process drives: a serving engine, a trainer."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor, nn

from verifier.border.error_texts import first_line
from verifier.border.garbage import collecting_seldom
from verifier.certificates import arguments
from verifier.certificates.arrays import Recording
from verifier.certificates.certificate import SUFFIX
from verifier.certificates.content import (
    GraphRecord,
    RecordingRecord,
    TensorRecord,
    as_record,
)
from verifier.certificates.live import GivenRecord, Live, LiveContent, PassRecord
from verifier.certificates.noting import cell_of, dtype_of, outputs_of, weight_of
from verifier.certificates.sampled import SAMPLE, Part, checksum
from verifier.environment import describe
from verifier.errors import InputError, OutputError, UsageError
from verifier.graph.live import LiveRecorder, Stand, closed
from verifier.graph.tensors import tensors_given
from verifier.inputs.given import Inputs, described, leaves
from verifier.inputs.samples import batch_size
from verifier.models.copying import state_of
from verifier.records import InputInfo, ModelInfo
from verifier.storage.saving import check_file
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from os import PathLike


_NAMED = 3
_LOG = logging.getLogger("verifier")


@contextlib.contextmanager
def recording(
    path: str | PathLike[str], model: nn.Module, *, passes: int = 1, sample: int | None = SAMPLE
) -> Iterator[Watch]:
    """Record the next forward passes of a model that something else drives.

    The model's own object runs, in its own mode, dtype and device, and gives what it gives without this. The file is
    written when the last of the passes has ended, all of it at once; two such files are compared by
    `verifier.verify(a, b)` and `verifier run --baseline a --candidate b`. Nothing stays on the model afterwards.

    What fails in the recording ends it and not the pass; that, and what could not be seen, is logged (`verifier`) and
    stands in the file. Passes that raise are left out, and so are those that begin, in another thread or inside the
    model, while one is recorded. Only calls of the model (`model(...)`) are seen, not of its `forward`.

    Args:
        path: The file, `.safetensors`.
        model: The module that is called. Where it is compiled, only its inputs and outputs are seen.
        passes: How many passes to record. Where fewer were made when the block ends, those are written.
        sample: Of tensors of more elements only so many are read, outputs apart; None for all of them, which takes
            longer and can be compared with certificates at every site.

    Raises:
        UsageError: Something asked for is wrong; at the end of the block, no pass could be recorded.
        OutputError: The file cannot be written.
    """
    target = Path(path).absolute()
    if target.suffix != SUFFIX:
        raise UsageError(f"a recording's name ends with {SUFFIX}, and not as {path} does.")
    if passes < 1 or (sample is not None and sample < 1):
        raise UsageError("there is nothing to record: passes and sample count from 1.")
    check_file(target)
    watch = Watch(model, passes, sample, target)
    watch.begin()
    try:
        yield watch
    finally:
        watch.end()
    watch.settle()


@dataclass(frozen=True)
class _Pass:
    record: PassRecord
    recording: Recording
    inputs: list[Tensor]


@dataclass
class Watch:
    """A model while its passes are recorded; `live` is what was, once that is done."""

    model: nn.Module
    passes: int
    sample: int | None
    path: Path | None = None
    live: Live | None = None
    _taken: list[_Pass] = field(default_factory=list)
    _graphs: list[GraphRecord] = field(default_factory=list)
    _unseen: dict[str, None] = field(default_factory=dict)
    _failure: OutputError | None = None
    _missed: int = 0
    _sites: int = 0
    _open: bool = False

    def begin(self) -> None:
        """Stand in the place of the model's call."""
        self._program = getattr(self.model, "_orig_mod", self.model)
        self._why = closed(self.model)
        self._lock = threading.Lock()
        self._state = state_of(self._program)
        hasher = Hasher()
        parameters = {name for name, _ in self._program.named_parameters()}
        self._tensors = {
            name: weight_of(name, tensor, hasher, learnt=name in parameters)
            for name, tensor in self._state.items()
        }
        self._sums = {name: int(checksum(tensor)) for name, tensor in self._state.items()}
        if self._why:
            self._unseen[f"the model is {self._why}: only what goes in and what comes out was seen"] = None
        self._open = True
        self._stand = Stand(self.model, self._call)

    def end(self) -> None:
        """Leave the model as it was. Safe to call twice."""
        self._open = False
        self._stand.leave()

    def settle(self) -> None:
        """Write what was recorded, if fewer passes were made than asked for.

        Raises:
            UsageError: There was none.
            OutputError: It cannot be written, or could not.
        """
        if self._failure is not None:
            raise self._failure
        if self.live is None and not self._taken:
            why = next(reversed(self._unseen), "it was never called as model(...)")
            raise UsageError(
                f"no forward pass of the {type(self._program).__name__} could be recorded: {why}."
            )
        if self.live is None:
            self._unseen[f"{len(self._taken)} of {self.passes} passes were made while this was watched"] = (
                None
            )
            self._write()
            if self._failure is not None:
                raise self._failure

    def _call(self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._open or torch.compiler.is_compiling() or _capturing():
            return inner(*args, **kwargs)
        if not self._lock.acquire(blocking=False):
            self._missed += 1
            return inner(*args, **kwargs)
        try:
            with collecting_seldom():  # what is noted of a pass lives on
                return self._watched(inner, args, kwargs)
        finally:
            self._lock.release()

    def _watched(self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parts: dict[int, Part] = {}
        gradients = torch.is_grad_enabled()
        try:
            with torch.no_grad():
                before = self._before(args, kwargs, gradients=gradients)
                recorder = LiveRecorder(
                    self._program,
                    tensors_given((args, kwargs)),
                    type(self)._watched.__code__,
                    lambda site, tensor: parts.update({site: Part(tensor, self.sample)}),
                    self._why,
                )
        except Exception as error:
            self._gave_up(first_line(error))
            return inner(*args, **kwargs)
        try:
            if self._why:
                result = inner(*args, **kwargs)
                recorder.whole(args, kwargs, result)
            else:
                with recorder:
                    result = inner(*args, **kwargs)
        except BaseException as error:
            self._gave_up(f"it raised {type(error).__name__}")
            raise
        finally:
            recorder.detach()
        try:
            if recorder.broken:
                self._gave_up(recorder.broken)
            else:
                with torch.no_grad():
                    self._after(before, recorder, parts, result)
        except Exception as error:
            self._gave_up(first_line(error))
        return result

    def _gave_up(self, why: str) -> None:
        self._unseen[f"a pass could not be recorded ({why})"] = None

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, gradients: bool) -> PassRecord:
        hasher = Hasher()
        named = [(name, leaf) for name, leaf in leaves(args, kwargs) if isinstance(leaf, Tensor)]
        given = tuple(
            GivenRecord(
                name=name,
                shape=tuple(tensor.shape),
                dtype=dtype_of(tensor),
                digest=hasher.of_all([("", tensor)]),
            )
            for name, tensor in named
        )
        try:
            inputs = described(args, kwargs, "given by the process that ran the model")
        except InputError:
            info = InputInfo(
                description="given by the process that ran the model",
                shapes=tuple(each.shape for each in given),
                dtypes=tuple(each.dtype for each in given),
            )
            inputs = Inputs(args, kwargs, info=info, batch_dim=None)
        info = msgspec.structs.replace(inputs.info, digest=hasher.of_all(named))
        said = arguments.as_record(inputs, info, "")
        self._kept = [tensor.detach().cpu().clone() for tensor in arguments.kept(inputs, said)]
        changed = {
            name: hasher.of_all([("", tensor)])
            for name, tensor in state_of(self._program).items()
            if name not in self._sums or int(checksum(tensor)) != self._sums[name]
        }
        if not self._taken:  # the first pass that is recorded is the one that the others are told from
            for name, digest in changed.items():
                self._tensors[name] = msgspec.structs.replace(self._tensors[name], digest=digest, own=digest)
                self._sums[name] = int(checksum(state_of(self._program)[name]))
            changed = {}
        cell = cell_of(self._program, [tensor for _, tensor in named])
        return PassRecord(
            graph=0,
            inputs=said,
            given=given,
            recording=RecordingRecord(
                cell=cell.name,
                samples=max(1, batch_size(inputs)) if named else 1,
                sites=(),
                shapes=(),
                outputs=(),
            ),
            training=self._program.training,
            gradients=gradients,
            chance=hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
            changed=changed,
        )

    def _after(
        self, before: PassRecord, recorder: LiveRecorder, parts: Mapping[int, Part], result: Any
    ) -> None:
        graph, returned = recorder.finished(result)
        for why, names in _by_reason(recorder.closed).items():
            if names != [""]:
                self._unseen[f"{_listed(names)}: {why}, so that only what goes in and comes out was seen"] = (
                    None
                )
        sites = [site.index for site in graph.comparable if site.index in parts]
        written = sorted(graph.writes_state)
        state = state_of(self._program)
        outputs, rest, full = outputs_of(returned)
        rest += [Part(state[name], None) for name in written]
        record = msgspec.structs.replace(
            before.recording,
            sites=tuple(sites),
            shapes=tuple(graph.sites[index].shape for index in sites),
            outputs=outputs,
            states=tuple(
                TensorRecord(name=name, shape=tuple(state[name].shape), dtype=dtype_of(state[name]))
                for name in written
            ),
            words=dict(returned.words),
        )
        summaries = tuple(part.summary() for part in (*(parts[index] for index in sites), *rest))
        said = as_record(graph)
        if said not in self._graphs:
            self._graphs.append(said)
            self._sites = self._sites or len(sites)
        self._taken.append(
            _Pass(
                msgspec.structs.replace(before, graph=self._graphs.index(said), recording=record),
                Recording(record, summaries, full),
                self._kept,
            )
        )
        if len(self._taken) == self.passes:
            self._open = False
            self._stand.leave()
            self._write()

    def _write(self) -> None:
        if self._missed:
            self._unseen[
                f"{self._missed} calls began while another was recorded, in other threads or inside the model "
                "itself: they were not"
            ] = None
        kind = type(self._program)
        content = LiveContent(
            model=ModelInfo(
                spec=f"{kind.__module__}.{kind.__qualname__}",
                type=kind.__name__,
                parameters=sum(parameter.numel() for parameter in self._program.parameters()),
                sites=self._sites,
            ),
            tensors=tuple(self._tensors.values()),
            graphs=tuple(self._graphs),
            passes=tuple(each.record for each in self._taken),
            asked=self.passes,
            sample=self.sample,
            unseen=tuple(self._unseen),
            environment=describe(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.live = Live(
            content, [each.recording for each in self._taken], [each.inputs for each in self._taken]
        )
        if self.path is not None:
            try:
                self.live.save(self.path)
            except OutputError as error:
                self._failure = error
                return
        _LOG.info("%s: %s", self.path, self.live.told)
        for each in self._unseen:
            _LOG.warning("%s: %s", self.path, each)


def _capturing() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


def _by_reason(closed_parts: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in closed_parts.items():
        found.setdefault(why, []).append(name)
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if names[_NAMED:] else ""
    return f"{', '.join(names[:_NAMED])}{more}"
