from __future__ import annotations

import importlib.util
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from verifier import inputs
from verifier.errors import InputError
from verifier.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Callable


def photograph(size: tuple[int, int] = (80, 60), mode: str = "RGB") -> Image.Image:
    """A smooth picture with a direction: it looks different turned or mirrored."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)).convert(mode)


def preprocessed(picture: Image.Image) -> torch.Tensor:
    """By torchvision, for crops of 32 pixels."""
    from torchvision.transforms._presets import ImageClassification

    made: torch.Tensor = ImageClassification(crop_size=32, resize_size=37)(picture)
    return made


def complaint(make: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


# --- random numbers


def test_normal_numbers_are_batches_of_float32_images() -> None:
    made = inputs.normal(2, 48, seed=0)
    (images,) = made.args
    assert images.shape == (2, 3, 48, 48)
    assert images.dtype is torch.float32
    assert made.kwargs == {}
    assert made.info.shapes == ((2, 3, 48, 48),)
    assert made.info.dtypes == ("float32",)
    assert made.info.description == "standard normal numbers, seed 0, 2 x 3 x 48 x 48"
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05


def test_the_seed_decides_normal_numbers_and_nothing_global_is_drawn_or_read() -> None:
    state = torch.get_rng_state()
    first = inputs.normal(1, 32, seed=1).args[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(inputs.normal(1, 32, seed=1).args[0], first)
    assert not torch.equal(inputs.normal(1, 32, seed=2).args[0], first)


def test_normal_numbers_ignore_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert inputs.normal(1, 32, seed=0).args[0].dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_empty_batch_is_refused(batch_size: int, tmp_path: Path) -> None:
    assert "batch size must be at least 1" in complaint(lambda: inputs.normal(batch_size, 64, seed=0))
    assert "batch size must be at least 1" in complaint(lambda: inputs.images(tmp_path, batch_size, 64))


@pytest.mark.parametrize(("value", "size"), [("small", 64), ("224", 224), (32, 32), (" 96 ", 96)])
def test_image_sizes_are_pixels_or_small(value: int | str, size: int) -> None:
    assert inputs.parse_image_size(value) == size


@pytest.mark.parametrize("value", ["tiny", "", "31", 0, -224, "22.4"])
def test_other_image_sizes_are_refused(value: int | str) -> None:
    assert f"not {value!r}" in complaint(lambda: inputs.parse_image_size(value))


# --- photographs


@pytest.mark.parametrize("image_size", [224, 64, 97])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (64, 64), (501, 333)])
def test_photographs_are_preprocessed_as_torchvision_does(
    tmp_path: Path, image_size: int, shape: tuple[int, int]
) -> None:
    from torchvision.transforms._presets import ImageClassification

    photograph(shape).save(tmp_path / "a.png")
    made = inputs.images(tmp_path, None, image_size).args[0]
    preset = ImageClassification(crop_size=image_size, resize_size=round(image_size * 8 / 7))
    assert torch.equal(made, preset(photograph(shape)).unsqueeze(0))


def test_photographs_come_in_the_order_of_their_names_whatever_the_case_of_their_endings(
    tmp_path: Path,
) -> None:
    for name in ("b.JPG", "a.jpeg", "d.WebP", "c.Png"):
        photograph().save(tmp_path / name, format={"p": "PNG", "w": "WEBP"}.get(name[2].lower(), "JPEG"))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._a.jpg").write_text("what macOS leaves")
    (tmp_path / "folder.png").mkdir()
    made = inputs.images(tmp_path, None, 32)
    assert made.info.files == ("a.jpeg", "b.JPG", "c.Png", "d.WebP")
    assert made.info.shapes == ((4, 3, 32, 32),)
    assert made.args[0].dtype is torch.float32
    assert inputs.images(tmp_path, 2, 32).info.files == ("a.jpeg", "b.JPG")
    assert inputs.images(tmp_path, 9, 32).info.shapes == ((4, 3, 32, 32),)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(photograph(mode="L")).astype(np.uint16) * 257)
    else:
        picture = photograph(mode="L").convert(mode) if mode == "LA" else photograph(mode=mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    made = inputs.images(tmp_path, None, 32).args[0][0]
    reference = preprocessed(photograph(mode="L" if mode in ("L", "LA", "I;16") else "RGB").convert("RGB"))
    tolerance = {"CMYK": 0.3, "P": 1.0}.get(mode, 0.02)
    assert float((made - reference).abs().max()) < tolerance


def test_a_photograph_taken_upright_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it as it was taken
    photograph().save(tmp_path / "a.png", exif=exif)
    upright = photograph().transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(inputs.images(tmp_path, None, 32).args[0][0], preprocessed(upright))


def test_every_unreadable_photograph_is_told(tmp_path: Path) -> None:
    stream = io.BytesIO()
    photograph((200, 200)).save(stream, "JPEG")
    photograph().save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    (tmp_path / "c.png").write_text("hello")
    (tmp_path / "d.png").write_bytes(b"")
    stream = io.BytesIO()
    photograph((200, 200)).save(stream, "PNG")
    (tmp_path / "e.png").write_bytes(stream.getvalue()[:200])
    message = complaint(lambda: inputs.images(tmp_path, None, 32))
    assert message.startswith(f"4 of 5 images in {tmp_path} cannot be read: b.jpg (")
    assert "truncated" in message
    assert "c.png (not an image)" in message
    assert "d.png" in message
    assert "e.png" in message
    assert "a.jpg" not in message


def test_many_unreadable_photographs_are_counted(tmp_path: Path) -> None:
    for index in range(8):
        (tmp_path / f"{index}.png").write_text("hello")
    assert "8 of 8 images" in complaint(lambda: inputs.images(tmp_path, None, 32))
    assert "4.png (not an image) and 3 more" in complaint(lambda: inputs.images(tmp_path, None, 32))


def test_a_missing_an_empty_and_a_mistaken_directory_are_told(tmp_path: Path) -> None:
    assert "does not exist" in complaint(lambda: inputs.images(tmp_path / "absent", None, 32))
    assert "holds no image" in complaint(lambda: inputs.images(tmp_path, None, 32))
    photograph().save(tmp_path / "a.png")
    assert "is not a directory" in complaint(lambda: inputs.images(tmp_path / "a.png", None, 32))


def test_sample_photographs_come_with_scikit_image() -> None:
    made = inputs.images("samples", None, 64)
    assert made.info.files == inputs.SAMPLES
    assert made.info.shapes == ((len(inputs.SAMPLES), 3, 64, 64),)
    assert "scikit-image" in made.info.description
    assert float(made.args[0].std()) > 0.5


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = complaint(lambda: inputs.images("samples", None, 64))
    assert "pip install scikit-image" in message


# --- files


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=">f8").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.array([np.nan, np.inf], dtype=np.float16),
        np.float64(3.0),
    ],
    ids=["float32", "big-endian", "fortran", "non-finite", "scalar"],
)
def test_a_numpy_file_is_one_positional_argument(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "x.npy", array)
    made = inputs.file(tmp_path / "x.npy")
    np.testing.assert_array_equal(made.args[0].numpy(), array)
    assert made.kwargs == {}
    assert made.info.files == ("x.npy",)


@pytest.mark.parametrize("suffix", ["pt", "pth", "PT"])
def test_a_torch_file_holds_a_tensor_positional_or_keyword_arguments(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    first, second = torch.rand(2, 3, requires_grad=True), torch.arange(2)
    torch.save(first, path)
    assert torch.equal(inputs.file(path).args[0], first)
    assert not inputs.file(path).args[0].requires_grad
    torch.save((first, second), path)
    made = inputs.file(path)
    assert len(made.args) == 2
    assert made.info.shapes == ((2, 3), (2,))
    assert made.info.dtypes == ("float32", "int64")
    torch.save([[first, second]], path)
    assert len(inputs.file(path).args) == 1
    torch.save({"image": first, "mask": {"of": second}}, path)
    made = inputs.file(path)
    assert made.args == ()
    assert torch.equal(made.kwargs["mask"]["of"], second)


def test_a_safetensors_file_holds_one_argument_or_several_named_ones(tmp_path: Path) -> None:
    first, second = torch.rand(2, 3), torch.arange(2)
    save_file({"any.name": first}, tmp_path / "x.safetensors")
    assert torch.equal(inputs.file(tmp_path / "x.safetensors").args[0], first)
    save_file({"image": first, "mask": second}, tmp_path / "x.safetensors")
    made = inputs.file(tmp_path / "x.safetensors")
    assert made.args == ()
    assert torch.equal(made.kwargs["image"], first)


@pytest.mark.parametrize("suffix", ["npy", "pt", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_told(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"x.{suffix}"
    tensor = torch.rand(50, 50)
    if suffix == "npy":
        np.save(path, tensor.numpy())
    elif suffix == "pt":
        torch.save(tensor, path)
    else:
        save_file({"x": tensor}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert str(path) in complaint(lambda: inputs.file(path))


@pytest.mark.parametrize("kind", ["torch", "bare pickle", "legacy zip", "numpy"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / ("x.npy" if kind == "numpy" else "x.pt")
    if kind == "torch":
        torch.save(Bomb(trace), path)
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    elif kind == "legacy zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(trace)))
            archive.writestr("archive/version", "3")
    else:
        np.save(path, np.array([Bomb(trace)], dtype=object), allow_pickle=True)
    assert str(path) in complaint(lambda: inputs.file(path))
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"1.0 2.0 3.0\n", b"", b"\x80\x04N.", b"\x93NUMPX", b"PK"])
def test_what_is_no_array_but_is_called_npy_never_suggests_to_allow_pickles(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.npy").write_bytes(content)

    message = complaint(lambda: inputs.file(tmp_path / "x.npy"))

    assert "x.npy is no .npy file" in message
    assert "pickle" not in message


def test_an_array_of_objects_never_suggests_to_allow_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}, None], dtype=object), allow_pickle=True)

    message = complaint(lambda: inputs.file(tmp_path / "x.npy"))

    assert "holds Python objects" in message
    assert "pickle" not in message


@pytest.mark.parametrize(("batch", "size"), [(10**30, 32), (8, 99_999_999_999), (10**6, 10**7)])
def test_random_images_beyond_all_memory_are_told_before_any_is_made(batch: int, size: int) -> None:
    assert "more than a computer can address" in complaint(lambda: inputs.normal(batch, size, 0))


def _bitmap(file: Path, width: int, height: int) -> None:
    """A PNG that says it is large, and has no picture in it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_001), (10_000, 9_000), (60_000, 60_000)])
