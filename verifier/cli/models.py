"""`models`: what --arch knows."""

from __future__ import annotations

from verifier.cli import exits, options, showing


def models(debug: options.Debug = False) -> None:
    """List what --arch knows, with published size and cost."""
    with exits.translated(debug=debug):
        import reference_models

        entries = [reference_models.get(name) for name in reference_models.list()]
        rows = [("name", "family", "depth", "parameters", "GFLOPs", "baseline")]
        rows += [
            (
                entry.name,
                entry.family,
                str(entry.depth),
                "-" if entry.parameters is None else f"{entry.parameters:,}",
                "-" if entry.gflops is None else f"{entry.gflops:g}",
                entry.baseline or f"- (use --candidate reference:{entry.name})",
            )
            for entry in entries
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        right = {2, 3, 4}
        lines = [
            "  ".join(
                cell.rjust(width) if k in right else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        showing.say("\n".join(lines) + "\n")
