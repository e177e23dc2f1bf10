"""`preprocess`: compare how photographs are prepared."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, options, showing


def preprocess(
    images: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Directory of photographs; 'samples' for some that scikit-image ships."
        ),
    ] = "samples",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="classification, imagenet-train, cifar-train, ten-crop or multi-scale."
        ),
    ] = "classification",
    candidate_preprocessing: options.CandidatePreprocessing = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", min=8, max=4096, help="Height and width of a crop; by default what is usual."
        ),
    ] = None,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where preprocessing.json goes; by default nothing is written."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Compare how photographs are prepared with torchvision's transforms, stage by stage."""
    with exits.translated(debug=debug):
        with showing.progress_bar("importing torch") as progress, contextlib.ExitStack() as stack:
            from verifier import inputs
            from verifier.preprocessing import REFERENCE, PhotographComparison, named
            from verifier.preprocessing import recipe as by_name
            from verifier.records import Verdict
            from verifier.storage.earlier import awaiting
            from verifier.storage.saving import PREPROCESSING, check_writable, save_record

            if out is not None:
                check_writable(out)
            stack.enter_context(awaiting(out, (PREPROCESSING,)))
            chosen = by_name(recipe, image_size)
            candidate = named(candidate_preprocessing or REFERENCE, chosen)
            files, _ = inputs.photographs(images)
            progress("comparing photographs", 0, 0)
            compared = PhotographComparison(chosen, candidate, seed)
            inputs.read_photographs(files, compared.add)
            found = compared.record()
            if out is not None:
                save_record(found, out / PREPROCESSING)
        from reports import preprocessing

        showing.say(preprocessing.plain(found, out_dir=None if out is None else str(out / PREPROCESSING)))
        verdicts = {"differs": Verdict.DIVERGED, "inconclusive": Verdict.INCONCLUSIVE}
        exits.by(verdicts.get(found.status, Verdict.MATCH))
