"""The training of one process: of its own part of the candidate, or of the whole."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from verifier.border.signals import check_unanswered
from verifier.environment import seed_all
from verifier.errors import ModelError, VerifierError
from verifier.graph.operators import DROPOUTS, operator_name
from verifier.graph.tensors import tensors_in
from verifier.ranks import ranks
from verifier.sharded.asking import waiting
from verifier.sharded.candidate import Candidate
from verifier.sharded.watching import local, plain
from verifier.training.baseline_batch import copies
from verifier.training.correspondence import Forcing
from verifier.training.sharded.hanging import hung_on, wrapped_in
from verifier.training.sharded.part_batch import Expected, PartBatch, PartSteps
from verifier.training.steps import backward_passes_seen, steps_seen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence

    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from verifier.cells import Cell
    from verifier.models.specs import Source
    from verifier.training.procedure import Trainer

    Batch = tuple[Tensor, Tensor]


class Undropped(TorchFunctionMode):
    """Lets every dropout hand on what it is given: the draws of parts are not those of a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.met = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the call, if it is no dropout."""
        kwargs = kwargs or {}
        if operator_name(func) in DROPOUTS:
            given = args[0] if args else kwargs["input"]
            self.met |= bool(kwargs.get("training", True)) and kwargs.get("p", 0.5) != 0
            return given
        if kwargs.get("dropout_p"):
            self.met, kwargs = True, {**kwargs, "dropout_p": 0.0}
        return func(*args, **kwargs)


@dataclass
class Learner(Candidate):
    """A process's part of the candidate, which is also trained: `loop` trains it on `batches`, its own samples."""

    loop: Trainer = lambda *_: None
    batches: Sequence[Batch] = ()

    def answers(self) -> dict[str, Any]:
        """What a process can be asked, by name."""
        return {**super().answers(), "train": self.train, "unread": self.unread}

    def unread(self, names: list[list[str]]) -> bool:
        """Whether what the ranks' models return does not depend on parameters: it is finite where these are not."""
        model = self._built[0]
        poisoned = [p for name, p in model.named_parameters() if plain(name) in names[ranks().rank]]
        with _put_back(model):
            for parameter in poisoned:
                local(parameter.detach()).fill_(float("nan"))
            returned = [local(tensor.detach()) for tensor in tensors_in(self._called(None))]
        return all(bool(tensor.isfinite().all()) for tensor in returned if tensor.is_floating_point())

    def build(self, cell: Cell, wide: bool) -> str:
        """Build it for a cell, in training mode."""
        why = super().build(cell, wide)
        if not why:
            self._built[0].train()
        return why

    def loaded(self, given: str, cell: Cell) -> Source:
        """What a specification leads to.

        Raises:
            ModelError: It would lose what adds up its gradients once it is in the cell's dtype.
        """
        with wrapped_in(cell.torch_dtype):
            source = super().loaded(given, cell)
        dtypes = {each.dtype for each in source.model.parameters() if each.is_floating_point()}
        name = hung_on(source.model) if dtypes != {cell.torch_dtype} else ""
        if name:
            raise ModelError(
                f"the candidate cannot be trained in {cell.dtype}: hooks on the node that adds up the gradient of "
                f"{name} would be lost with its dtype. Register them in the trainer, or give --dtype "
                f"{', '.join(sorted(str(each).removeprefix('torch.') for each in dtypes))}."
            )
        return source

    def train(self, forcing: Forcing, expected: list[list[Expected]] | None) -> list[PartBatch]:
        """Train it from the weights it is built with, and keep every batch, overwritten as this rank is to have it.

        Raises:
            ModelError: The loop failed, or waited for other ranks longer than it may.
        """
        cell = self._built[1]
        if isinstance(self.given, str):
            self.build(cell, wide=True)
        mine = None if expected is None else expected[ranks().rank]
        try:
            return trained(self._built[0], self.loop, self.batches, self.seed, forcing, mine)
        except VerifierError:
            raise
        except BaseException as error:
            check_unanswered(error)
            raise waiting(error, "its training", wide=False) from error


def trained(
    model: nn.Module,
    loop: Trainer,
    batches: Sequence[Batch],
    seed: int,
    forcing: Forcing = Forcing.NOTHING,
    expected: Sequence[Expected] | None = None,
    listening: Collection[str] = (),
) -> list[PartBatch]:
    """Let a loop train a model without dropouts, and keep every batch; the model's tensors are as before afterwards.

    Args:
        model: The model.
        loop: What trains it.
        batches: On what.
        seed: For what it draws.
        forcing: What of it is overwritten.
        expected: With what, batch by batch.
        listening: Modules whose results' gradients are kept.

    Raises:
        ModelError: The loop ends before the batches do.
    """
    kept = [
        PartBatch(expected=None if expected is None else expected[k], forcing=forcing)
        for k in range(len(batches))
    ]
    watch = PartSteps(model)

    def handed_out() -> Generator[Batch]:
        for number, (inputs, labels) in enumerate(batches):
            seed_all(seed + number)
            watch.begin(kept[number])
            yield inputs.clone(), labels.clone()
            watch.ended()
        watch.ledger = None
        over.append(True)

    over: list[bool] = []
    seed_all(seed)
    wanted = {name for each in expected or () for name in each.arriving}
    hooks = [*steps_seen([watch]), *_arriving(model, {*listening, *wanted}, watch)]
    given = handed_out()
    try:
        with _put_back(model), backward_passes_seen([watch]), Undropped() as dropouts, torch.enable_grad():
            loop(model, given)
            kept[-1].over = copies(watch.parameters), copies(watch.buffers)
    finally:
        for hook in hooks:
            hook.remove()
        given.close()
    if not over:
        number = next((k for k, each in enumerate(kept) if each is watch.ledger), 0)
        raise ModelError(
            f"the trainer ended after {number} batches on rank {ranks().rank}, though there are more. It has to "
            "train on every batch it is given."
        )
    kept[-1].undropped = dropouts.met
    return [each.told() for each in kept]


@contextlib.contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Tensors of a model, which afterwards are as before, and have no gradients."""
    held = [(t, local(t.detach()).clone()) for t in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        for tensor, copy in held:
            tensor.grad = None
            with torch.no_grad():
                local(tensor.detach()).copy_(copy)


def _arriving(model: nn.Module, names: Collection[str], watch: PartSteps) -> Iterator[RemovableHandle]:
    """Keep the loss's gradients by what modules return, and overwrite those that are expected."""

    def returned(name: str, _: nn.Module, __: Any, output: Any) -> None:
        ledger = watch.ledger
        if (
            not isinstance(ledger, PartBatch)
            or not isinstance(output, torch.Tensor)
            or not output.requires_grad
        ):
            return
        row: list[Tensor] = ledger.arrived.setdefault(name, [])
        number = len(row)
        row.append(torch.empty(0))

        def arrives(gradient: Tensor) -> Tensor:
            row[number] = local(gradient.detach()).clone()
            forced = ledger.expected if ledger.forcing is Forcing.PHASES else None
            wanted = [] if forced is None else forced.arriving.get(name, [])
            if number >= len(wanted) or wanted[number].shape != row[number].shape:
                return gradient
            made = gradient.clone()
            local(made).copy_(wanted[number])
            return made

        output.register_hook(arrives)  # type: ignore[no-untyped-call]

    for full, module in model.named_modules():
        if plain(full) in names:
            yield module.register_forward_hook(partial(returned, plain(full)))
