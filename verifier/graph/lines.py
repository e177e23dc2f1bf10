"""The line of a model's own program that made a call, found from the stack of frames."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.records import Source

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from torch import nn

_SITES = ("site-packages", "dist-packages")
_TORCH = str(Path(torch.__file__).parent) + os.sep
_GRAPH = str(Path(__file__).parent) + os.sep
_VERIFIER = str(Path(__file__).parents[1]) + os.sep
_PYTHON = sysconfig.get_path("stdlib") + os.sep


class _File(NamedTuple):
    """A file of code: what it is called in a record, and whether it belongs to the model and not to a library."""

    shown: str
    own: bool


class Lines:
    """Where calls of a model are written.

    The program of a model is every file that one of its modules' classes comes from, with the whole package around
    it, and every file below the working directory; torch, the verifier and Python's own library are none. A line of
    another library (einops, say) stands for a call only where no frame is the program's. Code without a file has no
    lines: what FX and export generate, notebooks, and networks put together of torch's containers alone.

    Args:
        model: The module that runs.
        outermost: The code of the function that runs the model: frames beyond it are not the model's.
    """

    def __init__(self, model: nn.Module, outermost: CodeType) -> None:
        self._outermost = outermost
        self._modules = {type(module).__module__ for module in model.modules()}
        self._packages = {module.partition(".")[0] for module in self._modules} - {"torch", "verifier"}
        self._files: dict[str, _File | None] = {}
        self._sources: dict[tuple[str, int], Source] = {}
        try:
            self._here: Path | None = Path(os.path.realpath(Path.cwd()))
        except OSError:  # it was removed
            self._here = None

    def running(self) -> Source | None:
        """The innermost line of the model's program that runs now in this thread; None where there is none."""
        found: tuple[FrameType, _File] | None = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not self._outermost:
            name = frame.f_code.co_filename
            if name in self._files:
                file = self._files[name]
            else:
                file = self._files[name] = self._file(name, str(frame.f_globals.get("__name__", "")))
            if file is not None and (found is None or file.own):
                found = frame, file
                if file.own:
                    break
            frame = frame.f_back
        if found is None:
            return None
        frame, file = found
        key = frame.f_code.co_filename, frame.f_lineno
        if key not in self._sources:
            self._sources[key] = Source(
                file=file.shown, line=frame.f_lineno, function=frame.f_code.co_qualname
            )
        return self._sources[key]

    def _file(self, name: str, module: str) -> _File | None:
        """The file of some code; None for what is no program's, or generated, or has no file any more."""
        path = Path(os.path.realpath(name))
        if name.startswith(("<", _TORCH)) or not path.is_file():
            return None
        if name.startswith(_VERIFIER) and (name.startswith(_GRAPH) or module not in self._modules):
            return None  # its baselines are programs like any other
        installed = _after_last(path, _SITES)
        if installed is None and name.startswith(_PYTHON):
            return None
        below = None
        if installed is None and self._here is not None and path.is_relative_to(self._here):
            below = path.relative_to(self._here).as_posix()
        own = below is not None or module in self._modules or module.partition(".")[0] in self._packages
        return _File(below or installed or _as_module(path, module) or path.name, own)


def _after_last(path: PurePath, names: tuple[str, ...]) -> str | None:
    """What of a path stands below the last folder of one of these names; None where there is none."""
    found = [k for k, part in enumerate(path.parts[:-1]) if part in names]
    return PurePath(*path.parts[found[-1] + 1 :]).as_posix() if found else None


def _as_module(path: PurePath, module: str) -> str:
    """The end of a path that is the module's own name, as `package/part/module.py`; empty where they differ."""
    parts = module.split(".")
    parts = [*parts, "__init__"] if path.stem == "__init__" and parts[-1] != "__init__" else parts
    named = PurePath(*parts).with_suffix(".py")
    return named.as_posix() if path.parts[-len(parts) :] == named.parts else ""
