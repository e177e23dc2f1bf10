"""The ladder shows which kernel of each stage makes which of the baseline's sites."""

from __future__ import annotations

import msgspec

from reports import html, ladder, markdown
from tests.samples import deployed, diverged
from verifier.records import CertificateInfo, StageKernel


def test_stages_are_columns_and_the_baselines_sites_rows() -> None:
    (section,) = ladder.sections(deployed())
    assert section.header == ("site", "one by one", "basic, float32", "extended, float32")
    baseline = [row.baseline for row in deployed().layers if row.baseline]
    assert [row[0] for row in section.rows] == baseline
    assert [row[1] for row in section.rows] == [row.candidate_op or row.op for row in deployed().layers]


def test_what_is_fused_stands_as_with_its_first() -> None:
    (section,) = ladder.sections(deployed())
    first, second, third = (row[2:] for row in section.rows[:3])
    assert first == ("Conv", "com.microsoft.FusedConv, 2 sites")
    assert second == ("Conv", f"with {section.rows[0][0]}")
    assert third == ("Conv", "Conv")


def test_a_kernel_in_another_dtype_than_most_says_so() -> None:
    sample = deployed()
    one, *others = sample.stages[0].kernels
    half = msgspec.structs.replace(one, dtype="bfloat16")
    stage = msgspec.structs.replace(sample.stages[0], kernels=(half, *others))
    (section,) = ladder.sections(msgspec.structs.replace(sample, stages=(stage,)))
    assert section.header == ("site", "one by one", "basic, float32")
    assert [row[2] for row in section.rows[:2]] == ["Conv in bfloat16", "Conv"]


def test_a_site_that_no_kernel_of_a_stage_makes_has_a_dash() -> None:
    sample = deployed()
    basic, extended, _ = sample.stages
    fewer = msgspec.structs.replace(extended, kernels=extended.kernels[:1])
    (section,) = ladder.sections(msgspec.structs.replace(sample, stages=(basic, fewer)))
    assert [row[3] for row in section.rows][2:] == ["-"] * (len(section.rows) - 2)


def test_the_certificate_that_a_form_is_held_against_is_named() -> None:
    sample = deployed()
    info = CertificateInfo(
        source="net.safetensors", digest="", created=sample.created, environment=sample.environment
    )
    (section,) = ladder.sections(msgspec.structs.replace(sample, certificate=info))
    assert section.title.endswith("of the candidate, an ONNX model, against net.safetensors")


def test_models_without_kernels_have_no_ladder() -> None:
    assert ladder.sections(diverged()) == []


def test_a_summary_tells_how_many_kernels_there_are_and_no_more() -> None:
    said = markdown.summary(deployed())
    count = sum(row.candidate is not None for row in deployed().layers)
    assert f"| {count} for {count} sites |" in said
    assert f"| more than {count - 1} for {count} sites |" in said
    assert "FusedConv" not in said


def test_a_page_of_many_sites_stays_small() -> None:
    sample = deployed()
    row = sample.layers[0]
    rows = tuple(
        msgspec.structs.replace(row, index=k, baseline=f"layer{k}", candidate=f"layer{k}")
        for k in range(5000)
    )
    kernels = tuple(StageKernel(name="n", operator="Conv", sites=(f"layer{k}",)) for k in range(5000))
    stage = msgspec.structs.replace(sample.stages[0], kernels=kernels)
    cell = msgspec.structs.replace(sample.cells[0], layers=rows, first_divergence=None, culprits=())
    many = msgspec.structs.replace(sample, stages=(stage,), cells=(cell,))
    (section,) = ladder.sections(many)
    assert (len(section.rows), section.rows[-1][0]) == (2001, "and 3,000 more")


def test_the_page_folds_the_table() -> None:
    assert '<details class="fold">\n<summary><h3>Which kernel makes which sites' in html.render(deployed())
