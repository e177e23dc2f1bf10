from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from reports import data_set, facts, html, markdown, sentences, terminal
from tests import samples
from verifier.records import Flip, SampleErrors

if TYPE_CHECKING:
    from verifier.records import OutputAgreement
    from verifier.storage.saving import Verification

ERRORS = SampleErrors(
    samples=5000, quantiles=((0.5, 1e-7), (0.99, 4e-7)), largest=0.02, worst=41, name="0041.jpg"
)


def streamed(output: OutputAgreement) -> Verification:
    found = samples.verification(output=output)
    info = msgspec.structs.replace(found.inputs, samples=5000, files=())
    return msgspec.structs.replace(found, inputs=info)


def flip(sample: int, margin: float) -> Flip:
    return Flip(sample=sample, margin=margin, error=1.0, baseline=3, candidate=7, name=f"{sample:04}.jpg")


def test_of_a_data_set_the_spread_of_the_error_is_told_and_the_sample(scores: OutputAgreement) -> None:
    found = streamed(msgspec.structs.replace(scores, sample_errors=ERRORS))
    said = "1e-07 (50 %), 4e-07 (99 %); worst 0041.jpg, 0.02"
    assert said in terminal.plain(found)
    assert "worst 0041.jpg" in markdown.summary(found)
    assert said in dict(facts.agreement(found.output or scores))["per sample"]


def test_the_samples_that_flip_are_named_and_the_others_counted(scores: OutputAgreement) -> None:
    output = msgspec.structs.replace(
        scores, flipped=9, flips=tuple(flip(k, 1 / (k + 1)) for k in range(7)), sample_errors=ERRORS
    )
    said = data_set.flips(output)
    assert said.startswith("9 samples with another highest class: 0000.jpg from 3 to 7, margin 1; 0001.jpg")
    assert said.endswith("; and 4 more")
    assert said in terminal.plain(streamed(output))


def test_where_all_samples_are_equal_that_is_all_there_is_to_say(scores: OutputAgreement) -> None:
    equal = msgspec.structs.replace(ERRORS, largest=0.0, quantiles=((0.5, 0.0),))
    output = msgspec.structs.replace(scores, sample_errors=equal)
    assert data_set.lines(streamed(output)) == ("the output of all 5,000 samples is equal",)


def test_of_samples_that_were_held_nothing_is_said_of_single_ones(scores: OutputAgreement) -> None:
    output = msgspec.structs.replace(scores, sample_errors=ERRORS, flipped=1, flips=(flip(0, 1.0),))
    assert data_set.lines(samples.verification(output=output)) == ()


def test_the_first_divergence_names_the_sample(diverged: Verification) -> None:
    first = diverged.first_divergence
    assert first is not None
    named = msgspec.structs.replace(first, sample="0041.jpg")
    assert sentences.divergence(named).endswith(" in 0041.jpg")
    assert "sample" not in sentences.divergence(first)


def test_a_first_divergence_that_was_told_of_a_few_samples_says_so(diverged: Verification) -> None:
    assert data_set.few(diverged) == ""
    for samples_, said in ((5000, True), (diverged.deciding_cell.batch_size, False)):
        info = msgspec.structs.replace(diverged.inputs, samples=samples_)
        found = msgspec.structs.replace(diverged, inputs=info)
        cell = found.deciding_cell
        few = f"First divergence, told of {cell.batch_size} of 5,000 samples ({cell.name})"
        assert (few in terminal.plain(found)) is said
        assert (few in html.render(found)) is said
        assert (few.replace("_", "\\_") in markdown.summary(found)) is said
