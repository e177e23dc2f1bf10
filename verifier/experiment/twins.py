"""The CIFAR-10 experiment and its like: networks and their baseline twins trained to the end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import torch

from verifier.bench.side import Side
from verifier.border import whole_files
from verifier.border.programs import contained, translating
from verifier.cells import Cell
from verifier.environment import describe, preserved
from verifier.errors import InputError, UsageError
from verifier.experiment.pupil import Pupil
from verifier.experiment.references import published_accuracies, references
from verifier.models.copying import state_of
from verifier.training.failing import failed
from verifier.training.pairing import Pairing, pair
from verifier.training.records import Experiment, Learner, SampleImage, Twins
from verifier.training.saving import checkpoint_file
from verifier.training.surroundings import surroundings
from verifier.weights.files import counts_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from verifier.training.data import Data
    from verifier.training.recipe import TrainingRecipe

    Progress = Callable[[str, int, int], None]

_SHOWN = 24  # sample predictions
_THUMBNAIL = 96  # pixels: as large as the page shows them
_PROBE = 4  # images to pair two networks on


@dataclass(frozen=True)
class Trainee:
    """A network to train: its name, what it is built from and its baseline twin if wanted.

    Of a network of the catalogue `depth`, `family` and `size`, the pixels it is made for, are known.
    """

    name: str
    candidate: str
    baseline: str | None = None
    depth: int | None = None
    family: str | None = None
    size: int | None = None

    def checkpoints(self, directory: Path) -> list[Path]:
        """Where its checkpoints go."""
        roles = ["candidate"] if self.baseline is None else ["candidate", "baseline"]
        return [checkpoint_file(directory, self.name, role) for role in roles]


@contained()
def train(
    trainees: Sequence[Trainee],
    data: Data,
    directory: Path,
    *,
    recipe: TrainingRecipe,
    epochs: int,
    device: str = "cpu",
    seed: int = 0,
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> Experiment:
    """Train networks one after the other, each side by side with its baseline twin, epoch by epoch.

    Twins start from identical weights and learn the same batches. After each epoch a checkpoint is written into
    `directory`; the final weights go there as safetensors files.

    Args:
        subjects: What to train.
        data: What to learn.
        directory: Where checkpoints and weights go.
        recipe: How.
        epochs: How long.
        device: Where: `cpu`, `cuda` or `cuda:N`.
        seed: For initial weights, the order of the data and all else that is drawn.
        resume: Whether to go on with what is unfinished in `directory`.
        command: How the run was asked for, for the record.
        progress: Told how far the run has come, in images.
        log: Given one line an epoch.

    Raises:
        UsageError: Something asked for is wrong, or a checkpoint is of another training.
        CannotRunError: This machine cannot run it, or a model failed.
        OutputError: A checkpoint cannot be written.
    """
    started = time.perf_counter()
    cell = Cell.parse(f"{device}/float32")
    cell.check_device()
    learners: list[Learner] = []
    twins: list[Twins] = []
    answers: list[Tensor] = []
    notes: list[str] = []
    with preserved(), torch.inference_mode(mode=False), torch.enable_grad():
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False

        environment = describe()
        around = surroundings(environment, cell.device)

        def ready(trainee: Trainee) -> tuple[Pairing | None, list[Pupil]]:
            with _told_the_size(trainee, data):
                pairing, models = _models(trainee, data, cell, seed)
            pupils = [
                Pupil(
                    name=trainee.name,
                    role=side.role,
                    spec=side.spec,
                    model=model,
                    data=data,
                    recipe=recipe,
                    total=epochs,
                    device=cell.device,
                    seed=seed,
                    file=checkpoint_file(directory, trainee.name, side.role),
                    twin=next((other.spec for other, _ in models if other is not side), None),
                    surroundings=around,
                )
                for side, model in models
            ]
            if resume:
                for pupil in pupils:
                    pupil.resume()
            return pairing, pupils

        for trainee in trainees[1:]:
            # What is wrong with the last is said before the first is trained. They are built anew when their turn
            # comes, so that no more than one pair is held at a time.
            ready(trainee)
        for trainee in trainees:
            pairing, pupils = ready(trainee)
            for pupil in pupils:
                whole_files.sweep(pupil.file)
            _teach(pupils, progress=progress or (lambda *_: None), log=log or (lambda _: None))
            for pupil in pupils:
                notes += pupil.notes
                logits = pupil.test()
                answers.append(logits)
                learners.append(_learner(trainee, pupil, logits, directory))
            if pairing is not None:
                twins.append(_twins(trainee, pupils, pairing))
    return Experiment(
        data=data.name,
        source=data.source,
        classes=data.classes,
        training_images=len(data.labels),
        test_images=len(data.test_labels),
        test_scales=tuple(images.shape[-1] for images in data.test_scales),
        recipe=recipe,
        recipe_told=recipe.told(),
        epochs=epochs,
        device=cell.device,
        learners=tuple(learners),
        twins=tuple(twins),
        samples=_samples(data, answers),
        seed=seed,
        environment=environment,
        notes=tuple(notes),
        references=references(data.name),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextlib.contextmanager
def _told_the_size(trainee: Trainee, data: Data) -> Iterator[None]:
    """Add to a refusal of the images for which size the network is made, where they have another."""
    try:
        yield
    except InputError as error:
        sizes = {images.shape[-1] for images in (data.images, *data.tested)}
        if trainee.size is None or sizes == {trainee.size}:
            raise
        raise InputError(
            f"{str(error).rstrip('.')}. It is made for images of {trainee.size} x {trainee.size} pixels, and is "
            f"given {', '.join(map(str, sorted(sizes)))}."
        ) from error


def _models(
    trainee: Trainee, data: Data, cell: Cell, seed: int
) -> tuple[Pairing | None, list[tuple[Side, nn.Module]]]:
    """The candidate and, where wanted, its twin, from identical weights."""
    images = data.prepared(data.images[:_PROBE]).to(cell.device)
    if trainee.baseline is None:
        side = Side.of("candidate", trainee.candidate, seed)
        _check_outputs(side, images, data, cell)
        return None, [(side, side.trained(state_of(side.model), cell))]
    pairing = pair(trainee.baseline, trainee.candidate, images, cell, seed=seed)
    info = pairing.masters.info
    if alone := (*info.unmapped_candidate, *info.unmapped_baseline):
        raise UsageError(
            f"{trainee.candidate} and {trainee.baseline} are no twins: {alone[0]} has no partner. Use --no-twin, or "
            "see what `verifier run` says of them."
        )
    for side in pairing.sides:
        _check_outputs(side, images, data, cell)
    baseline, candidate = pairing.fresh(cell)
    return pairing, [(pairing.candidate, candidate), (pairing.baseline, baseline)]


def _check_outputs(side: Side, images: Tensor, data: Data, cell: Cell) -> None:
    """Try whether a network gives one number a class, while it learns and when it is tested.

    Raises:
        UsageError: It does not, or does not take the images.
        OutOfMemoryError: There is no memory for them.
    """

    def refused(given: Tensor, why: str) -> InputError:
        return InputError(
            f"the {side.role} {side.spec} does not take inputs of shape {tuple(given.shape)}: {why}"
        )

    model = side.trained(state_of(side.model), cell)  # a copy, whose running statistics may move
    tests = [data.prepared(each[: len(images)]).to(cell.device) for each in data.test_scales] or [images]
    for mode, given in ((True, images), *((False, each) for each in tests)):
        with translating(partial(failed, f"the {side.role}", partial(refused, given))), torch.no_grad():
            outputs = model.train(mode)(given)
        is_tensor = isinstance(outputs, torch.Tensor)
        if not is_tensor or tuple(outputs.shape) != (len(given), len(data.classes)):
            gives = f"a tensor of shape {tuple(outputs.shape)}" if is_tensor else type(outputs).__name__
            raise UsageError(
                f"the {side.role} {side.spec} gives {gives} for {len(given)} images; {data.name} needs "
                f"({len(given)}, {len(data.classes)}), one number a class. Give a network that ends so."
            )


def _teach(pupils: Sequence[Pupil], *, progress: Progress, log: Callable[[str], None]) -> None:
    """All epochs that are left, twins in turn."""
    for note in (note for pupil in pupils for note in pupil.notes):
        log(f"warning: {note}.")
    first = pupils[0]
    whole = len(first.data.labels) * first.total * len(pupils)
    done = sum(len(pupil.epochs) for pupil in pupils) * len(first.data.labels)
    for number in range(first.total):
        for pupil in pupils:
            if len(pupil.epochs) > number:
                continue
            stage = f"{pupil.name} {pupil.role}, epoch {number + 1} of {pupil.total}"

            def told(images: int, stage: str = stage) -> None:
                nonlocal done
                done += images
                progress(stage, done, whole)

            epoch = pupil.learn(told)
            log(
                f"{stage}: loss {epoch.train_loss:.4f}, accuracy {epoch.train_accuracy:.2%}, "
                f"test {epoch.test_accuracy:.2%}, {epoch.seconds:.1f} s, {epoch.images_per_second:.0f} images/s"
            )


def _learner(trainee: Trainee, pupil: Pupil, logits: Tensor, directory: Path) -> Learner:
    from safetensors.torch import save_file  # noqa: PLC0415 - only needed at the end

    classes = len(pupil.data.classes)
    expected, called = pupil.data.test_labels, logits.argmax(1)  # as its accuracy has it
    counts = torch.bincount(expected * classes + called, minlength=classes * classes).reshape(
        classes, classes
    )
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state_of(pupil.model).items()}
    file = directory / f"{pupil.name}-{pupil.role}.safetensors"
    temporary = file.with_name(f".{file.name}")
    save_file(tensors, temporary)
    temporary.replace(file)
    return Learner(
        name=pupil.name,
        role=pupil.role,
        spec=pupil.spec,
        depth=trainee.depth,
        family=trainee.family,
        parameters=sum(parameter.numel() for parameter in pupil.model.parameters()),
        epochs=tuple(pupil.epochs),
        confusion=tuple(tuple(row) for row in counts.tolist()),
        digest=_digest({name: tensors[name] for name in sorted(tensors) if not counts_batches(name)}),
        weights_file=file.name,
        published=published_accuracies(pupil.name, pupil.data.name) if pupil.role == "candidate" else (),
    )


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the tensors' own digests, sorted: the same for twins that name their tensors otherwise."""
    own = sorted(hashlib.sha256(tensor.numpy().tobytes()).digest() for tensor in tensors.values())
    return hashlib.sha256(b"".join(own)).hexdigest()


