"""`report`: render again from a saved result."""

from __future__ import annotations

from verifier.cli import exits, options, showing


def report(directory: options.Result, debug: options.Debug = False) -> None:
    """Render report.html, or the page of a training, again from what was saved, and print the summary."""
    with exits.translated(debug=debug):
        from verifier.training.saving import is_experiment, load_experiment, save_experiment

        if is_experiment(directory):
            found = load_experiment(directory)
            save_experiment(found, directory)
            showing.show_experiment(found, directory)
            return
        from verifier.saving import load, save_report

        verification = load(directory)
        where = directory if directory.is_dir() else directory.parent
        save_report(verification, where)
        showing.show(verification, where)
