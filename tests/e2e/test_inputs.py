"""What can go into both models: photographs, files, weights, dtypes, seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.e2e.conftest import TWINS
from verifier.cli.planning import plan_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

PHOTOGRAPHS = 5


def totals(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (cell["name"], layer["baseline"], layer["total"])
        for cell in result["cells"]
        for layer in cell["layers"]
    ]


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="the samples come with scikit-image")
def test_sample_photographs_go_through_both_models(compare: Callable[..., Ended]) -> None:
    ended = compare("--images", "samples")

    assert ended.code == 0, ended.err
    inputs = ended.result()["inputs"]
    assert "chelsea.png" in inputs["files"]
    assert inputs["shapes"] == [[len(inputs["files"]), 3, 64, 64]]


def test_a_directory_of_photographs_of_every_kind_goes_through_in_batches(
    compare: Callable[..., Ended], place: Path
) -> None:
    (place / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number, (kind, mode) in enumerate(
        [("jpg", "RGB"), ("png", "RGBA"), ("webp", "RGB"), ("jpeg", "L"), ("PNG", "P")]
    ):
        pixels = generator.integers(0, 256, (80 + 10 * number, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(place / "photos" / f"{number}.{kind}")
    (place / "photos" / "notes.txt").write_text("not a photograph", encoding="utf-8")

    ended = compare("--images", "photos", "--batch-size", "2")

    assert ended.code == 0, ended.err
    result = ended.result()
    assert result["inputs"]["files"] == ["0.jpg", "1.png", "2.webp", "3.jpeg", "4.PNG"]
    numerics = next(cell for cell in result["cells"] if cell["role"] == "numerics")
    assert numerics["batch_size"] == PHOTOGRAPHS


def test_the_size_of_a_batch_changes_no_verdict(compare: Callable[..., Ended], place: Path) -> None:
    np.save(place / "x.npy", np.random.default_rng(0).standard_normal((5, 3, 64, 64)).astype(np.float32))
    given = ("--baseline", "nets.py:net", "--candidate", "nets.py:other_eps", "--input", "x.npy")

    whole = compare(*given, "--batch-size", "5").result()
    parts = compare(*given, "--batch-size", "2").result()

    assert whole["culprits"][0]["baseline"] == parts["culprits"][0]["baseline"] == "bn2"
    for one, two in zip(whole["cells"][1]["layers"], parts["cells"][1]["layers"], strict=True):
        assert one["total"]["mse"] == pytest.approx(two["total"]["mse"], rel=1e-3, abs=1e-13)


@pytest.mark.parametrize("kind", ["npy", "pt", "safetensors"])
def test_a_file_of_tensors_goes_through_both_models(
    compare: Callable[..., Ended], place: Path, kind: str
) -> None:
    x = torch.randn(3, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    if kind == "npy":
        np.save(place / "x.npy", x.numpy())
    elif kind == "pt":
        torch.save(x, place / "x.pt")
    else:
        save_file({"x": x}, place / "x.safetensors")

    ended = compare("--input", f"x.{kind}")

    assert ended.code == 0, ended.err
    inputs = ended.result()["inputs"]
    assert inputs["shapes"] == [[3, 3, 40, 48]]
    assert inputs["files"] == [f"x.{kind}"]


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_both_models_compute_with_the_weights_of_a_file(
    compare: Callable[..., Ended], place: Path, kind: str
) -> None:
    spec = importlib.util.spec_from_file_location("nets_of_the_test", place / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    state = {name: tensor.clone() for name, tensor in nets.net().state_dict().items()}
    state["fc.bias"].fill_(float("nan"))  # a mark that shows in the results
    if kind == "pt":
        torch.save(state, place / "trained.pt")
    else:
        save_file(state, place / "trained.safetensors")

    ended = compare("--weights", f"trained.{kind}")

    result = ended.result()
    assert (result["weights"]["mode"], result["weights"]["source"]) == ("file", f"trained.{kind}")
    last = result["cells"][-1]["layers"][-1]["total"]
    assert last["nonfinite_baseline"] == last["nonfinite_candidate"] == 2 * 10


def test_an_input_of_nothing_but_nan_is_no_ground_for_a_match(
    compare: Callable[..., Ended], place: Path
) -> None:
    np.save(place / "nan.npy", np.full((2, 3, 64, 64), np.nan, np.float32))

    ended = compare("--baseline", "nets.py:net", "--candidate", "nets.py:other_eps", "--input", "nan.npy")

    assert ended.code == 4, ended.out + ended.err


def test_every_dtype_asked_for_has_a_cell(compare: Callable[..., Ended]) -> None:
    ended = compare("--dtype", "float32,bfloat16", "--no-semantics")

    assert ended.code == 0, ended.err
    assert [cell["name"] for cell in ended.result()["cells"]] == ["cpu/float32", "cpu/bfloat16"]


def test_two_runs_with_one_seed_give_the_same_numbers_and_another_seed_others(
    compare: Callable[..., Ended],
) -> None:
    given = ("--baseline", "nets.py:net", "--candidate", "nets.py:other_eps")

    first, second, other = (
        totals(compare(*given, "--seed", seed, env=env).result())
        for seed, env in (("3", {"PYTHONHASHSEED": "1"}), ("3", None), ("4", None))
    )

    assert first == second
    assert first != other


PREPARATIONS = """
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

