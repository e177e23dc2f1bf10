"""A folder that several commands write results to, and that any of them may be killed in.

Several files cannot change at once, so three things keep the files of two runs apart:

- Whoever writes holds the folder's lock, which the kernel takes back from a process that dies.
- Files are first written to a hidden folder beside their destination, and the result itself, of which the others are
  rendered, is a single file that is moved. What belongs to the old one is taken away before, what belongs to the new
  one comes after: at no moment are files of two runs there.
- Hidden folders say what was going on. Who comes next finishes it:

  `.saving-*`  files that are being written: whoever wrote them is dead, they are cleared away
  `.saved-*`   files that are all written and being moved: they are moved to their places
  `.aside-*`   files of an earlier result on their way out or back: they are put back
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.errors import OutputError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SAVING, _SAVED, _ASIDE = ".saving-", ".saved-", ".aside-"
_BEFORE = "before"  # inside `.saved-*`: what was there, until all is moved
_PLAN = (
    "plan"  # inside that: the file that the others are made of, then those that are not to be there any more
)
EARLIER = "earlier"

_PATIENCE = 60  # seconds; writing takes a fraction of one
_POLL = 0.02  # seconds


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep every other command from writing to an existing folder, and finish what a dead one left there.

    Where the file system has no locks (or the platform no such call) nothing is kept out and nothing is finished.

    Raises:
        OutputError: Somebody else has been writing for a minute.
        OSError: The folder cannot be opened or written.
    """
    handle = _lock(directory)
    try:
        if handle is not None:
            _finish(directory)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(directory: Path) -> int | None:
    deadline = time.monotonic() + _PATIENCE
    while sys.platform != "win32":
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:  # it may be writable all the same
            return None
        kept = False
        try:
            _claim(handle, deadline, directory)
            kept = os.path.samestat(os.fstat(handle), directory.stat())
            if kept:
                return handle
        except OSError:  # no locks here
            return None
        finally:
            if not kept:  # another folder has taken its place meanwhile: once more
                os.close(handle)
    return None


def _claim(handle: int, deadline: float, directory: Path) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL)
        if time.monotonic() > deadline:
            raise OutputError(
                f"another command has been writing to {directory} for {_PATIENCE} s. Wait for its end, or give "
                "another --out."
            )


def tidy(directory: Path) -> None:
    """Finish what a dead command left in a folder, where there is anything and it can be written."""
    with contextlib.suppress(OSError):
        if any(_left(directory)):
            with locked(directory):
                pass


def _left(directory: Path) -> Iterator[Path]:
    """The hidden folders; those with results first, so that a new one has the last word."""
    for prefix in (_ASIDE, _SAVED, _SAVING):
        yield from sorted(path for path in directory.glob(f"{prefix}*") if path.is_dir())


def _finish(directory: Path) -> None:
    for path in _left(directory):
        if path.name.startswith(_ASIDE):
            _bring_back(path, directory)
        elif path.name.startswith(_SAVED):
            main, *gone = (path / _BEFORE / _PLAN).read_text(encoding="utf-8").splitlines()
            others = [each.name for each in path.iterdir() if each.is_file() and each.name != main]
            for name in (*others, *gone):
                (directory / name).unlink(missing_ok=True)
            for name in (main, *others):
                if (path / name).exists():
                    (path / name).replace(directory / name)
            shutil.rmtree(_done(path))
        else:
            shutil.rmtree(path)


def _done(saved: Path) -> Path:
    """Say of a folder that all is moved: what is left in it is to be cleared away, and that can be killed, too."""
    return saved.replace(saved.with_name(saved.name.replace(_SAVED, _SAVING)))


