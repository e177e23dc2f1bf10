"""`record`: write a certificate, with which later versions of a model are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, isolating, options, showing
from verifier.cli.planning import command_line, dimension, pixels, weights_of
from verifier.errors import UsageError


def record(
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="SPEC",
            help=(
                "The trusted model: torchvision:NAME, reference:NAME, baseline:NAME, package.module:callable or "
                "file.py:callable. With --rebase that certificate's, if left out."
            ),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where it goes, FILE.safetensors; with --rebase that file, if left out."
        ),
    ] = None,
    input_file: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE|SPEC",
            help="What it is run on: a .npy, .pt or .safetensors file, or file.py:function; else random pictures.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="How many pictures.")] = 2,
    batch_dim: options.BatchDim = "0",
    image_size: Annotated[
        str, typer.Option(metavar="PIXELS", help="Their height and width, or 'small'.")
    ] = "224",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="calibrated|as-is|imagenet",
            help=(
                "calibrated (if left out): drawn so that they excite every parameter. as-is: the model's own, and "
                "that of a file such as an .onnx if left out. "
                "imagenet: torchvision's published ones."
            ),
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="LIST", help="cpu, cuda or cuda:N, separated by commas.")
    ] = "cpu",
    dtype: Annotated[
        str,
        typer.Option(metavar="LIST", help="float32, tf32, bfloat16, float16; float64 is recorded besides."),
    ] = "float32",
    cells: Annotated[
        str | None, typer.Option(metavar="LIST", help="Cells by name, instead of the two options above.")
    ] = None,
    full: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Keep the tensors of these sites in full, in a folder beside the file; ** stands for all.",
        ),
    ] = None,
    seed: options.Seed = 0,
    rebase: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take this certificate's place: its model, inputs, weights and cells, if not said; it is named.",
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Record a model's run as a certificate: run --baseline FILE.safetensors compares with it."""
    with exits.translated(debug=debug):
        isolating.where_asked(None, isolate=False)
        if spec is None and rebase is None:
            raise UsageError("a model is needed: give SPEC, or --rebase FILE.")
        target = out or rebase
        if target is None:
            raise UsageError("say where the certificate goes: --out FILE.safetensors.")
        if target.suffix != ".safetensors":
            raise UsageError(f"a certificate's name ends with .safetensors, and not as {target} does.")
        with showing.progress_bar("importing torch") as progress:
            from verifier import inputs
            from verifier.certificates import arguments
            from verifier.certificates.certificate import Certificate
            from verifier.certificates.recording import record as recorded
            from verifier.certificates.successor import changed
            from verifier.cli.verifying import CellOptions
            from verifier.storage.saving import check_file

            check_file(target)
            before = None if rebase is None else Certificate.load(rebase)
            asked = CellOptions(
                names=cells, device=device, dtype=dtype, memory_format="contiguous", autocast="off"
            ).requests()
            wanted = [cell for cell, _ in asked]
            if input_file is not None:
                given, recipe = inputs.read(input_file, seed), arguments.spec_recipe(input_file)
            elif before is not None:
                content = before.content
                given = arguments.given_to(content.inputs, before.inputs, None, str(rebase))
                recipe = content.inputs.recipe
            else:
                given = inputs.normal(batch_size, pixels(image_size, 224, 64), seed)
                recipe = arguments.normal_recipe(batch_size, pixels(image_size, 224, 64), seed)
            certificate = recorded(
                spec or (before.content.model.spec if before else ""),
                given,
                weights=weights or (before.content.weights if before else weights_of(None, spec)),
                cells=wanted,
                batch_dim=given.batch_dim if before is not None else dimension(batch_dim),
                seed=seed or (before.content.seed if before else 0),
                full=full or (),
                beside=target,
                recipe=recipe,
                parent=before.digest if before else "",
                command=command_line(),
                progress=progress,
            )
            certificate.save(target)
        showing.say(certificate.told(target))
        showing.warn([certificate.blind] if certificate.blind else [])
        if before is not None:
            showing.say(f"  what changed: {changed(before, certificate)}\n")
        exits.end(0)
