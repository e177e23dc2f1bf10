"""What a result rests on, as lists of names and values: weights, inputs, machine, settings; and the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import data_set, wording

if TYPE_CHECKING:
    from verifier.records import Environment, InputInfo, OutputAgreement, Result, WeightsInfo

_NAMED = 6  # tensors of a kind


@dataclass(frozen=True, slots=True)
class Facts:
    """A titled list of names and values; `folded` ones are long and rarely read."""

    title: str
    rows: tuple[tuple[str, str], ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the method with what it means."""

    word: str
    meaning: str


METHOD = (
    Term(
        "Total error",
        "Both models run once on the same input, side by side, and meet at every pair of sites. What differs there "
        "is the total error: all that this site and everything above it have added up. It tells what a user of the "
        "model would see, but not who is to blame, because a late site inherits from all earlier ones. The first "
        "pair beyond its budget is the first divergence.",
    ),
    Term(
        "Intrinsic error",
        "Both models run once more, and after each comparison the candidate's tensor is overwritten with the "
        "baseline's. Every site is then judged on identical inputs, so what differs is its own doing: the intrinsic "
        "error. A pair beyond its budget there is a culprit. Other sites only carry what came in, or amplify it.",
    ),
    Term(
        "Budget",
        "The budget is what a pair may be off by, and each one names the rule that gave it. In float64 rounding is "
        "near 1e-16, so that anything beyond 1e-12 is a real difference between two programs. In narrower cells both "
        "models are measured against a float64 oracle, and the candidate may be at most a small multiple as far from "
        "it as the baseline is. Published criteria are evaluated besides, and never decide alone unless the policy "
        "says so.",
    ),
)


def weights(info: WeightsInfo) -> Facts:
    """Where the weights came from."""
    return Facts(
        "Weights",
        told(
            ("mode", info.mode),
            ("source", info.source),
            ("mapped tensors", f"{len(info.parameter_map):,}" if info.parameter_map else ""),
            ("baseline's without a partner", wording.some(info.unmapped_baseline, _NAMED)),
            ("candidate's without a partner", wording.some(info.unmapped_candidate, _NAMED)),
            ("kept by the candidate", wording.some(info.kept, _NAMED)),
            ("all 0 or all 1, so they reveal no fault", wording.some(info.unexercised, _NAMED)),
            ("SHA-256 of the baseline's", info.baseline_digest),
            ("SHA-256 of the candidate's", info.candidate_digest),
        ),
    )


def mapping(info: WeightsInfo) -> tuple[tuple[str, str], ...]:
    """Candidate's and baseline's names of every mapped tensor."""
    return tuple((c, b if isinstance(b, str) else " + ".join(b)) for c, b in info.parameter_map.items())


def others(verification: Result) -> tuple[Facts, ...]:
    """Everything else a result rests on; lists without a value are left out."""
    environment = verification.environment
    every = (
        Facts("Final output", agreement(verification.output) if verification.output else ()),
        _inputs(verification.inputs, verification.seed),
        Facts("Environment", _environment(environment)),
        Facts("Settings that touch numerics", told(*environment.flags.items()), folded=True),
    )
    return tuple(facts for facts in every if facts.rows)


def _inputs(info: InputInfo, seed: int | None) -> Facts:
    return Facts(
        "Inputs",
        told(
            ("what", info.description),
            ("shapes", ", ".join(wording.dimensions(shape) for shape in info.shapes)),
            ("dtypes", ", ".join(info.dtypes)),
            ("besides", ", ".join(f"{name}: {said}" for name, said in info.settings.items())),
            ("files", ", ".join(info.files)),
            ("seed", "" if seed is None else str(seed)),
            ("SHA-256", info.digest),
        ),
    )


def _environment(found: Environment) -> tuple[tuple[str, str], ...]:
    tree = {True: ", with changes that are not committed", False: ", nothing changed since", None: ""}[
        found.dirty
    ]
    return told(
        ("git commit", f"{found.commit}{tree}" if found.commit else ""),
        ("Python", found.python),
        ("platform", found.platform),
        ("processor", found.processor),
        ("devices", ", ".join(found.devices)),
        ("threads", str(found.threads)),
        *found.packages.items(),
    )


def agreement(output: OutputAgreement) -> tuple[tuple[str, str], ...]:
    """How far the final outputs agree."""
    top1, top5, is_exact = output.top1_agreement, output.top5_agreement, output.bit_exact
    later = (
        ("same five highest classes", "" if top5 is None else wording.share(top5)),
        ("KL divergence, nats, mean", _known(output.kl_mean)),
        ("KL divergence, nats, largest", _known(output.kl_max)),
        ("smallest margin of a first choice", _known(output.smallest_margin)),
        ("largest error of a logit", _known(output.largest_logit_error)),
        ("equal bit for bit", "" if is_exact is None else "yes" if is_exact else "no"),
        ("per sample", data_set.spread(output)),
        ("flipped", data_set.flips(output, 20)),
    )
    return (
        ("mean squared error", wording.figure(output.mse)),
        ("Pearson of the class probabilities", wording.figure(output.pearson_probabilities)),
        ("same first choice", "-" if top1 is None else wording.share(top1)),
        *told(*later),
    )


def told(*rows: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The rows that have a value."""
    return tuple((name, value) for name, value in rows if value)


def _known(value: float | None) -> str:
    return "" if value is None else wording.figure(value)