LAST = [T.CenterCrop(64), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]


def right(image):
    return T.Compose([T.Resize(73), *LAST])(image)


def bicubic():
    return T.Compose([T.Resize(73, InterpolationMode.BICUBIC), *LAST])


def channels_last(image):
    return right(image).permute(1, 2, 0)


def failing(image):
    raise ValueError("no such size")
"""


@pytest.fixture
def photos(place: Path) -> Path:
    """A directory with two photographs, and ways to prepare them."""
    (place / "prep.py").write_text(PREPARATIONS, encoding="utf-8")
    (place / "photos").mkdir()
    y, x = np.mgrid[0:120, 0:160]
    for number in range(2):
        pixels = 128 + 90 * np.sin(x / (3 + number)) * np.cos(y / 4) + 10 * (x % 7)
        picture = np.stack([pixels, pixels.T.reshape(120, 160), 255 - pixels], axis=2)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(place / "photos" / f"{number}.png")
    return place


def test_how_photographs_are_prepared_is_compared_first(compare: Callable[..., Ended], photos: Path) -> None:
    assert compare("--images", "photos").result()["preprocessing"] is None
    ended = compare("--images", "photos", "--candidate-preprocessing", "reference", "-v")

    assert ended.code == 0, ended.err
    found = ended.result()["preprocessing"]
    assert (found["status"], found["candidate"], found["applied"]) == ("exact", "", False)
    assert [(each["name"], each["status"], each["exact"]) for each in found["stages"]] == [
        (name, "exact", 2) for name in ("decode", "resize", "crop", "scale", "normalise")
    ]
    assert (
        "all stages (decode, resize, crop, scale, normalise) are equal bit for bit on 2 photographs"
        in ended.out
    )


def test_a_candidate_that_prepares_photographs_otherwise_diverges_at_that_stage(
    compare: Callable[..., Ended], photos: Path
) -> None:
    ended = compare("--images", "photos", "--candidate-preprocessing", "prep.py:bicubic")

    assert ended.code == 1, ended.err
    result = ended.result()
    found = result["preprocessing"]
    assert (found["status"], found["first_difference"], found["applied"]) == ("differs", "resize", True)
    assert [each["status"] for each in found["stages"]] == [
        "given",
        "differs",
        "carries",
        "carries",
        "carries",
    ]
    assert found["cause"]["code"] == "resize-kernel"
    assert result["first_divergence"]["op"] == "input"
    assert ended.out.startswith("diverged: prep.py:bicubic prepares photographs otherwise, first in resize: ")
    assert "confirmed, resize-kernel" in ended.out


def test_this_packages_preprocessing_is_compared_where_its_models_are_the_candidates() -> None:
    def planned(arch: str | None, baseline: str | None, candidate: str | None) -> bool:
        (job,) = plan_jobs(
            arch, baseline, candidate, image_size=None, batch_size=None, policy=None, out=Path("out")
        )
        return job.reference

    assert planned("resnet18", None, None)
    assert planned("resnet18", "nets.py:other", None)
    assert not planned("resnet18", None, "nets.py:other")
    assert not planned(None, "torchvision:resnet18", "reference:resnet18")


def test_preprocessing_alone_is_compared_by_its_own_command(call: Callable[..., Ended], photos: Path) -> None:
    given = ("preprocess", "--images", "photos", "--image-size", "64", "--candidate-preprocessing")

    same = call(*given, "prep.py:right")
    other = call(*given, "prep.py:bicubic", "--out", "DIR")

    assert (same.code, same.new) == (0, frozenset())
    assert same.out.startswith("match: the final tensors are equal bit for bit on 2 photographs")
    assert other.code == 1, other.err
    assert other.new == {"DIR/preprocessing.json", "DIR/preprocessing.html"}


def test_a_preprocessing_that_cannot_be_used_is_refused(compare: Callable[..., Ended], photos: Path) -> None:
    given = ("--images", "photos", "--candidate-preprocessing")

    assert "give --images too" in compare("--candidate-preprocessing", "prep.py:right").refusal(2)
    assert "did you mean 'right'" in compare(*given, "prep.py:rigth").refusal(2)
    assert "fails on 0.png: ValueError: no such size" in compare(*given, "prep.py:failing").refusal(3)
    message = compare(*given, "prep.py:channels_last").refusal(3)
    assert "photographs were prepared otherwise" in message


def test_several_scales_are_compared_site_by_site_and_their_mean_is_the_output(
    call: Callable[..., Ended],
) -> None:
    ended = call("run", *TWINS, "--test-scales", "32,48", "--batch-size", "2")
    assert ended.code == 0, ended.err
    found = ended.result()
    assert found["inputs"]["shapes"] == [[2, 3, 32, 32], [2, 3, 48, 48]]
    sites = [row["baseline"] for row in found["cells"][0]["layers"]]
    assert {"conv1", "conv1_1"} <= set(sites)
    refused = call("run", *TWINS, "--test-scales", "32,48", "--input", "anything.npy").refusal(2)
    assert "--test-scales is for photographs and random pictures; --input has sizes of its own" in refused
