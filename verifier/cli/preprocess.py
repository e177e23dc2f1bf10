"""`preprocess`: compare how photographs are prepared."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, options, showing
from verifier.cli.planning import command_line


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
        typer.Option(
            metavar="DIR", help="Where preprocessing.json and its page go; by default nothing is written."
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Compare how photographs are prepared with torchvision's transforms, stage by stage."""
    started = time.perf_counter()
    with exits.translated(debug=debug):
        with showing.progress_bar("importing torch") as progress, contextlib.ExitStack() as stack:
            from verifier import inputs
            from verifier.environment import describe
            from verifier.preprocessing import REFERENCE, PhotographComparison, named
            from verifier.preprocessing import recipe as by_name
            from verifier.records import PreparationAlone
            from verifier.storage.earlier import awaiting
            from verifier.storage.pages import PREPARATION, PREPARATION_PAGE, save_preparation
            from verifier.storage.saving import check_writable

            if out is not None:
                check_writable(out)
            stack.enter_context(awaiting(out, (PREPARATION, PREPARATION_PAGE)))
            chosen = by_name(recipe, image_size)
            candidate = named(candidate_preprocessing or REFERENCE, chosen)
            files, _ = inputs.photographs(images)
            progress("comparing photographs", 0, 0)
            compared = PhotographComparison(chosen, candidate, seed)
            inputs.read_photographs(files, compared.add)
            record = compared.record()
            found = PreparationAlone(
                **{name: getattr(record, name) for name in record.__struct_fields__},
                seed=seed,
                environment=describe(),
                command=command_line(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=time.perf_counter() - started,
            )
            if out is not None:
                showing.warn(save_preparation(found, out))
        showing.show_preparation(found, None if out is None else out / PREPARATION_PAGE)
        from reports.preprocessing import verdict

        exits.by(verdict(found))
