"""From options to what `verify` takes."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.errors import ModelError, UsageError

if TYPE_CHECKING:
    from verifier.inputs import Inputs, Stream

ALL = "all"
_RECORDED = (".safetensors", ".npz", ".npy", ".zip")  # what stands in the baseline's place knows what went in
_BATCH = 8
_SMALL_BATCH = 2  # where many networks are walked on small images: enough for samples to be mixed up


@dataclass(frozen=True, slots=True)
class Job:
    """One verification: the two specifications, the inputs' size, the policy by name, and where the result goes.

    `name` is the architecture's, empty where both models were named; `reference` says that the candidate is this
    package's.
    """

    name: str
    baseline: str
    candidate: str
    image_size: int
    batch_size: int
    policy: str
    out: Path
    reference: bool = False


def plan_models(arch: str | None, baseline: str | None, candidate: str | None) -> tuple[str, str]:
    """The two specifications. An explicit one takes the place of the half of `--arch` it names.

    Raises:
        UsageError: Not both models are given, `--arch` is unknown, or nothing is left for it to name.
    """
    if arch is not None:
        from verifier.models.specs import arch as both

        _check_halves(arch, baseline, candidate)
        known = both(arch)
        return baseline or known[0], candidate or known[1]
    if baseline is None or candidate is None:
        missing = "--candidate" if baseline is not None else "--baseline"
        raise UsageError(
            f"two models are needed: give --arch NAME, or --baseline and --candidate ({missing} is missing)."
            if baseline or candidate
            else "two models are needed: give --arch NAME, or --baseline SPEC and --candidate SPEC."
        )
    return baseline, candidate


def _check_halves(arch: str, baseline: str | None, candidate: str | None) -> None:
    if baseline and candidate:
        raise UsageError(
            f"--arch {arch} names two models, and --baseline and --candidate name two others; leave --arch out, "
            "or one of these."
        )


def weights_of(asked: str | None, *specs: str | None) -> str:
    """Where the weights come from: as it was asked for, else drawn, but where a file has weights of its own."""
    from verifier.forms.loading import is_file

    return asked or ("as-is" if any(spec and is_file(spec) for spec in specs) else "calibrated")


def placed(spec: str | None, directory: Path | None, option: str) -> str | None:
    """A specification whose imports start in the directory that an option named, if one did.

    Raises:
        UsageError: There is no specification, or the directory and it do not go together.
    """
    if directory is None:
        return spec
    if spec is None:
        raise UsageError(f"{option} says where imports start; give {option.removesuffix('-path')} too.")
    from verifier.models.specs import started_in

    through, inside = _through(spec)
    return through + started_in(inside, directory, option)


def compiled_with(options: str | None, *specs: str | None) -> tuple[str | None, ...]:
    """Specifications of which those of the form `compile:SPEC` say how they are compiled.

    Raises:
        UsageError: None of them is of that form.
    """
    if options is None:
        return specs
    split = [("", each) if each is None else _through(each) for each in specs]
    if not any(through for through, _ in split):
        raise UsageError(
            "--compile says how compile:SPEC is compiled, and no model is one: write --candidate compile:SPEC."
        )
    return tuple(
        f"{through.removesuffix(':')},{options}:{inside}" if through else inside for through, inside in split
    )


def _through(spec: str) -> tuple[str, str]:
    """`compile:`, or `compile,OPTIONS:`, where a specification begins so, and what is behind it."""
    kind, colon, inside = spec.partition(":")
    return (kind + colon, inside) if colon and kind.partition(",")[0] == "compile" else ("", spec)


def plan_jobs(
    arch: str | None,
    baseline: str | None,
    candidate: str | None,
    *,
    image_size: str | None,
    batch_size: int | None,
    policy: str | None,
    out: Path,
) -> list[Job]:
    """What to verify: one pair of models, or one after the other those of a list of architectures.

    An explicit specification takes the place of the half of `--arch` it names. Sizes and the policy that were not
    asked for are the architecture's own.

    Raises:
        UsageError: Not both models are given, an architecture is unknown, or one model was named for several.
    """
    if arch is None:
        baseline, candidate = plan_models(arch, baseline, candidate)
        return [
            Job(
                name="",
                baseline=baseline,
                candidate=candidate,
                image_size=pixels(image_size, 224, 64),
                batch_size=batch_size or _BATCH,
                policy=policy or "strict",
                out=out,
            )
        ]
    import reference_models
    from verifier.models.specs import arch as both
    from verifier.models.specs import architectures

    _check_halves(arch, baseline, candidate)
    names = architectures() if arch == ALL else list(dict.fromkeys(_listed(arch)))
    several = arch == ALL or len(names) > 1
    if several and (baseline or candidate):
        given = "--baseline" if baseline else "--candidate"
        raise UsageError(
            f"{given} names one model, but --arch names {len(names)} architectures; give one of them."
        )
    batch = batch_size or (_SMALL_BATCH if several and image_size == "small" else _BATCH)
    jobs = []
    for name in names:
        known = both(name)
        entry = reference_models.get(name)
        jobs.append(
            Job(
                name=name,
                baseline=baseline or known[0],
                candidate=candidate or known[1],
                image_size=pixels(image_size, entry.image_size, entry.small_size),
                batch_size=batch,
                policy=policy or entry.policy,
                out=out / name if several else out,
                reference=candidate is None,
            )
        )
    return jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """What both models are given, and what the candidate is given instead."""

    images: str | None
    file: str | None
    candidate_file: str | None
    candidate_preprocessing: str | None
    seed: int
    scales: tuple[int, ...] = ()
    data: str | None = None

    def spec(self, spec: str) -> str:
        """A model's specification, for what it is given: of several scales it averages the scores."""
        from verifier.models.scales import PREFIX

        through, inside = _through(spec)
        return f"{through}{PREFIX}:{inside}" if self.scales else spec

    def read(
        self, job: Job, *, streaming: bool = False, whole: bool = True
    ) -> tuple[Inputs | Stream | None, Inputs | None]:
        """The inputs: photographs, tensors of a file or function, or random numbers; and the candidate's, if named.

        None where the baseline is a certificate, which knows its own, or dumped tensors, and none are named.

        Photographs are prepared by the candidate's preprocessing, too, where it is named, or by this package's if the
        candidate is its model. With `whole` False nothing is read of what is streamed but its first batch.

        Raises:
            InputError: They cannot be read or made.
            UsageError: Two options exclude each other, or a preprocessing is without photographs.
        """
        from verifier import inputs

        if self.candidate_preprocessing is not None and self.candidate_file is not None:
            raise UsageError("--candidate-preprocessing and --candidate-input exclude each other.")
        named = {"--images": self.images, "--input": self.file, "--data": self.data}
        if len(both := [option for option, value in named.items() if value is not None]) > 1:
            raise UsageError(f"{' and '.join(both)} exclude each other; give one of them.")
        if self.images is None and self.candidate_preprocessing is not None:
            raise UsageError("--candidate-preprocessing needs photographs to compare on; give --images too.")
        recorded = job.baseline.lower().endswith(_RECORDED) or Path(job.baseline).is_dir()
        if self.scales:
            if recorded or self.file or self.data or self.candidate_file:
                what = "a recorded baseline" if recorded else "--data" if self.data else "--input"
                raise UsageError(
                    f"--test-scales is for photographs and random pictures; {what} has sizes of its own."
                )
            return inputs.at_scales([self._pictures(job, size) for size in self.scales]), None
        given: Inputs | Stream | None = None
        if self.data is not None:
            given = inputs.data(self.data, job.batch_size, self.seed)
        elif self.images is not None and streaming and not recorded:
            given = inputs.streamed_images(
                self.images,
                job.batch_size,
                job.image_size,
                self._preparing(job),
                self.seed,
                whole=whole,
            )
        elif self.file is not None:
            given = inputs.read(self.file, self.seed)
        if given is None and not (recorded and self.images is None):
            given = self._pictures(job, job.image_size)
        return given, (None if self.candidate_file is None else inputs.read(self.candidate_file, self.seed))

    def _pictures(self, job: Job, size: int) -> Inputs:
        """Photographs of this size, or random ones."""
        from verifier import inputs

        if self.images is None:
            return inputs.normal(job.batch_size, size, self.seed)
        return inputs.images(self.images, None, size, self._preparing(job), self.seed)

    def _preparing(self, job: Job) -> str | None:
        return self.candidate_preprocessing or ("reference" if job.reference else None)


