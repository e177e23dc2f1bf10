"""What quantisation costs is told on the terminal, on the page and in a pull request's summary."""

from __future__ import annotations

from reports import markdown, quantisation, terminal
from tests.samples import diverged, quantised


def test_layers_stand_in_the_order_of_what_they_cost() -> None:
    (*_, layers) = quantisation.sections(quantised())
    assert layers.rows == (
        ("node_conv_1", "conv1", "62.5 %", "41.2 dB", "38.0 dB", "0 %", "99.2 %", "0.25 %", "keep in float"),
        ("node_pool", "pool", "0 %", "exact", "38.0 dB", "", "", "0.25 %", ""),
        ("node_fc", "fc", "-3 %", "41.2 dB", "38.0 dB", "0 %", "99.2 %", "0.25 %", ""),
    )


def test_few_layers_are_listed_where_there_is_little_room() -> None:
    (*_, layers) = quantisation.sections(quantised(), 1)
    assert [row[0] for row in layers.rows] == ["node_conv_1", "and 2 more"]


def test_names_to_keep_in_float_can_be_pasted_and_the_samples_are_told_to_be_few() -> None:
    said = terminal.plain(quantised())
    assert "nodes_to_exclude: 'node_conv_1'" in said
    assert "0.1%: met with 1 layer in float" in said
    assert "0.001 of 8 samples is less than one" in said


def test_a_wrong_quantiser_is_told_with_what_tells_it() -> None:
    said = markdown.summary(quantised())
    assert "| fc | the scale of fc.weight is 2 times the one that its codes were made with |" in said
    assert f"**{quantisation.TITLE}**" in said


def test_nothing_is_told_of_what_is_not_quantised() -> None:
    assert quantisation.sections(diverged()) == []
