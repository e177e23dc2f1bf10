"""Every page besides a run's, rendered of records as commands would write them."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

import msgspec
from PIL import Image

from reports import html, initialisation, parity, preprocessing, training, walk
from tests import samples
from tests.prepared import CAUSE, GAP, prepared, stage
from verifier.initialisation.records import Initialisation, Statistics, TensorResult, TensorStanding
from verifier.records import (
    Check,
    CheckedLater,
    CheckedModel,
    PreparationAlone,
    Status,
    Verdict,
    Walk,
    WalkedNetwork,
)
from verifier.training.recipe import TrainingRecipe
from verifier.training.records import (
    Allowed,
    Divergence,
    Epoch,
    Experiment,
    Learner,
    Phase,
    SampleImage,
    TensorRow,
    TrainingCause,
    TrainingParity,
    Twins,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = "<script>alert('there')</script>"
LONG = "features.denseblock3.denselayer17.transition.normalisation.running_mean"
WHEN = "2026-01-01T00:00:00+00:00"
SHARED = samples.verification()


def experiment(
    names: tuple[str, ...] = ("cifar_resnet20", "cifar_resnet56", "small_resnet18", "net"),
) -> Experiment:
    """Networks that were trained for a few epochs, each beside a twin that learnt alike."""
    learners = [
        _learner(name, role, 20 + k) for k, name in enumerate(names) for role in ("candidate", "baseline")
    ]
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    said = tuple((k % 3, 0.75) for k in range(len(learners)))
    return Experiment(
        data="digits",
        source="some digits",
        classes=("zero", "one", HOSTILE),
        training_images=1437,
        test_images=360,
        recipe=TrainingRecipe(),
        recipe_told=TrainingRecipe().told(),
        epochs=3,
        device="cpu",
        learners=tuple(learners),
        twins=tuple(Twins(name=name, first_other_epoch=None, same_weights=True) for name in names),
        samples=(SampleImage(png=base64.b64encode(stream.getvalue()).decode(), label=0, predictions=said),),
        seed=0,
        environment=SHARED.environment,
        command=f"python -m verifier train --arch {','.join(names)}",
        seconds=4.0,
        created=WHEN,
    )


def _learner(name: str, role: str, depth: int) -> Learner:
    epochs = tuple(
        Epoch(
            epoch=k,
            lr=0.1 / k,
            train_loss=2.0 / k,
            train_accuracy=1 - 0.5 / k,
            test_loss=2.5 / k,
            test_accuracy=1 - 0.6 / k,
            seconds=2.0,
            images_per_second=50.0,
        )
        for k in (1, 2, 3)
    )
    return Learner(
        name=name,
        role=role,
        spec=f"reference:{name}",
        depth=depth,
        parameters=269_722,
        epochs=epochs,
        confusion=((7, 1, 0), (0, 2, 0), (1, 0, 9)),
        digest="0123456789abcdef" * 4,
        weights_file=f"{name}-{role}.safetensors",
        published=((0.9125, "the paper"),),
    )


def trainings() -> TrainingParity:
    """Two trainings that part at the first step's gradients."""
    allowed = Allowed(limit=1e-12, rule="1e-12 in float64")
    rows = tuple(
        TensorRow(
            phase=phase,
            what="weight" if phase is Phase.OPTIMISER else "gradient",
            tensor=LONG,
            candidate=LONG,
            shape=(64,),
            allowed=allowed,
            culprit=phase is Phase.BACKWARD,
            first_step=1,
            total=(0.0, 3e-3, 2e-2),
            intrinsic=(0.0, 3e-3, None),
        )
        for phase in (Phase.BACKWARD, Phase.OPTIMISER)
    )
    first = Divergence(
        step=1,
        batch=1,
        phase=Phase.BACKWARD,
        what="gradient",
        tensor=LONG,
        candidate=LONG,
        total=math.inf,
        intrinsic=3e-3,
        allowed=allowed,
        reason="its relative error is 0.003",
        cause=TrainingCause(code="frozen", summary=f"requires_grad is off {HOSTILE}", confirmed=True),
    )
    return TrainingParity(
        verdict=Verdict.DIVERGED,
        reason="",
        first_divergence=first,
        culprits=(first,) * 3,
        bit_exact=False,
        steps=3,
        batches=3,
        losses=((2.0, 2.0), (1.0, 1.1), (0.5, 0.9)),
        rates=((0.1, 0.1),) * 3,
        rows=rows,
        baseline=SHARED.baseline,
        candidate=SHARED.candidate,
        baseline_procedure="sgd with lr 0.1",
        candidate_procedure="sgd with lr 0.1",
        data="digits",
        dtype="float64",
        device="cpu",
        coverage=SHARED.coverage,
        weights=SHARED.weights,
        notes=("schedules were not compared",),
        seed=0,
        environment=SHARED.environment,
        command="python -m verifier train-parity --arch cifar_resnet20",
        seconds=1.0,
        created=WHEN,
    )


