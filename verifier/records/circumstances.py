"""What was compared, with which weights and inputs, and where."""

from __future__ import annotations

from verifier.records.base import Record
from verifier.records.pairs import Cause


class ModelInfo(Record, frozen=True, kw_only=True):
    """Which model took part: its specification, class, parameter count and number of sites."""

    spec: str
    type: str
    parameters: int
    sites: int


class WeightsInfo(Record, frozen=True, kw_only=True):
    """Where the weights came from and which of them cannot reveal a fault.

    `parameter_map` says for each candidate tensor how it is made of the baseline's: `name`, `name[0:64]` for rows of
    it, `name.T` for its transpose, sums of these, or several, put together. `unexercised` names baseline parameters
    that are all 0 or all 1. `kept` names candidate tensors that kept values of their own.
    `baseline_digest` and `candidate_digest` are SHA-256 over names, dtypes, shapes and bits of all that each computes
    with (`verifier.weights.fingerprint`); empty in results of before they were recorded.
    """

    mode: str
    source: str = ""
    parameter_map: dict[str, str | tuple[str, ...]] = {}
    unmapped_baseline: tuple[str, ...] = ()
    unmapped_candidate: tuple[str, ...] = ()
    unexercised: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    baseline_digest: str = ""
    candidate_digest: str = ""


class InputInfo(Record, frozen=True, kw_only=True):
    """What went in: a line of description, shapes and dtypes per tensor, file names if any, SHA-256 of all tensors.

    `settings` has what was given besides tensors, by its place, as Python writes it (`use_cache`: `False`) or by its
    class (`a DynamicCache`). Of samples that were streamed `samples` says how many there were, the shapes are those
    of the first batch, and the digest does not depend on how they were split.
    """

    description: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    digest: str = ""
    settings: dict[str, str] = {}
    samples: int | None = None


class StageDifference(Record, frozen=True, kw_only=True):
    """How far a preprocessing stage's numbers are from the baseline's, over all photographs.

    `largest` is absolute, in the stage's unit; `mean` (absolute too) and `share` (0..1, of numbers that differ at
    all) are the largest of any photograph; `picture` names the photograph with the largest difference.
    """

    largest: float
    mean: float
    share: float
    picture: str


class StageResult(Record, frozen=True, kw_only=True):
    """One stage of the preprocessing, compared on all photographs.

    `status` is `exact` (equal bit for bit), `rounding` (equal but for rounding, by `rule`), `differs`, `carries` (the
    same function, given other numbers), `missing` (the candidate has no such stage and would need it), `given` (the
    candidate does not do it but was given the baseline's), `unseen` (what it makes of a photograph is not shown) or
    `inconclusive` (it draws other parameters, and they cannot be told).
    `total` is the distance of what both sides have after this stage, `intrinsic` that of this stage alone, on
    identical input; None where shapes differ (then `shapes` has the candidate's and the baseline's) or nothing was
    seen. Both are in `unit`: `1/255` is one step of a byte. `exact` counts photographs on which the total is 0.
    `drawn_alike` says whether both drew the same random parameters from the same seed; where not, they were compared
    with the same ones if these could be told, and the stage `differs` if many draws are distributed otherwise.
    """

    name: str
    words: str
    status: str
    rule: str
    unit: str
    pictures: int
    exact: int = 0
    total: StageDifference | None = None
    intrinsic: StageDifference | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    drawn_alike: bool | None = None
    reason: str = ""
    cause: Cause | None = None


class Preprocessing(Record, frozen=True, kw_only=True):
    """Stage 0: are photographs prepared alike for both models?

    `candidate` is how the candidate's preprocessing was named, empty for this package's own; the baseline's is
    torchvision's. `status` is `exact`, `rounding`, `differs` or `inconclusive` (what the candidate draws could not be
    told). `first_difference` names the first stage that differs beyond rounding on identical input, or is empty: of
    stages that were not seen, or of what was done after them, the final tensor alone may differ. `output` is the
    distance of the final tensors; `cause` what explains it. `applied` says whether the candidate was run on its own
    tensors.
    """

    recipe: str
    candidate: str
    status: str
    stages: tuple[StageResult, ...]
    first_difference: str = ""
    files: tuple[str, ...] = ()
    output: StageDifference | None = None
    output_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    cause: Cause | None = None
    applied: bool = False
    notes: tuple[str, ...] = ()


class Environment(Record, frozen=True, kw_only=True):
    """Versions, machine, the flags that touch numerics, and the git commit of the directory the caller works in.

    `dirty` says that tracked files differ from the commit, or that Python files are there which git does not know.
    `commit` is empty and `dirty` None where there is no repository, or no git.
    """

    python: str
    platform: str
    processor: str
    packages: dict[str, str]
    devices: tuple[str, ...]
    threads: int
    flags: dict[str, str]
    commit: str = ""
    dirty: bool | None = None


class CertificateInfo(Record, frozen=True, kw_only=True):
    """The recording that stood in the baseline's place.

    `source` is its file, empty where it was in memory; `digest` the file's SHA-256, and `parent` that of the file it
    took the place of. `environment` is where it was recorded, at `created`.
    """

    source: str
    digest: str
    created: str
    environment: Environment
    parent: str = ""


LOADING = "loading"
"""The kind of the difference that says how many tensors were never loaded."""


class StaticDifference(Record, frozen=True, kw_only=True):
    """Something in which the two models differ as written, seen before anything was compared.

    `kind` is `output` (names of what is returned), `operators` (how often one occurs), `hyperparameter`, `tensor` (a
    parameter or buffer, by value), `loading` (how many of these were never loaded, where they are many), `dtype`,
    `layout` or `flag` (a backend flag that building one of them changed).
    `baseline` and `candidate` say where, `summary` what; `harmless` that no number can come out otherwise for it.
    """

    kind: str
    baseline: str | None
    candidate: str | None
    summary: str
    harmless: bool = False


class UnmatchedSite(Record, frozen=True, kw_only=True):
    """A site that could not be paired, on which side (`baseline` or `candidate`), and why.

    `compared_at` names the pair (or the output) at which a few operators built otherwise were compared as a whole.
    """

    side: str
    name: str
    op: str
    reason: str = ""
    compared_at: str | None = None


class Coverage(Record, frozen=True, kw_only=True):
    """How much of both models was compared. Shares, in 0..1, are of the sites that compute something.

    `parameterised` counts the baseline's sites that use a parameter or buffer, `parameterised_compared` those of
    them that were paired. `outputs` counts the tensors each model returns. `hidden` names sites without a partner of
    which nothing can be said, because a parameter that is all 0 or 1, or these inputs, hide what they make.
    `returned` says how what the two return differs in anything but numbers: other keys, other words.
    """

    compared: int
    baseline_sites: int
    candidate_sites: int
    baseline_share: float
    candidate_share: float
    parameterised: int = 0
    parameterised_compared: int = 0
    outputs: tuple[int, int] = (1, 1)
    unmatched: tuple[UnmatchedSite, ...] = ()
    hidden: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