def _twins(trainee: Trainee, pupils: Sequence[Pupil], pairing: Pairing) -> Twins:
    candidate, baseline = pupils

    def curve(pupil: Pupil) -> list[tuple[float, ...]]:
        return [(e.train_loss, e.train_accuracy, e.test_loss, e.test_accuracy) for e in pupil.epochs]

    first = next(
        (k for k, (c, b) in enumerate(zip(curve(candidate), curve(baseline), strict=True), 1) if c != b), None
    )
    b, c = state_of(baseline.model), state_of(candidate.model)
    same = all(
        torch.equal(recipe.make(b, c[name].shape), c[name])
        for name, recipe in pairing.masters.assemblies.items()
    )
    return Twins(name=trainee.name, first_other_epoch=first, same_weights=same)


def _samples(data: Data, answers: Sequence[Tensor]) -> tuple[SampleImage, ...]:
    """Test images that networks tell otherwise, then that all get wrong, then others; at most half are missed."""
    from PIL import Image  # noqa: PLC0415 - only needed at the end

    probabilities = [logits.softmax(1) for logits in answers]
    called = torch.stack([each.argmax(1) for each in probabilities])
    wrong = (called != data.test_labels).any(0)
    apart = (called != called[0]).any(0)
    order = [*(wrong & apart).nonzero().flatten().tolist(), *(wrong & ~apart).nonzero().flatten().tolist()]
    missed = order[: _SHOWN // 2]
    told = (~wrong).nonzero().flatten().tolist()[: _SHOWN - len(missed)]
    found = []
    for index in (*missed, *told):
        stream = io.BytesIO()
        picture = Image.fromarray(data.test_images[index].permute(1, 2, 0).numpy())
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        picture.save(stream, format="PNG")
        found.append(
            SampleImage(
                png=base64.b64encode(stream.getvalue()).decode("ascii"),
                label=int(data.test_labels[index]),
                predictions=tuple(
                    (int(each[index].argmax()), float(each[index].max())) for each in probabilities
                ),
            )
        )
    return tuple(found)
