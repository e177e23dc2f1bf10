"""One model running one stretch at a time."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from verifier.border import heartbeat
from verifier.border.error_texts import account, first_line
from verifier.border.programs import by_program
from verifier.border.signals import check_unanswered
from verifier.errors import GraphDepartureError, ModelError, OutOfMemoryError, VerifierError
from verifier.graph import KeptCall
from verifier.graph.chance import random_state, set_random_state
from verifier.graph.conditions import Conditions
from verifier.graph.instrument import Instrument
from verifier.graph.returned import Returned
from verifier.graph.tensors import tensors_given
from verifier.graph.widening import default_dtype, narrowed, widens
from verifier.lockstep.coroutine import Greenlet, Thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from verifier.graph import Graph


class Lane:
    """A model that runs until the next of its stops, then waits there.

    `narrowed` holds the calls, by position, that ran in float32 within float64, since they have no other kernel.

    Only one lane runs at any moment: `advance` hands the processor to the model and returns when the model has
    reached a stop. So the tensor of a stop can be read, and overwritten, where it lies.

    Args:
        role: What the model is called in messages.
        model: A copy made for this run (`verifier.models.copying.copy_with`); it gets hooks.
        graph: What the recorded run did; the live run must do the same.
        args: Positional inputs, of this lane alone.
        kwargs: Keyword inputs, of this lane alone.
        stops: Indices of the sites to stop at.
        keep: Positions in `graph.calls` of the calls to keep in `kept`, as they were about to be made.
        around: Makes what is entered whenever the model runs, and left whenever it waits: autocast, a thread count.
        dtype: What factories make while it runs where they are not told; None for as the process has it.
    """

    def __init__(
        self,
        role: str,
        model: nn.Module,
        graph: Graph,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        stops: Collection[int],
        keep: Collection[int] = (),
        around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.kept: dict[int, KeptCall] = {}
        self.role = role
        self.graph = graph
        self.tensor: Tensor | None = None
        self.outputs: list[Tensor] = []
        self.words: Mapping[str, str] = {}
        self.narrowed: set[int] = set()
        self._site: int | None = None
        inputs = tensors_given((args, kwargs))
        self._model: nn.Module | None = model
        self._random_state = random_state() if graph.draws else None
        device = next((tensor.device for tensor in inputs), torch.device("cpu"))
        self._watch = _Watch(self, model, graph, frozenset(stops), inputs, frozenset(keep))
        self.state_memory = self._watch.given_memory

        def forward() -> None:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            inside = around() if kind is Thread else contextlib.nullcontext()
            with torch.no_grad(), inside, self._watch:
                result = model(*args, **kwargs)
            self._watch.finish()
            returned = Returned.of(result)
            if len(returned.tensors) != len(graph.outputs):
                raise GraphDepartureError(
                    f"the {role} returns {len(returned.tensors)} tensors or numbers where it returned "
                    f"{len(graph.outputs)} in the recorded run. That depends on its data or its batch size."
                )
            self.outputs, self.words = returned.values(graph.output_order), returned.words

        kind = Greenlet if graph.suspendable else Thread
        # A thread has an autocast state of its own; lanes that share one thread change places in it.
        self._around = contextlib.nullcontext if kind is Thread else around
        self._dtype = dtype  # which is the process's, unlike all that `around` makes
        self._coroutine = kind(forward, f"verifier-{role}")

    def advance(self) -> int | None:
        """Run to the next stop and return its site's index, with the tensor in `tensor`; None at the end.

        Raises:
            ModelError: The model raised; its exception is the cause.
            GraphDepartureError: The model did something else than in the recorded run.
            OutOfMemoryError: The device ran out of memory.
        """
        self.tensor = self._site = None
        heartbeat.model(self.role)
        try:
            self._resume()
        except BaseException as error:
            self._raise(error)
        return self._site

    def _resume(self) -> None:
        """Let the model go on, with random numbers of its own: every lane draws what it would draw alone."""
        if self._random_state is None:
            with self._around(), default_dtype(self._dtype):
                self._coroutine.resume()
            return
        before = random_state()
        set_random_state(self._random_state)
        try:
            with self._around(), default_dtype(self._dtype):
                self._coroutine.resume()
        finally:
            self._random_state = random_state()
            set_random_state(before)

    def close(self) -> None:
        """End the model's run wherever it is, and let go of the model. Safe to call twice."""
        self._coroutine.close()
        self._coroutine.release()
        self._watch.detach()
        self._model = None
        self.tensor = None

    @property
    def model(self) -> nn.Module:
        """The running copy, until the lane is closed."""
        if self._model is None:
            raise RuntimeError(f"the {self.role}'s lane is closed")
        return self._model

    def state(self, name: str) -> Tensor:
        """The parameter or buffer `name` of the running copy, as the run has left it so far."""
        owner, _, leaf = name.rpartition(".")
        found: Tensor = getattr(self.model.get_submodule(owner), leaf)
        return found.detach()

    def stop(self, site: int, tensor: Tensor) -> None:
        """Called by the running model: show `tensor` and wait until the lane may go on."""
        self._site, self.tensor = site, tensor
        self._coroutine.suspend()

    def check(self) -> None:
        """Called by the running model: leave the forward pass if the lane was closed."""
        self._coroutine.check()

    def _raise(self, error: BaseException) -> NoReturn:
        if isinstance(error, VerifierError):
            raise error
        check_unanswered(error)
        site = self._watch.whereabouts()
        where = f"at {site}" if site else "after its last site"
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in first_line(error):
            raise OutOfMemoryError(
                f"out of memory in the {self.role} {where}. Use a smaller --batch-size or --image-size."
            ) from error
        if "TorchScript interpreter" in first_line(error) and "dtype" in str(error):
            raise ModelError(
                f"the {self.role} runs TorchScript {where} that this verifier cannot put into another dtype. "
                "Keep it as a submodule, or in a list, tuple or dict of one."
            ) from error
        raise by_program(ModelError(f"the {self.role} failed {where}: {account(error)}")) from error