def test_photographs_beyond_fifty_megapixels_are_told_before_any_is_decoded(
    tmp_path: Path, width: int, height: int
) -> None:
    _bitmap(tmp_path / "vast.png", width, height)
    Image.new("RGB", (64, 64)).save(tmp_path / "first.png")

    message = complaint(lambda: inputs.images(tmp_path, None, 64))

    assert "1 of 2 images" in message
    assert f"vast.png ({width * height / 1e6:.0f})" in message
    assert "50 megapixels" in message


def test_photographs_are_not_prepared_in_more_pixels_than_they_may_have(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "first.png")

    assert "use a smaller --image-size" in complaint(lambda: inputs.images(tmp_path, None, 100_000))


def test_other_files_are_told(tmp_path: Path) -> None:
    assert "has none of the endings .npy, .pt" in complaint(lambda: inputs.file(tmp_path / "x.png"))
    assert "does not exist" in complaint(lambda: inputs.file(tmp_path / "x.npy"))
    (tmp_path / "y.npy").mkdir()
    assert "is a directory" in complaint(lambda: inputs.file(tmp_path / "y.npy"))
    np.savez(tmp_path / "z.npz", a=np.zeros(2))
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    assert "is an archive of arrays" in complaint(lambda: inputs.file(tmp_path / "z.npy"))
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    assert "which torch has no type for" in complaint(lambda: inputs.file(tmp_path / "s.npy"))


