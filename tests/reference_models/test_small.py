"""The claims of the article about its own five-class network, on the network as it defines it."""

from __future__ import annotations

import pytest
import torch

import reference_models
from reference_models.small import SmallBlock


def test_the_article_is_right_about_the_parameters() -> None:
    model = reference_models.get("small_resnet18")()

    assert sum(parameter.numel() for parameter in model.parameters()) == 1_234_885


def test_the_article_is_right_about_the_shape_of_its_example_block() -> None:
    with torch.device("meta"):
        assert SmallBlock(64, 128)(torch.empty(2, 64, 224, 224)).shape == (2, 128, 224, 224)


def test_the_article_is_right_about_the_shape_of_the_output() -> None:
    model = reference_models.get("small_resnet18")().eval()

    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 5)


def test_the_shortcut_does_not_adjust_a_stride_without_other_channels() -> None:
    """The article says that the shortcut is the input itself where channels stay, of whatever stride: that fails."""
    with torch.device("meta"), pytest.raises(RuntimeError, match=r"(must match the size|broadcast)"):
        SmallBlock(64, 64, stride=2)(torch.empty(2, 64, 8, 8))


@pytest.mark.parametrize(("size", "fits"), [(218, False), (219, True), (326, True), (327, False)])
def test_only_images_that_end_at_three_by_three_positions_fit(size: int, fits: bool) -> None:
    with torch.device("meta"):
        model = reference_models.get("small_resnet18")().eval()
        images = torch.empty(1, 3, size, size)
        if fits:
            assert model(images).shape == (1, 5)
        else:
            with pytest.raises(RuntimeError, match=r"(cannot be multiplied|reduction dim)"):
                model(images)