def initial_values() -> Initialisation:
    """One tensor of many that is initialised otherwise."""
    numbers = Statistics(values=64, mean=0.0, std=0.068, kurtosis=1.8, smallest=-0.1, largest=0.1)
    names = [f"{LONG}.{k}" for k in range(60)]
    alike = TensorStanding.IDENTICAL
    same = [TensorResult(candidate=name, baseline=name, shape=(64, 3), standing=alike) for name in names]
    wrong = TensorResult(
        candidate=HOSTILE,
        baseline="conv2.weight",
        shape=(8, 8, 3, 3),
        standing=TensorStanding.DIVERGED,
        reason="it is not drawn as the baseline's is",
        expected=numbers,
        measured=msgspec.structs.replace(numbers, std=0.17),
        p_value=1e-30,
        explanation="it looks like kaiming_normal_(mode='fan_out', nonlinearity='relu')",
    )
    return Initialisation(
        verdict=Verdict.DIVERGED,
        reason="",
        baseline="nets.py:net",
        candidate="nets.py:wrong_gain",
        seed=0,
        draws=4,
        error_rate=1e-3,
        tensors=(wrong, *same),
        environment=SHARED.environment,
        command="python -m verifier init --baseline nets.py:net --candidate nets.py:wrong_gain --out init",
        seconds=1.0,
        created=WHEN,
    )


def preparation() -> PreparationAlone:
    """Photographs that are resized otherwise."""
    found = prepared(
        "differs",
        stage("decode", "given"),
        stage("resize", "differs", intrinsic=GAP, total=GAP, cause=CAUSE),
        first="resize",
        cause=CAUSE,
        files=("a.png", HOSTILE),
    )
    return PreparationAlone(
        **{name: getattr(found, name) for name in found.__struct_fields__},
        environment=SHARED.environment,
        command="python -m verifier preprocess --candidate-preprocessing prep.py:made --out prep",
        created=WHEN,
        seconds=2.0,
    )


def networks() -> Walk:
    """Four networks of which one diverged, one could not run and one is not reached."""
    fields = {
        "baseline": "torchvision:x",
        "candidate": "reference:x",
        "policy": "strict",
        "inputs": (8, 3, 224, 224),
    }
    ended = {"parameters": 25_557_032, "sites": 175, "compared": 1.0, "largest": 1e-7, "seconds": 61.5}
    return Walk(
        networks=(
            WalkedNetwork(
                name="resnet18",
                verdict=Verdict.MATCH,
                code=0,
                said="match: 69 of 69 sites agree exactly",
                report="resnet18/report.html",
                **fields,  # type: ignore[arg-type]
                **ended,  # type: ignore[arg-type]
            ),
            WalkedNetwork(
                name="resnet34",
                verdict=Verdict.DIVERGED,
                code=1,
                said=f"diverged: {LONG} is wrong: eps is 0.001 {HOSTILE}",
                report="resnet34/report.html",
                **fields,  # type: ignore[arg-type]
                **ended,  # type: ignore[arg-type]
            ),
            WalkedNetwork(
                name="resnet50",
                verdict=None,
                code=3,
                said="could not run: out of memory.",
                seconds=2.0,
                **fields,  # type: ignore[arg-type]
            ),
        ),
        awaited=("resnet101",),
        command="python -m verifier run --arch resnet18,resnet34,resnet50,resnet101",
        created=WHEN,
        seconds=125.0,
    )


def check() -> Check:
    """A policy of two models."""
    model = CheckedModel(
        name="port",
        baseline="old.py:load",
        candidate="new.py:load",
        verdict=Verdict.DIVERGED,
        code=1,
        said=f"diverged: {LONG} is wrong {HOSTILE}",
        report="port/report.html",
    )
    later = CheckedLater(
        policy=f"{LONG}.toml", verdict=Verdict.ACCEPTED, code=0, said=f"accepted: {LONG} {HOSTILE}", created=WHEN,
        accepted=(f"{LONG}: waived until 2099-12-31: {HOSTILE}",),
    )  # fmt: skip
    return Check(
        policy="policy.toml",
        code=1,
        models=(
            msgspec.structs.replace(model, later=later),
            msgspec.structs.replace(model, name="other", verdict=None, report=""),
        ),
        failures=("waiver 1 is not needed any more",),
        command="python -m verifier check --policy policy.toml",
        created=WHEN,
        seconds=3.0,
    )


def compared() -> str:
    """Two results of which the later lacks a cell and a partner."""
    before, after = samples.diverged(), samples.verification()
    cell = msgspec.structs.replace(before.cells[0], verdict=Verdict.MATCH)
    first = msgspec.structs.replace(cell.layers[0], total=None, candidate=None, status=Status.UNMATCHED)
    cell = msgspec.structs.replace(cell, layers=(first, *cell.layers[1:]))
    reports = "../before/report.html", "../after/report.html"
    return html.render_comparison(before, msgspec.structs.replace(after, cells=(cell,)), reports)


PAGES: dict[str, Callable[[], str]] = {
    "comparison": compared,
    "check": lambda: html.render_check(check()),
    "training": lambda: training.render(experiment()),
    "train-parity": lambda: parity.page(trainings()),
    "init": lambda: initialisation.page(initial_values()),
    "preprocess": lambda: preprocessing.page(preparation()),
    "index": lambda: walk.render(networks()),
}
