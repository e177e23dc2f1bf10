"""Whether a candidate calls the other processes: then they hold it between them, and cannot share samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from verifier.bench.side import Side
from verifier.border import heartbeat
from verifier.border.signals import check_unanswered
from verifier.certificates.recording import undisturbed
from verifier.errors import UsageError
from verifier.forms.loading import is_file
from verifier.graph.chance import same_chance
from verifier.inputs import Stream, tensors
from verifier.models.specs import load
from verifier.ranks import ranks
from verifier.sharded.candidate import is_spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.inputs import Inputs

_BETWEEN = frozenset({"_c10d_functional", "c10d"})
_STAGE = "listening whether the candidate calls the other processes"


class _CalledError(BaseException):
    """A call to other processes, before it is made; no model takes it for an error of its own."""


class _Listening(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace in _BETWEEN:
            raise _CalledError(func._schema.name.partition("::")[2].strip("_"))
        return func(*args, **(kwargs or {}))


def _called_first(candidate: str, given: Inputs, seed: int) -> str:
    """The first call to other processes in a pass, by torch's name of it; empty if there is none.

    The pass ends there, so that no process waits for it. Building may make such calls: all make the same ones.
    """
    try:
        model = load(candidate, seed=seed).model
        if is_spread(model, seed):
            return "DTensor"
        side = Side.of("candidate", model, seed)
        args, kwargs = side.arguments(given)
        with _Listening():  # type: ignore[no-untyped-call]
            side.model(*args, **kwargs)
    except _CalledError as called:
        return str(called)
    except Exception as error:  # on these inputs, say; where it matters that is told
        check_unanswered(error)
    return ""


def refuse_talking(candidate: Any, inputs: Any, seed: int) -> None:
    """Build a candidate once more, and run it on the first samples, to see whether it calls the other processes.

    Args:
        candidate: What was given as the candidate; only of specifications can another be had.
        inputs: The samples that the processes are to share.
        seed: For a model that is built.

    Raises:
        UsageError: It does, on some rank.
        ProcessError: A rank has died.
    """
    if not isinstance(candidate, str) or is_file(candidate) or inputs is None:
        return
    heartbeat.stage(_STAGE)
    given = inputs.head if isinstance(inputs, Stream) else tensors(inputs)
    with undisturbed(), same_chance(), torch.no_grad():
        heard = ranks().gather(_called_first(candidate, given, seed))
    heartbeat.stage("building models")
    called = next(filter(None, heard), "")
    if not called:
        return
    error = UsageError(
        f"{candidate} calls the other processes ({called}), but these share samples here. If they hold it between "
        "them, each a part, add --sharded and give one batch (--input); else run it without torchrun."
    )
    error.elsewhere = not ranks().leads
    raise error