def test_a_file_with_anything_but_tensors_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"image": torch.zeros(2), "scale": 2.0}, path)
    assert "holds a float scale" in complaint(lambda: inputs.file(path))
    torch.save(3, path)
    assert "a int cannot be given to a model" in complaint(lambda: inputs.file(path))
    torch.save({"layer1.0.weight": torch.zeros(2)}, path)
    assert "'layer1.0.weight' cannot be the name" in complaint(lambda: inputs.file(path))
    torch.save({3: torch.zeros(2)}, path)
    assert "3 cannot be the name" in complaint(lambda: inputs.file(path))


# --- live tensors


def test_live_tensors_are_used_where_they_lie() -> None:
    first, second = torch.rand(2, 3), torch.arange(2)
    assert inputs.tensors(first).args[0] is first
    made = inputs.tensors((first, {"boxes": [second]}, None, 3))
    assert made.args[1]["boxes"][0] is second
    assert made.info.shapes == ((2, 3), (2,))
    made = inputs.tensors({"image": first, "flag": True})
    assert made.args == ()
    assert made.kwargs["image"] is first
    assert inputs.tensors(made) is made


def test_inputs_without_data_are_refused() -> None:
    assert "there is no tensor" in complaint(lambda: inputs.tensors(()))
    assert "there is no tensor" in complaint(lambda: inputs.tensors((1, None)))
    assert "[0] has no elements (shape (0, 3))" in complaint(lambda: inputs.tensors(torch.zeros(0, 3)))
    assert "[1]['a'] lies on the meta device" in complaint(
        lambda: inputs.tensors((torch.zeros(1), {"a": torch.zeros(1, device="meta")}))
    )
    assert "a ndarray cannot be given" in complaint(lambda: inputs.tensors(np.zeros(3)))


def test_non_finite_inputs_are_allowed() -> None:
    assert isinstance(inputs.tensors(torch.tensor([float("nan"), float("inf")])), Inputs)