def exchange(contents: Mapping[str, bytes], directory: Path, gone: Sequence[str] = ()) -> None:
    """Write files into a locked folder in place of those of before, all or none; `gone` are not to be there any more.

    The last of `contents` is what the others are made of.

    Raises:
        OSError: They cannot be written; what was there before is there.
    """
    staging = Path(tempfile.mkdtemp(prefix=_SAVING, dir=directory))
    try:
        for name, content in contents.items():
            (staging / name).write_bytes(content)
        *others, main = contents
        (staging / _BEFORE).mkdir()
        (staging / _BEFORE / _PLAN).write_text("\n".join((main, *gone)), encoding="utf-8")
        if (directory / main).exists():
            shutil.copy2(directory / main, staging / _BEFORE / main)
        written = staging.with_name(staging.name.replace(_SAVING, _SAVED))
        staging.replace(written)
        staging = written
        try:
            for name in (*others, *gone):
                if os.path.lexists(directory / name):
                    (directory / name).replace(staging / _BEFORE / name)
            for name in (main, *others):
                (staging / name).replace(directory / name)
            staging = _done(staging)
        except BaseException:
            _undo(staging, directory, main, others, gone)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _undo(staging: Path, directory: Path, main: str, others: Sequence[str], gone: Sequence[str]) -> None:
    """Put back what was there, as far as it was moved, in the opposite order."""
    before = staging / _BEFORE
    for name in others:
        if os.path.lexists(directory / name) and not (staging / name).exists():
            (directory / name).replace(staging / name)
    if not (staging / main).exists():
        (directory / main).replace(staging / main)
        if (before / main).exists():
            (before / main).replace(directory / main)
    for name in (*others, *gone):
        if os.path.lexists(before / name):
            (before / name).replace(directory / name)


class Aside:
    """An earlier result, out of its place for as long as nobody knows whether there will be another.

    What is in its place while a verification runs would be taken for its result, should it die: by a reader who opens
    the report, and by a script that reads the verdict. Deleting it would lose what may have taken hours.

    Args:
        directory: Where it is; need not exist.
        names: Its files; the first is what the others are made of.
    """

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self.directory = directory
        self.names = names
        self.folder: Path | None = None

    @classmethod
    def of(cls, folder: Path) -> Aside:
        """The one that another process moved to `folder`."""
        found = cls(folder.parent, ())
        found.folder = folder
        return found

    def move(self) -> Path | None:
        """Move it to a folder of its own in the directory: `earlier`, or `earlier-2` and so on where that exists.

        Returns:
            The folder; None where there was nothing.

        Raises:
            OSError: It cannot be moved, and is where it was.
        """
        if not self.directory.is_dir():
            return None
        with locked(self.directory):
            names = [name for name in self.names if (self.directory / name).is_file()]
            if not names:
                return None
            hidden = self.folder = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.directory))
            try:
                for name in names:  # the result first: what is left of it in between is no result
                    (self.directory / name).replace(hidden / name)
                hidden.chmod(self.directory.stat().st_mode & 0o777)  # temporary folders are closed to others
                numbered = (
                    EARLIER if number == 1 else f"{EARLIER}-{number}" for number in itertools.count(1)
                )
                free = (self.directory / name for name in numbered)
                self.folder = next(path for path in free if not os.path.lexists(path))
                hidden.replace(self.folder)
            except BaseException:
                _bring_back(hidden if hidden.exists() else self.folder, self.directory)
                self.folder = None
                raise
        return self.folder

    def put_back(self) -> None:
        """Put it back, unless another result has come there meanwhile.

        Raises:
            OSError: It cannot be moved, and is in its folder.
        """
        if self.folder is not None and self.folder.exists():
            with locked(self.directory):
                hidden = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.directory))
                self.folder.replace(hidden)  # a folder may take an empty one's place
                _bring_back(hidden, self.directory)
        self.folder = None

    def drop(self) -> None:
        """Another result is in its place: it is not wanted any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None


def _bring_back(hidden: Path, directory: Path) -> None:
    """Move an earlier result from its folder to its place, the result itself last, and remove the folder."""
    files = sorted(hidden.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
    if not any(path.suffix == ".json" and os.path.lexists(directory / path.name) for path in files):
        for path in files:
            path.replace(directory / path.name)
    shutil.rmtree(hidden)
