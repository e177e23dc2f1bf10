from __future__ import annotations

import dataclasses

import pytest
from torch import nn

import reference_models
from reference_models import registry


@pytest.fixture
def scratch_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def test_the_public_names_are_sorted_and_exact() -> None:
    public = {
        name
        for name, value in vars(reference_models).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("reference_models.")
    }

    assert reference_models.__all__ == sorted(public)


def test_the_listing_is_sorted_and_holds_the_whole_catalogue() -> None:
    assert reference_models.list() == [
        *[f"cifar_resnet{depth}{option}" for depth in (110, 1202, 20, 32, 44, 56) for option in ("", "_b")],
        "resnet101",
        "resnet152",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet50_v1",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "resnext50_32x4d",
        "wide_resnet101_2",
        "wide_resnet50_2",
    ]


def test_changing_a_listing_does_not_change_the_registry() -> None:
    reference_models.list().clear()

    assert "resnet50" in reference_models.list()


def test_calling_an_entry_builds_a_new_model_with_the_options_given() -> None:
    entry = reference_models.get("resnet18")

    first, second = entry(num_classes=7), entry(num_classes=7)

    assert isinstance(first, reference_models.ResNet)
    assert first.head.out_features == 7
    assert first is not second


def test_an_entry_names_its_trusted_twin_or_says_that_there_is_none() -> None:
    assert reference_models.get("resnet50").baseline == "torchvision:resnet50"
    assert reference_models.get("resnet50_v1").baseline is None


def test_an_entry_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference_models.get("resnet50").depth = 51  # type: ignore[misc]


@pytest.mark.usefixtures("scratch_registry")
def test_a_registered_builder_is_found_under_its_own_name_and_stays_callable() -> None:
    @reference_models.register(family="toy", depth=1)
    def toy_net() -> nn.Module:
        return nn.Identity()

    assert isinstance(toy_net(), nn.Identity)
    assert reference_models.get("toy_net").build is toy_net
    assert reference_models.get("toy_net").family == "toy"
    assert reference_models.list()[-3:] == ["toy_net", "wide_resnet101_2", "wide_resnet50_2"]


@pytest.mark.usefixtures("scratch_registry")
def test_a_name_cannot_be_registered_twice() -> None:
    before = reference_models.get("resnet50")

    def resnet50() -> nn.Module:
        return nn.Identity()

    with pytest.raises(reference_models.DuplicateModelError, match=r"'resnet50'.*reference_models\.resnet"):
        reference_models.register(family="toy", depth=1)(resnet50)
    assert reference_models.get("resnet50") is before


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("resnet51", "resnet50"),
        ("ResNet50", "resnet50"),
        ("resnet-18", "resnet18"),
        ("resnext50", "resnext50_32x4d"),
        ("wide_resnet50", "wide_resnet50_2"),
    ],
)
def test_an_unknown_name_suggests_its_neighbours(asked: str, meant: str) -> None:
    with pytest.raises(reference_models.UnknownModelError) as caught:
        reference_models.get(asked)

    assert caught.value.name == asked
    assert meant in caught.value.suggestions
    assert repr(asked) in str(caught.value)
    assert f"Did you mean {caught.value.suggestions[0]}" in str(caught.value)
    assert meant in str(caught.value)


def test_the_nearest_neighbour_comes_first() -> None:
    with pytest.raises(reference_models.UnknownModelError) as caught:
        reference_models.get("resnet51")

    assert caught.value.suggestions[0] == "resnet50"


@pytest.mark.parametrize("asked", ["transformer", ""])
def test_a_name_without_neighbours_is_answered_with_all_that_are_known(asked: str) -> None:
    with pytest.raises(LookupError, match="resnet50_v1") as caught:
        reference_models.get(asked)

    assert isinstance(caught.value, reference_models.UnknownModelError)
    assert caught.value.suggestions == ()
