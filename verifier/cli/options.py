"""Options and arguments that commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.errors import UsageError, suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

DataName = Annotated[
    str,
    typer.Option(
        metavar="digits|cifar10|FOLDER",
        help=(
            "What to learn from: scikit-learn's handwritten digits, CIFAR-10, or photographs of one's own, a folder "
            "for each class in it."
        ),
    ),
]
PictureSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="PIXELS",
        help="Height and width of a folder's photographs; --arch knows what fits, else 224.",
    ),
]
DataDirectory = Annotated[
    Path, typer.Option(metavar="DIR", help="Where CIFAR-10 lies, or is downloaded to if it does not.")
]
TrainingSeed = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, max=2**31 - 1, help="For models, the order of the data and what is drawn."
    ),
]
TestScales = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Test at these sizes in pixels, separated by commas, and tell classes by the mean of the scores.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Print all there is to tell, figures that no verdict rests on as well.",
    ),
]
_policy = typer.Option(
    metavar="strict|criteria|task|FILE",
    help=(
        "strict judges by error budgets, criteria by the published criteria alone, task (and pruned and int8, "
        "with budgets of their own) by what becomes of the classes; or a TOML file."
    ),
)
Policy = Annotated[str, _policy]
PolicyOrOwn = Annotated[str | None, _policy]
"""None where nobody says: an architecture has a policy of its own, all else is judged strictly."""
Result = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Directory a run wrote its result to, or the result.json itself."),
]

Arch = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=(
            "One that `models` lists: the reference model against its baseline, torchvision's or one composed of "
            "torchvision's blocks."
        ),
    ),
]
_TRUSTED = (
    "The trusted model: torchvision:NAME, reference:NAME, baseline:NAME, package.module:callable or "
    "file.py:callable"
)
Baseline = Annotated[str | None, typer.Option(metavar="SPEC", help=f"{_TRUSTED}.")]
BaselineOrRecorded = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="SPEC",
        help=(
            f"{_TRUSTED}; or a certificate, FILE.safetensors, or dumped tensors: a folder, .zip, .npz or .npy."
        ),
    ),
]
"""Something recorded may stand in the model's place."""
Candidate = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help=(
            "The model under test, in the same forms; compile:SPEC is one of them through torch.compile. Or a file "
            "of a deployed form: .onnx, .pt2 (torch.export), .pt (TorchScript), .xml (OpenVINO)."
        ),
    ),
]
Archs = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=(
            "One that `models` lists: the reference model against its baseline, torchvision's or one composed "
            "of torchvision's blocks. Several, separated by commas, or all: one after the other."
        ),
    ),
]
Images = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Directory of photographs; 'samples' for some that scikit-image ships."),
]
InputFile = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="FILE|SPEC",
        help=(
            "Tensors from a .npy, .pt or .safetensors file, or what file.py:function or package.module:function "
            "returns: a tensor, a tuple or a dict of arguments, tensors or not."
        ),
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SPEC",
        help=(
            "Samples in batches that are read as they are needed: a .jsonl or .parquet file of tokens, or what "
            "file.py:function returns, any iterable of batches or a DataLoader."
        ),
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=(
            "Keep what was measured of samples that are streamed here every two minutes: the same command goes on "
            "from there after a kill, and removes it at its end."
        ),
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=1,
        help="Of several processes: end all where one comes no further for so long.",
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Height and width of an image, or 'small'; --arch knows what fits, else 224, and 64 if small.",
    ),
]
WeightsMode = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help=(
            "calibrated: seeded draws that excite every parameter, for both models. init: the baseline's initial "
            "values, for both. imagenet: torchvision's published ones, for both. as-is: each model's own. "
            "Or a .safetensors, .pt or .pth file. By default calibrated, and as-is where a file such as an .onnx has "
            "weights of its own."
        ),
    ),
]
Compile = Annotated[
    str | None,
    typer.Option(
        "--compile",
        metavar="LIST",
        help=(
            "How compile:SPEC is compiled, in torch.compile's words: "
            "backend=inductor,mode=max-autotune,dynamic=true,fullgraph=true."
        ),
    ),
]
Device = Annotated[
    str, typer.Option(metavar="LIST", help="cpu, cuda or cuda:N, separated by commas, or all.")
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="LIST", help="float64, float32, tf32, bfloat16, float16, separated by commas, or all."
    ),
]
MemoryFormat = Annotated[
    str, typer.Option(metavar="LIST", help="contiguous, channels_last, separated by commas.")
]
Autocast = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="For bfloat16 and float16: off casts the models, on leaves that to torch.autocast; both: off,on.",
    ),
]
Cells = Annotated[
    str | None,
    typer.Option(
        "--cells",
        metavar="LIST",
        help="Cells by name, instead of the options above: cpu/float32,cuda/bfloat16/channels_last.",
    ),
]
BaselinePath = Annotated[
    Path | None,
    typer.Option(
        "--baseline-path",
        metavar="DIR",
        help="Where the baseline's imports start, if that is neither its file's folder nor its package's.",
    ),
]
CandidatePath = Annotated[
    Path | None,
    typer.Option(
        "--candidate-path",
        metavar="DIR",
        help=(
            "Where the candidate's imports start, for another version of a package: --baseline-path old "
            "--candidate-path new with pkg.net:build for both."
        ),
    ),
]
BatchDim = Annotated[
    str,
    typer.Option(metavar="N|none", help="The dimension along which samples lie, or none if there are none."),
]
Seed = Annotated[
    int,
    typer.Option(metavar="N", min=0, max=2**63 - 1, help="For models, weights and inputs that are drawn."),
]
Map = Annotated[
    Path | None,
    typer.Option(
        "--map",
        metavar="FILE",
        help="TOML of `candidate name = baseline name` for tensors whose partner is not found; takes wildcards.",
    ),
]
CandidatePreprocessing = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help=(
            "How the candidate prepares photographs: file.py:callable or package.module:callable, which takes a "
            "picture or a path and returns a tensor, or a dict of pictures by stage; or a list of transforms."
        ),
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option(
        "--junit",
        metavar="FILE",
        help="Write JUnit XML here: a case for each cell, a failure for each cause.",
    ),
]
Sarif = Annotated[
    Path | None,
    typer.Option(
        "--sarif", metavar="FILE", help="Write SARIF 2.1.0 here: causes at the lines they stand in."
    ),
]
CodeQuality = Annotated[
    Path | None,
    typer.Option("--code-quality", metavar="FILE", help="Write a GitLab code quality report here."),
]
Isolate = Annotated[
    bool,
    typer.Option(
        "--isolate", help="Run the models in a process of their own, whose death is told and ends with 3."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=1.0,
        help="End the run with 3 when it has taken this long; it then has a process of its own, too.",
    ),
]
History = Annotated[
    Path | None,
    typer.Option(
        "--history",
        metavar="FILE",
        help=(
            "The history that runs are recorded in; by default $VERIFIER_HISTORY, or the git repository's own, "
            ".git/verifier/history.sqlite."
        ),
    ),
]
NoHistory = Annotated[bool, typer.Option("--no-history", help="Do not record this run.")]


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """See that an option was given one of its words.

    Raises:
        UsageError: It was not.
    """
    if value not in known:
        near = suggestion(value, known) or f". It takes {', '.join(known)}."
        raise UsageError(f"{option} {value}: there is no such choice{near}")