def command_line(**changes: str | None) -> str:
    """This command, for the record, with other values for options named so; None leaves one out."""
    options = {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    kept: list[str] = []
    rest = iter(sys.argv[1:])
    for each in rest:
        name, equals, _ = each.partition("=")
        if name not in options:
            kept.append(each)
        elif not equals:
            next(rest, None)  # the value
    asked = ((name, value) for name, value in options.items() if value is not None)
    return shlex.join(["python", "-m", "verifier", *kept, *(text for pair in asked for text in pair)])


def alone(job: Job, repro: Path | None) -> str:
    """The command that verifies one network of several as it was verified among them.

    Files that tell of all of them are not written by it.
    """
    changes: dict[str, str | None] = {"junit": None, "sarif": None, "code_quality": None}
    changes |= {"arch": job.name, "batch_size": str(job.batch_size), "out": str(job.out)}
    return command_line(**changes, **({} if repro is None else {"repro": str(repro)}))


def pixels(wanted: str | None, own: int, small: int) -> int:
    """A picture's height and width: what was asked for, or what the model has for its own."""
    from verifier.inputs import parse_image_size

    if wanted is None:
        return own
    return small if wanted == "small" else parse_image_size(wanted)


def picture_size(wanted: str | None, arch: str | None, data: str) -> int | None:
    """The height and width of a folder's pictures: what was asked for, or what the architectures have for their own.

    None where nobody says, and for data that has a size of its own.

    Raises:
        UsageError: Architectures are made for several sizes and none was asked for.
    """
    import reference_models
    from verifier.training.data import DATA

    known = reference_models.list()
    entries = [reference_models.get(name) for name in _listed(arch or "") if name in known]
    if wanted is not None:
        return pixels(wanted, 0, min((each.small_size for each in entries), default=64))
    sizes = sorted({each.image_size for each in entries})
    if data in DATA or not sizes:
        return None
    if len(sizes) > 1:
        raise UsageError(
            f"these networks are made for images of {' and '.join(map(str, sizes))} pixels; give --image-size."
        )
    return sizes[0]


def scales(text: str | None) -> tuple[int, ...]:
    """The sizes in pixels that `--test-scales` lists; none if it was not given.

    Raises:
        InputError: One is no size.
    """
    from verifier.inputs import parse_image_size

    return tuple(dict.fromkeys(parse_image_size(each) for each in _listed(text))) if text is not None else ()


def dimension(text: str) -> int | None:
    """The batch dimension that `--batch-dim` names.

    Raises:
        UsageError: It is no whole number, nor `none`.
    """
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"--batch-dim is {text!r}: give a dimension such as 0 or 1, or none.") from error


def _listed(text: str) -> list[str]:
    found = [item.strip() for item in text.split(",") if item.strip()]
    return found or [text]


def explained(error: ModelError, inputs: Inputs | Stream | None) -> ModelError:
    """A candidate's failure, with what stage 0 found if its photographs were prepared otherwise."""
    found = getattr(getattr(inputs, "head", inputs), "preprocessing", None)
    if found is None or not found.applied:
        return error
    where = found.first_difference or "the result"
    why = f" ({found.cause.summary})" if found.cause else ""
    told = ModelError(f"{error} Its photographs were prepared otherwise: {where} differs{why}.")
    told.of_program = error.of_program
    return told
