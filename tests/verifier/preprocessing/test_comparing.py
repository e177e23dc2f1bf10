"""Plant a fault in a preprocessing: its stage is named, and no other."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import skimage
import sklearn
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode, functional

from verifier.errors import ModelError, SourceError
from verifier.preprocessing import PhotographComparison, Supplied, named, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.records import Preprocessing

PHOTOGRAPHS = [
    Path(skimage.__file__).parent / "data" / "chelsea.png",
    Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg",
]
SIZE, SHORTER = 64, 73
NORMALISE = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RIGHT = [T.Resize(SHORTER), T.CenterCrop(SIZE), T.ToTensor(), NORMALISE]


class Named:
    """A step with a name that tells its stage."""

    def __init__(self, name: str, step: Callable[[Any], Any]) -> None:
        self.__name__ = name
        self.step = step

    def __call__(self, picture: Any) -> Any:
        return self.step(picture)


def tensor_of(image: Image.Image) -> torch.Tensor:
    made: torch.Tensor = functional.pil_to_tensor(image)
    return made


def aligned(image: Image.Image) -> Image.Image:
    height, width = (SHORTER, int(SHORTER * image.width / image.height))
    made = torch.nn.functional.interpolate(
        tensor_of(image)[None].double(), size=(height, width), mode="bilinear", align_corners=True
    )
    return Image.fromarray(made[0].round().byte().permute(1, 2, 0).numpy())


def longer(image: Image.Image) -> Image.Image:
    share = SHORTER / max(image.size)
    return image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BILINEAR)


def without_antialias(image: Image.Image) -> Image.Image:
    made: Image.Image = functional.to_pil_image(
        functional.resize(tensor_of(image), [SHORTER], antialias=False)
    )
    return made


def one_down(image: Image.Image) -> Image.Image:
    top, left = (round((length - SIZE) / 2) for length in (image.height, image.width))
    return image.crop((left, top + 1, left + SIZE, top + 1 + SIZE))


# steps, the stage to be named, the code of the cause
FAULTS: dict[str, tuple[Sequence[Any], str, str]] = {
    "antialias off": ([Named("resize", without_antialias), *RIGHT[1:]], "resize", "resize-antialias"),
    "bicubic": (
        [T.Resize(SHORTER, InterpolationMode.BICUBIC), *RIGHT[1:]],
        "resize",
        "resize-kernel",
    ),
    "nearest": ([T.Resize(SHORTER, InterpolationMode.NEAREST), *RIGHT[1:]], "resize", "resize-kernel"),
    "align_corners": ([Named("resize", aligned), *RIGHT[1:]], "resize", "resize-grid"),
    "the longer side": ([Named("resize", longer), *RIGHT[1:]], "resize", "resize-size"),
    "both sides": ([T.Resize((SHORTER, SHORTER)), *RIGHT[1:]], "resize", "resize-size"),
    "no crop": ([T.Resize((SIZE, SIZE)), *RIGHT[2:]], "resize", "resize-size"),
    "another size": ([T.Resize(SHORTER + 8), *RIGHT[1:]], "resize", "resize-size"),
    "crop off by one": ([RIGHT[0], Named("crop", one_down), *RIGHT[2:]], "crop", "crop-offset"),
    "mirrored": ([*RIGHT[:2], Named("center_crop", functional.hflip), *RIGHT[2:]], "crop", "input-flip"),
    "BGR": ([*RIGHT[:3], lambda tensor: tensor.flip(0), NORMALISE], "scale", "input-channel-order"),
    "bytes": (
        [*RIGHT[:2], Named("totensor", lambda p: tensor_of(p).float()), NORMALISE],
        "scale",
        "input-scale",
    ),
    "no normalise": (RIGHT[:3], "normalise", "input-normalisation"),
    "other constants": (
        [*RIGHT[:3], T.Normalize((0.5,) * 3, (0.5,) * 3)],
        "normalise",
        "input-normalisation",
    ),
    "normalised twice": ([*RIGHT, NORMALISE], "normalise", "input-normalisation"),
}


def compared(
    function: Any, paths: Sequence[Path] = PHOTOGRAPHS, name: str = "classification", size: int | None = SIZE
) -> Preprocessing:
    chosen = recipe(name, size)
    comparison = PhotographComparison(chosen, Supplied("prep.py:made", function, chosen))
    for path in paths:
        comparison.add(path)
    return comparison.record()


def opaque(steps: Sequence[Any]) -> Callable[[Any], Any]:
    composed = T.Compose(list(steps))
    return composed.__call__  # type: ignore[no-any-return] # torchvision has no types


def wrong(found: Preprocessing) -> list[str]:
    return [each.name for each in found.stages if each.status in {"differs", "missing"}]


@pytest.mark.parametrize(
    "function", [RIGHT, T.Compose(RIGHT), opaque(RIGHT)], ids=["list", "composed", "unseen"]
)
def test_torchvisions_own_transforms_are_exact(function: Any) -> None:
    found = compared(function)
    assert found.status == "exact"
    assert found.first_difference == ""
    assert found.cause is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_at_its_stage_alone(fault: str) -> None:
    steps, stage, code = FAULTS[fault]
    found = compared(list(steps))
    assert found.status == "differs"
    assert wrong(found) == [stage] == [found.first_difference]
    if fault != "no normalise":  # there is nothing to look at
        assert found.cause is not None
        assert found.cause.code == code
        assert found.cause.confirmed


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in {"another size", "mirrored"}])
def test_a_planted_fault_is_known_by_the_final_tensor_alone(fault: str) -> None:
    steps, _, code = FAULTS[fault]
    found = compared(opaque(steps))
    assert found.status == "differs"
    assert {each.status for each in found.stages} == {"unseen"}
    assert found.cause is not None, fault
    # bytes went through a normalisation that is for 0 to 1
    expected = "input-normalisation" if fault == "bytes" else code
    assert (found.cause.code, found.cause.confirmed) == (expected, True)


def test_two_faults_are_both_known_by_the_final_tensor() -> None:
    found = compared(opaque([*FAULTS["antialias off"][0], lambda tensor: tensor.flip(0)]))
    assert found.cause is not None
    assert (found.cause.code, found.cause.also) == ("resize-antialias", ("input-channel-order",))


@pytest.mark.parametrize(
    "steps",
    [
        [
            T.PILToTensor(),
            T.Resize(SHORTER, antialias=True),
            T.CenterCrop(SIZE),
            T.ConvertImageDtype(torch.float32),
            NORMALISE,
        ],
        [T.ToTensor(), T.Resize(SHORTER, antialias=True), T.CenterCrop(SIZE), NORMALISE],
    ],
    ids=["bytes", "floating point"],
)
@pytest.mark.parametrize("seen", [True, False])
def test_tensors_resized_otherwise_are_rounding(steps: list[Any], seen: bool) -> None:
    found = compared(steps if seen else opaque(steps))
    assert found.status == "rounding", [(each.name, each.status) for each in found.stages]
    assert found.output is not None
    assert 0 < found.output.largest < 2 / 255 / 0.224
    if seen:
        assert [each.name for each in found.stages if each.status == "rounding"] == ["resize"]


def test_cutting_off_instead_of_rounding_is_no_rounding() -> None:
    def cut(image: Image.Image) -> Image.Image:
        exact = functional.resize(tensor_of(image).double(), [SHORTER], antialias=True)
        return Image.fromarray(exact.clamp(0, 255).byte().permute(1, 2, 0).numpy())

    assert wrong(compared([Named("resize", cut), *RIGHT[1:]])) == ["resize"]


def in_stages(load: Callable[[Path], Image.Image]) -> Callable[[Path], dict[str, Any]]:
    def made(path: Path) -> dict[str, Any]:
        current: Any = load(path)
        stages = {"decode": current}
        for name, step in zip(("resize", "crop", "scale", "normalise"), RIGHT, strict=True):
            current = stages[name] = step(current)
        return stages

    return made


def shown(**steps: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """A function that gives what it has after each step."""

    def made(image: Any) -> dict[str, Any]:
        stages = {}
        for name, step in steps.items():
            image = stages[name] = step(image)
        return stages

    return made


def swapped(image: Image.Image) -> Image.Image:
    return Image.merge("RGB", image.split()[::-1])


RESIZE, CROP, SCALE, _ = RIGHT
OTHER = T.Normalize((0.1, 0.2, 0.3), (0.9, 0.8, 0.7))

# what is shown, the stages to be named, the code of the cause
SHOWN: dict[str, tuple[Callable[[Any], Any], list[str], str]] = {
    "not finite": (
        shown(resize=RESIZE, tensor=lambda _: torch.full((3, SIZE, SIZE), torch.nan)),
        [],
        "input-nonfinite",
    ),
    "another spelling": (
        shown(resize=RESIZE, crop=CROP, scale=SCALE, normalize=OTHER),
        ["normalise"],
        "input-normalisation",
    ),
    "only the last is hidden": (
        shown(resize=RESIZE, crop=CROP, scale=SCALE, tensor=OTHER),
        ["normalise"],
        "input-normalisation",
    ),
    "BGR at the end": (
        shown(resize=RESIZE, crop=CROP, out=opaque([SCALE, NORMALISE, lambda t: t.flip(0)])),
        [],
        "input-channel-order",
    ),
    "after the last": (
        shown(resize=RESIZE, crop=CROP, scale=SCALE, normalise=NORMALISE, out=lambda t: t * 3 + 1),
        [],
        "input-scale",
    ),
    "by an unknown name": (
        shown(resize=RESIZE, swap=swapped, crop=CROP, scale=SCALE, normalise=NORMALISE),
        ["crop"],
        "input-channel-order",
    ),
    "a hidden crop": (
        shown(resize=RESIZE, out=opaque([lambda p: p.crop((0, 0, SIZE, SIZE)), SCALE, NORMALISE])),
        [],
        "crop-offset",
    ),
    "not normalised": (shown(resize=RESIZE, crop=CROP, to_tensor=SCALE), [], "input-normalisation"),
}


@pytest.mark.parametrize("fault", SHOWN)
def test_the_final_tensor_is_judged_whatever_was_shown(fault: str) -> None:
    function, stages, code = SHOWN[fault]
    found = compared(function)
    assert found.status == "differs"
    assert wrong(found) == stages
    assert found.first_difference == "".join(stages)
    assert found.cause is not None
    assert (found.cause.code, found.cause.confirmed) == (code, True)


@pytest.mark.parametrize(
    "function",
    [
        shown(resize=RESIZE, tensor=opaque(RIGHT[1:])),
        shown(tensor=opaque(RIGHT)),
        shown(resize=RESIZE, crop=CROP, to_tensor=opaque(RIGHT[2:])),
        shown(resized=RESIZE, center_crop=CROP, before_normalize=SCALE, Normalized=NORMALISE),
        shown(crop=opaque(RIGHT[:2]), scale=SCALE, copied=lambda t: t.clone(), normalize=NORMALISE),
        T.Compose([opaque(RIGHT)]),
    ],
    ids=["the first", "the last", "normalised as to_tensor", "other spellings", "some together", "one step"],
)
def test_stages_that_are_not_shown_are_excused_by_the_final_tensor(function: Any) -> None:
    found = compared(function)
    assert found.status == "exact", [(each.name, each.status) for each in found.stages]
    assert wrong(found) == []


def test_stages_in_another_order_are_judged_by_the_final_tensor() -> None:
    found = compared([CROP, RESIZE, SCALE, NORMALISE])
    assert found.status == "differs"
    assert any("order of stages is decode, crop, resize" in note for note in found.notes)


def test_a_jpeg_that_is_decoded_otherwise_is_named_at_decoding_alone() -> None:
    def lossy(path: Path) -> Image.Image:
        stream = io.BytesIO()
        Image.open(path).convert("RGB").save(stream, "JPEG", quality=90)
        return Image.open(stream).convert("RGB")

    found = compared(in_stages(lossy), PHOTOGRAPHS[1:])
    assert wrong(found) == ["decode"]
    assert found.cause is not None
    assert found.cause.code == "decode-lossy"
    plain = compared(in_stages(lambda path: Image.open(path).convert("RGB")))
    assert plain.status == "exact"


@pytest.mark.parametrize("seen", [True, False])
def test_orientation_that_is_ignored_is_named(tmp_path: Path, seen: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(PHOTOGRAPHS[1]).save(tmp_path / "a.jpg", exif=exif)
    function = in_stages(lambda path: Image.open(path).convert("RGB"))

    def last(path: Path) -> Any:
        return function(path)["normalise"]

    found = compared(function if seen else last, [tmp_path / "a.jpg"])
    assert wrong(found) == (["decode"] if seen else [])
    assert found.cause is not None
    assert (found.cause.code, found.cause.confirmed) == ("decode-orientation", True)


def test_transforms_that_draw_are_given_the_same_seed() -> None:
    steps = [
        T.RandomCrop(32, padding=4),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ]
    found = compared(steps, PHOTOGRAPHS * 3, "cifar-train", None)
    assert found.status == "exact"
    pad = next(each for each in found.stages if each.name == "pad")
    assert (pad.reason, pad.exact) == ("done together with crop", 6)


def test_other_draws_are_compared_with_their_own_parameters() -> None:
    def columns_first(image: Image.Image) -> Image.Image:
        padded = functional.pad(image, [4] * 4)
        left = int(torch.randint(0, padded.width - 31, (1,)))
        top = int(torch.randint(0, padded.height - 31, (1,)))
        made: Image.Image = functional.crop(padded, top, left, 32, 32)
        return made

    rest = [
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ]
    found = compared(
        [T.Pad(4), Named("crop", lambda p: columns_first(p.crop((4, 4, p.width - 4, p.height - 4)))), *rest],
        name="cifar-train",
        size=None,
    )
    assert found.status == "rounding", [(each.name, each.status, each.cause) for each in found.stages]
    assert next(each for each in found.stages if each.name == "crop").drawn_alike is False
    assert "the same seed draws other parameters" in found.notes[0]


def test_random_states_are_left_as_they_were() -> None:
    before = torch.get_rng_state(), random.getstate()
    compared([T.RandomCrop(32, padding=4), T.ToTensor()], PHOTOGRAPHS[:1], "cifar-train", None)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda image: 1 / 0, "fails on chelsea.png: ZeroDivisionError"),
        (lambda image: "a tensor", "a str is no picture"),
        (lambda image: {}, "empty dict"),
        (lambda image: [], "returned no picture"),
    ],
)
def test_a_preprocessing_that_fails_is_told(function: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        compared(function, PHOTOGRAPHS[:1])


def test_a_preprocessing_is_named_as_a_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prep.py").write_text(
        "from torchvision import transforms as T\n"
        "STEPS = [T.Resize(73), T.CenterCrop(64), T.ToTensor()]\n"
        "def build():\n    return T.Compose(STEPS)\n"
        "def prepare(image):\n    return build()(image)\n"
        "def broken():\n    raise ValueError('no such size')\n"
        "NUMBER = 3\n",
        encoding="utf-8",
    )
    chosen = recipe("classification", SIZE)
    assert len(named("prep.py:STEPS", chosen).steps) == len(named("prep.py:build", chosen).steps) == 3
    assert named("prep.py:prepare", chosen).steps == []
    for spec, said in (
        ("prep.py", "expected path/to/file.py:callable"),
        ("prep.py:prepar", "did you mean 'prepare'"),
        ("prep.py:broken", "ValueError: no such size"),
        ("prep.py:NUMBER", "which is no preprocessing"),
        ("other.py:prepare", "does not exist"),
    ):
        with pytest.raises(SourceError, match=said):
            named(spec, chosen)
