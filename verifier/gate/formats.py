"""The files that continuous integration reads, as they were asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from verifier.border.error_texts import first_line, sentence
from verifier.errors import OutputError, UsageError
from verifier.storage.saving import check_file, save_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from verifier.gate.findings import Outcome


@dataclass(frozen=True, slots=True)
class Formats:
    """Where each format goes; None where it was not asked for."""

    junit: Path | None = None
    sarif: Path | None = None
    code_quality: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files that were asked for, by the option that names them."""
        named = {f"--{each.name.replace('_', '-')}": getattr(self, each.name) for each in fields(self)}
        return {option: file for option, file in named.items() if file is not None}

    def check(self) -> None:
        """See, before anything is run, that every file can be written.

        Raises:
            UsageError: One cannot, or two are the same.
        """
        known: dict[Path, str] = {}
        for option, file in self.files.items():
            if file.exists() and not (file.is_file() or file.is_dir()):
                raise OutputError(f"{option} {file}: this is no regular file, and would be replaced by one")
            above = next(each for each in file.absolute().parents if each.exists())
            if not above.is_dir():
                raise OutputError(f"{option} {file}: {above.name} is a file, and no directory")
            check_file(file)
            other = known.setdefault(file.absolute(), option)
            if other != option:
                raise UsageError(f"{other} and {option} name the same file, {file}")

    def write(self, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
        """Write every file, whole or not at all.

        Returns:
            A sentence for each that could not be written.
        """
        from verifier.gate import code_quality, junit, sarif  # noqa: PLC0415 - --help would wait for them

        makers = {
            "--junit": junit.document,
            "--sarif": sarif.document,
            "--code-quality": code_quality.document,
        }
        lost = []
        for option, file in self.files.items():
            try:
                save_text(makers[option](outcomes), file)
            except Exception as error:
                why = str(error) if isinstance(error, OutputError) else first_line(error)
                lost.append(f"{option} {file} was not written: {sentence(why)}")
        return tuple(lost)
