"""What a command leaves for continuous integration: the files asked for, and what GitHub Actions shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.border.error_texts import first_line
from verifier.cli import showing
from verifier.gate.formats import Formats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from verifier.gate.findings import Outcome


class Gate:
    """The files that were asked for, and annotations where there is somebody to show them.

    Nothing of it changes an exit code: what cannot be written is a warning, once the run has begun.

    Args:
        junit: Where JUnit XML goes, None for nowhere.
        sarif: Where SARIF goes.
        code_quality: Where GitLab's code quality report goes.
        spec: What the candidate is called if nothing could be run.
    """

    def __init__(
        self, junit: Path | None, sarif: Path | None, code_quality: Path | None, spec: str = ""
    ) -> None:
        self.formats = Formats(junit, sarif, code_quality)
        self._spec = spec
        self._checked = False

    def check(self) -> None:
        """See that every file can be written.

        Raises:
            UsageError: One cannot.
        """
        self.formats.check()
        self._checked = True

    def failed(self, message: str) -> None:
        """Nothing was verified, for the reason that `message` says."""
        if self._checked:
            from verifier.gate.findings import Outcome

            self.ended([Outcome(self._spec, failure=message)])

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """All that was to be verified has come to its end."""
        from verifier.gate.annotations import append_summary, commands, wanted

        showing.warn(self.formats.write(outcomes))
        if not wanted():
            return
        try:
            showing.say(commands(outcomes))
            showing.warn(append_summary(outcomes))
        except Exception as error:
            showing.warn([f"nothing can be shown in GitHub Actions: {first_line(error)}."])
