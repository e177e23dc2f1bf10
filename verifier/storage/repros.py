"""Scripts that show culprits, on disk: each beside the tensors that it reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from verifier.errors import OutputError
from verifier.records import Verdict
from verifier.storage.saving import Verification, save_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from verifier.diagnose.repros import Repro

_EARLIER = re.compile(r"repro-\d+-.*\.(py|safetensors)")


def with_repros(
    verification: Verification, found: tuple[Sequence[Repro], Sequence[str]], directory: str | PathLike[str]
) -> Verification:
    """Write the scripts that were found of models that diverge, and say so in notes of the result.

    What cannot be written is a note as well: it is no reason to lose the result.

    Args:
        verification: The result.
        found: The scripts, and a sentence for each culprit that has none.
        directory: Where they go, made if need be.
    """
    scripts, reasons = found
    if verification.verdict is not Verdict.DIVERGED or not (scripts or reasons):
        reasons, scripts = ("--repro wrote nothing: no culprit was found",), ()
    told: tuple[str, ...] = ()
    if scripts:
        try:
            names = save_repros(scripts, directory)
        except OutputError as error:
            told = (f"--repro wrote nothing: {error}",)
        else:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            told = (f"--repro wrote scripts that need torch alone: {', '.join(names[:_NAMED])}{more}",)
    return msgspec.structs.replace(verification, notes=(*verification.notes, *told, *reasons))


_NAMED = 6


def save_repros(repros: Sequence[Repro], directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write scripts as `repro-1-SITE.py` and so on, in the place of those of an earlier run, all or none.

    Returns:
        Names of the scripts' files, in the same order.

    Raises:
        OutputError: The directory cannot be written.
    """
    from safetensors.torch import save  # noqa: PLC0415 - only this needs it, and seldom is it asked for

    directory = Path(directory)
    contents: dict[str, str | bytes] = {}
    for k, repro in enumerate(repros, 1):
        stem = f"repro-{k}-{repro.name[:_LONGEST]}"
        contents[f"{stem}.safetensors"] = save(dict(repro.tensors))
        contents[f"{stem}.py"] = repro.script
    earlier = [
        path.name for path in directory.glob("repro-*") if _EARLIER.fullmatch(path.name) and path.is_file()
    ]
    save_files(contents, directory, earlier)
    return tuple(name for name in contents if name.endswith(".py"))


_LONGEST = 100  # characters of a site's name in that of a file
