"""What is registered about the networks is what is counted; published figures are compared with it."""

from __future__ import annotations

import functools
import re

import pytest
import torchvision

import reference_models
from reference_models.published import QUANTITIES, Figure, figures
from tests.sweeps import swept
from verifier.models.sizes import Size, measure

# Counting the networks of 1,202 layers takes as long as counting all others.
COUNTED = [name for name in reference_models.list() if "1202" not in name]
LONG = re.compile(r"\d{3}|wide|resnext|cifar_resnet(44|56)")  # to count: what is deep or wide


@functools.cache
def counted(name: str) -> Size:
    return measure(reference_models.get(name))


@pytest.mark.parametrize("name", swept(COUNTED, lambda name: not LONG.search(name)))
def test_size_cost_depth_and_sites_are_the_registered_ones(name: str) -> None:
    entry, size = reference_models.get(name), counted(name)

    assert (size.parameters, size.depth, size.sites) == (entry.parameters, entry.depth, entry.sites)
    assert entry.gflops == pytest.approx(size.gflops, abs=0.00051)


def test_every_figure_is_of_a_network_that_is_there_and_of_a_known_quantity() -> None:
    assert {figure.network for figure in figures()} <= set(reference_models.list())
    assert {figure.quantity for figure in figures()} <= set(QUANTITIES)
    assert all(figure.source for figure in figures())


DIFFERING = {
    ("cifar_resnet110_b", "parameters", "1"),  # "less than a million"
    ("resnet50", "gflops", "3.8"),  # the paper strides elsewhere
    ("resnet101", "gflops", "7.6"),
    ("resnet152", "gflops", "11.3"),
    ("resnet152", "gflops", "11.6"),  # an article; 11.5 is counted
    ("se_resnet50", "gflops", "3.87"),
    ("small_resnet18", "depth", "18"),
}


@pytest.mark.parametrize("long", swept([False, True], [False]))
def test_the_figures_that_do_not_hold_are_known(long: bool) -> None:
    names = {name for name in COUNTED if bool(LONG.search(name)) is long}

    def measured(figure: Figure) -> float | None:
        return getattr(counted(figure.network), figure.quantity, None)

    differing = {
        (figure.network, figure.quantity, figure.value)
        for figure in figures()
        if figure.network in names and (value := measured(figure)) is not None and not figure.agrees(value)
    }

    assert differing == {each for each in DIFFERING if each[0] in names}
    assert differing


@pytest.mark.parametrize("figure", [f for f in figures() if f.source.startswith("torchvision")], ids=str)
def test_torchvisions_figures_are_those_its_weights_come_with(figure: Figure) -> None:
    meta = torchvision.models.get_model_weights(figure.network).IMAGENET1K_V1.meta
    theirs = meta["_ops"] if figure.quantity == "gflops" else meta["_metrics"]["ImageNet-1K"]["acc@1"]

    assert float(figure.value) == theirs


@pytest.mark.parametrize(
    ("quantity", "value", "measured", "agrees"),
    [
        ("gflops", "3.8", 3.858, True),  # cut off
        ("gflops", "3.9", 3.858, True),  # rounded
        ("gflops", "3.7", 3.858, False),
        ("gflops", "11.6", 11.514, False),
        ("parameters", "0.27", 269_722, True),
        ("parameters", "0.28", 269_722, False),
        ("parameters", "1234885", 1_234_885, True),
        ("parameters", "1234885", 1_234_886, False),
    ],
)
def test_a_figure_agrees_with_what_gives_its_digits(
    quantity: str, value: str, measured: float, agrees: bool
) -> None:
    assert Figure("any", quantity, value, "somebody").agrees(measured) is agrees
