"""One network that learns, epoch by epoch, and can go on exactly where it was interrupted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import torch
import torch.nn.functional as F

from verifier.environment import seed_all
from verifier.errors import UsageError
from verifier.experiment import checkpoint
from verifier.models.copying import state_of
from verifier.training.procedure import Procedure
from verifier.training.records import Epoch
from verifier.training.surroundings import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from verifier.training.data import Data
    from verifier.training.recipe import TrainingRecipe

_TEST_PIXELS = 250 * 32 * 32  # that are tested at once
_SMALLEST_BATCH = 8


@dataclass
class Pupil:
    """A network in training.

    The random numbers of an epoch, the order of the data and its augmentation among them, depend on the seed and
    the number of the epoch alone. So a checkpoint at the end of an epoch needs no generator's state, and twins draw
    alike.

    Attributes:
        name: The network's name.
        role: `candidate` or `baseline`.
        spec: What it was built from.
        model: The network itself, which is trained.
        data: What it learns.
        recipe: How.
        total: Epochs of the whole training.
        device: Where.
        seed: Of all that is drawn.
        file: Where its checkpoint goes.
        twin: What the network it shares its initial weights with was built from, None for none.
        surroundings: What else its numbers depend on.
        epochs: What it has learnt so far.
        notes: Where it went on in other surroundings than those it had learnt in.
    """

    name: str
    role: str
    spec: str
    model: nn.Module
    data: Data
    recipe: TrainingRecipe
    total: int
    device: str
    seed: int
    file: Path
    twin: str | None = None
    surroundings: dict[str, str] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make its optimiser.

        Raises:
            UsageError: There is too little data for a single step.
        """
        batches = self.batches * self.total
        if batches < self.recipe.accumulate:
            raise UsageError(
                f"nothing would be learnt: {batches} batches in all are fewer than the {self.recipe.accumulate} that "
                "make one step. Accumulate fewer, or train for longer."
            )
        self.procedure = Procedure(self.model, self.recipe, batches=batches, epoch_batches=self.batches)

    @property
    def batches(self) -> int:
        """Batches an epoch; one of a single sample is left out."""
        whole, rest = divmod(len(self.data.labels), self.recipe.batch_size)
        return whole + (rest > 1)

    @property
    def request(self) -> dict[str, Any]:
        """What a checkpoint has to agree in."""
        return {
            "network": self.spec,
            "data": self.data.name,
            "photographs": self.data.digest[:12] or None,
            "test scales": _sizes(self.data.test_scales),
            "epochs": self.total,
            "seed": self.seed,
            "device": self.device,
            "recipe": msgspec.to_builtins(self.recipe),
            "twin": self.twin,
        }

    def learn(self, told: Callable[[int], None]) -> Epoch:
        """One epoch, its test and its checkpoint. `told` is called with the images of each batch."""
        number = len(self.epochs)
        started = time.perf_counter()
        seed_all(self.seed * 1_000_003 + number)
        self.model.train()
        rate = self.procedure.lr
        loss, right, seen = 0.0, 0, 0
        for images, labels in self.data.batches(self.recipe.batch_size, seed=self.seed, epoch=number):
            answers = labels.to(self.device)
            learnt = self.procedure.learn(images.to(self.device), answers)
            loss += float(learnt.loss) * len(labels)
            right += int((learnt.logits.argmax(1) == answers).sum())
            seen += len(labels)
            told(len(labels))
        seconds = time.perf_counter() - started
        logits = self.test()
        expected = self.data.test_labels
        epoch = Epoch(
            epoch=number + 1,
            lr=rate,
            train_loss=loss / seen,
            train_accuracy=right / seen,
            test_loss=float(F.cross_entropy(logits, expected)),
            test_accuracy=float((logits.argmax(1) == expected).double().mean()),
            seconds=seconds,
            images_per_second=seen / seconds if seconds else math.inf,
        )
        self.epochs.append(epoch)
        checkpoint.write(
            self.file,
            {
                "request": self.request,
                "surroundings": self.surroundings,
                "notes": self.notes,
                "tensors": state_of(self.model),
                "procedure": self.procedure.state(),
                "epochs": [msgspec.to_builtins(each) for each in self.epochs],
            },
        )
        return epoch

    def test(self) -> Tensor:
        """The logits of all test images, (M, classes), float32 on the CPU; at several scales their mean.

        He et al. (2015), section 3.4, average the scores, too.
        """
        self.model.eval()
        with torch.no_grad():
            return torch.stack([self._scores(images) for images in self.data.tested]).mean(0)

    def _scores(self, images: Tensor) -> Tensor:
        """The logits of images of one size."""
        batch = max(_SMALLEST_BATCH, _TEST_PIXELS // images[0, 0].numel())
        return torch.cat(
            [
                self.model(self.data.prepared(each).to(self.device)).float().cpu()
                for each in torch.split(images, batch)
            ]
        )

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        In other surroundings it goes on as well, and takes a note: whoever moved to another machine would rather have
        other last bits than lose what was learnt, and nothing brings back a device that is gone.

        Raises:
            UsageError: It is damaged, or of another training.
        """
        if not self.file.exists():
            return
        content = checkpoint.read(self.file, self.request)
        own = state_of(self.model)
        other = _first_other(content["tensors"], own)
        if other is not None:
            raise UsageError(
                f"the checkpoint {self.file} is of another network: {other} is not as {self.spec} has it. Delete "
                "it to train from the start, or give another --out."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(content["tensors"][name])
        self.procedure.restore(content["procedure"])
        self.epochs = [msgspec.convert(each, Epoch) for each in content["epochs"]]
        self.notes = content["notes"]
        differing = changes(content["surroundings"], self.surroundings)
        if differing and len(self.epochs) < self.total:
            self.notes.append(
                f"{self.name} {self.role} went on after epoch {len(self.epochs)} with {differing}: its numbers are "
                "not bit for bit those of a training without an interruption"
            )


def _sizes(scales: Sequence[Tensor]) -> str | None:
    """Sizes in pixels, as `--test-scales` takes them; None for none."""
    return ",".join(str(images.shape[-1]) for images in scales) or None


def _first_other(those: dict[str, Tensor], these: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that only one side has, or in another shape or dtype."""

    def kinds(tensors: dict[str, Tensor]) -> set[tuple[str, torch.Size, torch.dtype]]:
        return {(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    return min((name for name, _, _ in kinds(those) ^ kinds(these)), default=None)