class _Watch(Instrument):
    """Follows a live run along its recorded graph."""

    def __init__(
        self,
        lane: Lane,
        model: nn.Module,
        graph: Graph,
        stops: frozenset[int],
        inputs: list[Tensor],
        keep: frozenset[int],
    ) -> None:
        super().__init__(model, inputs)
        self._keep = keep
        self._state = {id(tensor) for tensor in (*model.parameters(), *model.buffers())} if keep else set()
        self._lane = lane
        self._graph = graph
        self._stops = stops
        self._next = self._narrowed = 0
        self._conditions = Conditions.of(model, inputs)

    def before_call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._narrowed = narrowed()
        if self._next in self._keep:
            kept = KeptCall.of(function, args, kwargs, self._state, draws=self._graph.draws, widens=widens())
            self._lane.kept[self._next] = kept

    def on_call(
        self,
        op: str,
        function: Callable[..., Any] | None,  # noqa: ARG002
        args: Sequence[Any],  # noqa: ARG002
        kwargs: Mapping[str, Any],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> None:
        self._lane.check()
        call = self._graph.call_at(self._next, op, self.scope, len(outputs))
        if call is None:
            where = f" in {self.scope}" if self.scope else ""
            for recorded in self._graph.calls[self._next : self._next + 1]:
                if recorded.op == op and recorded.count != len(outputs):
                    where += f", which gave {len(outputs)} tensors and not {recorded.count},"
            self._depart(f"called `{op}`{where}")
        if narrowed() != self._narrowed:
            self._lane.narrowed.add(self._next)
        self._next += 1
        for site, tensor in enumerate(outputs, call.first):
            if site in self._stops:
                self._lane.stop(site, tensor)

    def finish(self) -> None:
        """The forward pass has returned: everything recorded must have happened."""
        if self._next < len(self._graph.calls):
            self._depart("ended")

    def whereabouts(self, op: str = "") -> str:
        """Where the run stands, for messages: at its next site."""
        if self._next < len(self._graph.calls):
            return self._graph.sites[self._graph.calls[self._next].first].name
        return super().whereabouts(op) if op else ""

    def _depart(self, what: str) -> NoReturn:
        if self._next < len(self._graph.calls):
            call = self._graph.calls[self._next]
            expected = f"the recorded run called `{call.op}` (site {self._graph.sites[call.first].name})"
        else:
            expected = "the recorded run had ended"
        why = self._conditions.why_other(self._graph.conditions or self._conditions)
        raise GraphDepartureError(
            f"the {self._lane.role} departs from its recorded run: it {what} where {expected}. Its control "
            f"flow depends on {why}, so its sites cannot be followed."
        )
