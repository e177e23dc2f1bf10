"""`models`: what --arch knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from verifier.cli import exits, options, showing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reference_models import ModelEntry


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Networks to count anew and to compare with what is published."
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List what --arch knows, with size and cost; or show NAMEs beside what others published about them."""
    with exits.translated(debug=debug):
        import reference_models

        if not names:
            entries = [reference_models.get(name) for name in reference_models.list()]
            showing.say(showing.table([_HEADER, *map(_row, entries)], left={0, 1, 6}))
            return
        from verifier.errors import SourceError, suggestion

        for name in names:
            if name not in reference_models.list():
                raise SourceError(
                    f"there is no reference model {name!r}"
                    f"{suggestion(name, reference_models.list()) or '; `models` without a name lists them'}"
                )
        for name in names:
            showing.say(_compared(reference_models.get(name)))


_HEADER = ("name", "family", "depth", "parameters", "GFLOPs", "sites", "baseline")


def _row(entry: ModelEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.family,
        str(entry.depth),
        "-" if entry.parameters is None else f"{entry.parameters:,}",
        "-" if entry.gflops is None else f"{entry.gflops:g}",
        "-" if entry.sites is None else f"{entry.sites:,}",
        entry.baseline or f"- (use --candidate reference:{entry.name})",
    )


def _compared(entry: ModelEntry) -> str:
    """What is counted here, and each published figure beside it."""
    from reference_models.published import figures
    from verifier.models.sizes import measure

    size = measure(entry)
    counted: dict[str, float] = {"parameters": size.parameters, "gflops": size.gflops, "depth": size.depth}
    told = {
        "parameters": f"{size.parameters:,}",
        "gflops": f"{size.gflops:.3f}",
        "depth": str(size.depth),
        "sites": f"{size.sites:,}",
    }
    lines = [
        f"{entry.name}: {told['parameters']} parameters, {told['gflops']} GFLOPs at {entry.image_size} x "
        f"{entry.image_size}, {told['depth']} layers with weights on the main path, {told['sites']} sites"
    ]
    rows = []
    for figure in figures():
        if figure.network == entry.name:
            measured = counted.get(figure.quantity)
            holds = "not measured" if measured is None else "agrees" if figure.agrees(measured) else "differs"
            rows.append(
                (
                    f"  {figure.quantity}",
                    ("< " if figure.below else "") + figure.value,
                    told.get(figure.quantity, "-"),
                    holds,
                    figure.source + (f" ({figure.note})" if figure.note else ""),
                )
            )
    header = ("  quantity", "published", "counted", "", "source")
    return "\n".join(lines) + "\n" + (_listed([header, *rows]) if rows else "  nothing is published\n") + "\n"


def _listed(rows: Sequence[tuple[str, ...]]) -> str:
    return showing.table(rows, left={0, 3, 4})
