"""`report`: render again from a saved result."""

from __future__ import annotations

from verifier.cli import exits, options, showing


def report(directory: options.Result, debug: options.Debug = False) -> None:
    """Render report.html again from the saved result, and print the summary."""
    with exits.translated(debug=debug):
        from verifier.saving import load, save_report

        verification = load(directory)
        where = directory if directory.is_dir() else directory.parent
        save_report(verification, where)
        showing.show(verification, where)
