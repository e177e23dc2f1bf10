from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from reference_models.preprocessing import resize
from verifier.preprocessing import resampling
from verifier.preprocessing.resampling import resize_exactly, shorter_to


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_bytes_are_resized_to_the_very_bytes_pillow_makes() -> None:
    sizes = np.random.default_rng(1).integers(1, 120, (150, 4)).tolist()
    sizes += [[1, 1, 1, 1], [200, 90, 100, 45], [90, 200, 45, 100], [64, 64, 37, 91], [71, 24, 66, 22]]
    for number, (height, width, new_height, new_width) in enumerate(sizes):
        picture = noise(height, width, number)
        expected = Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resize(picture, new_height, new_width), np.asarray(expected))


@pytest.mark.parametrize("size", [(20, 30), (90, 33), (60, 200)])
def test_exact_resizing_is_torchs_in_float64(size: tuple[int, int]) -> None:
    picture = noise(60, 80).astype(np.float64)
    tensor = torch.from_numpy(picture.transpose(2, 0, 1))[None]
    expected = torch.nn.functional.interpolate(
        tensor, size=size, mode="bilinear", antialias=True, align_corners=False
    )[0]
    made = resize_exactly(picture, *size)
    np.testing.assert_allclose(made.transpose(2, 0, 1), expected.numpy(), atol=1e-9)


def test_rounding_to_bytes_twice_moves_a_pixel_by_less_than_two_steps() -> None:
    picture = noise(60, 80)
    gap = np.abs(resize(picture, 31, 42) - resize_exactly(picture.astype(np.float64), 31, 42))
    assert 0.2 < np.sqrt(np.mean(gap**2)) < 0.45
    assert gap.max() < 2


def test_the_shorter_side_is_the_one_torchvision_takes() -> None:
    from torchvision.transforms.functional import _compute_resized_output_size

    for height, width in [(300, 200), (200, 300), (64, 64), (501, 333), (1, 999), (7, 5)]:
        for size in (256, 73, 1):
            assert list(shorter_to(size, height, width)) == _compute_resized_output_size(
                (height, width), [size]
            )


def test_256_belongs_to_224() -> None:
    assert [resampling.whole_steps(size) for size in (224, 64, 32, 97)] == [256, 73, 37, 111]
