"""Users' files, imported in a context of their own: two versions of one program never share a module.

What such a file imports and what lies beside it, or in its package, is found there first and kept under a name that
starts with the context's, also where it is imported late, in a `forward` say. The names the program itself uses stay
what they are to the caller.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.border.error_texts import account, is_users
from verifier.border.programs import translating
from verifier.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

ROOT = "/./"
"""What parts the folder that imports start in from the rest of a path, as in `old/./package/net.py`."""


_PROJECT = (".git", "pyproject.toml", "setup.py")  # what lies in the topmost folder of a project


@dataclass
class Context:
    """Folders that imports start in, and the modules that were found there.

    `seen` are the files that ran, each with a hash of what it held.
    """

    name: str
    folders: list[str]
    seen: dict[str, bytes] = field(default_factory=dict)

    def imported(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - as `__import__` has it
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What an `import` in one of these modules leads to."""
        top = name.partition(".")[0]
        if level or not self._provides(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        try:
            found = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
        except ModuleNotFoundError as error:
            error.msg, error.name = self.without(error.msg), self.without(error.name or "")
            raise
        return found if fromlist else sys.modules[f"{self.name}.{top}"]

    def without(self, text: str) -> str:
        """A text in which modules are called what the program calls them."""
        return text.replace(f"{self.name}.", "")

    def _provides(self, top: str) -> bool:
        if f"{self.name}.{top}" in sys.modules:
            return True
        self.folders[:0] = self._put_first()
        spec = importlib.machinery.PathFinder.find_spec(top, self.folders)
        if spec is None and (above := _above(Path(self.folders[0]), top)) is not None:
            self.folders.append(above)
            spec = importlib.machinery.PathFinder.find_spec(top, self.folders)
        if spec is None:
            return False
        loaded = sys.modules.get(top)
        if loaded is not None:  # what is installed stays what it is; another version of the user's does not
            place = _place_of(loaded)
            return place is not None and is_users(place) and not _same(place, _found_at(spec))
        if spec.origin is not None:
            return True
        elsewhere = importlib.util.find_spec(top)  # a folder alone gives way to any package
        return elsewhere is None or elsewhere.origin is None

    def _put_first(self) -> list[str]:
        """Folders that the program has put before its own on Python's path, and are no other's."""
        known = {folder for context in _contexts.values() for folder in context.folders}
        if not any(folder in sys.path for folder in self.folders):
            return []
        before = itertools.takewhile(lambda each: each not in self.folders, sys.path)
        return [each for each in before if each not in known]

    def is_current(self) -> bool:
        """Whether all that ran still stands in its file."""
        return all(_digest_of(path) == digest for path, digest in self.seen.items())


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module as its file is now: what Python caches is told apart by whole seconds, and edits are faster."""

    def __init__(self, context: Context, name: str, path: str) -> None:
        super().__init__(name, path)
        self.context = context

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_data(self.path)
        self.context.seen[self.path] = hashlib.sha256(code).digest()
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self.context.imported}
        exec(self.source_to_code(code, self.path), module.__dict__)  # noqa: S102


class _Finder:
    """Finds the modules of contexts, on the import system's list."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        context = _contexts.get(name.partition(".")[0])
        if context is None or path is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(context, name, spec.loader.path)
        return spec


_contexts: dict[str, Context] = {}
_finder = _Finder()


def rooted(place: str) -> tuple[Path | None, str]:
    """The folder that a path names as the one imports start in, None where it names none; and the rest."""
    root, mark, rest = place.replace(os.sep, "/").partition(ROOT)
    return (Path(root or "/").expanduser(), rest) if mark and rest else (None, place)


def located(root: Path, name: str) -> Path | None:
    """The file of a module below a folder, `package.module`; None where there is none."""
    inside = root.joinpath(*name.split("."))
    found = (inside / "__init__.py", inside.with_name(f"{inside.name}.py"))
    return next((each for each in found if each.is_file()), None)


@contextlib.contextmanager
def imported(file: Path, spec: str, root: Path | None = None) -> Iterator[ModuleType]:
    """A Python file as a module; inside, what lies beside it can also be imported in other ways than by `import`.

    Args:
        file: It.
        spec: The specification it was named in, for messages.
        root: The folder its imports start in; None for the file's own or, where it imports by `.`, its package's.

    Raises:
        SourceError: It cannot be read, or raised.
    """
    file, code = file.resolve(), _read(file, spec)
    root = root.resolve() if root is not None else _root(file, code)
    if not file.is_relative_to(root):
        raise SourceError(f"{file} in {spec!r} does not lie in {root}, where its imports are to start")
    folders = tuple(dict.fromkeys((str(root), str(file.parent))))
    context = _context(folders)
    with importable(folders):
        yield _module(context, file, file.relative_to(root))


def _read(file: Path, spec: str) -> bytes:
    if file.is_dir():
        raise SourceError(f"{file} in {spec!r} is a folder; name the Python file in it that builds the model")
    if not file.is_file():
        with_suffix = file.with_name(f"{file.name}.py")
        raise SourceError(
            f"{file} in {spec!r} does not exist"
            + (f"; did you mean {with_suffix}?" if with_suffix.is_file() else f" (looked from {Path.cwd()})")
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error


def _root(file: Path, code: bytes) -> Path:
    """The folder a file's package lies in if it imports by `.` or from that package, else its own folder."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError):
        return file.parent  # running it will say what is wrong
    level = max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    root = file.parent
    for _ in range(level - 1):
        root = root.parent
    inside = root.name
    while (root / "__init__.py").is_file() and root != root.parent:
        root, inside = root.parent, root.name
    return root if level or inside in {name.partition(".")[0] for name in names} else file.parent


def _above(folder: Path, top: str) -> str | None:
    """The nearest folder above, up to the project's, with a module or package of this name that is not installed.

    It is what the program means wherever it is run from: the current directory may hold another version.
    """
    loaded = sys.modules.get(top)
    found = importlib.util.find_spec(top) if loaded is None else getattr(loaded, "__spec__", None)
    place = None if found is None else _found_at(found)
    if found is not None and (place is None or not is_users(place)):
        return None
    while not any((folder / sign).exists() for sign in _PROJECT) and folder != folder.parent:
        folder = folder.parent
        if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
            return str(folder)
    return None


def _context(folders: tuple[str, ...]) -> Context:
    """The context of these folders; another one where a file that ran there has changed since."""
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, folders))).hexdigest()[:8]
    stem = re.sub(r"[^0-9A-Za-z_]", "_", f"{Path(folders[0]).name}_{digest}")
    count = 0
    while (known := _contexts.get(name := f"_{stem}_{count}")) is not None and not known.is_current():
        count += 1
    if known is not None:
        return known
    context = _contexts[name] = Context(name, [*folders])
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = context.folders
    sys.modules[name] = importlib.util.module_from_spec(spec)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    return context


def _module(context: Context, file: Path, inside: Path) -> ModuleType:
    """The file as a module of its context, after the packages it lies in."""
    packages = ".".join((context.name, *inside.parent.parts))
    is_package = inside.name == "__init__.py" and len(inside.parts) > 1
    stem = inside.stem
    if not stem.isidentifier():
        stem = f"{re.sub(r'[^0-9A-Za-z_]', '_', stem)}_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
    name = packages if is_package else f"{packages}.{stem}"
    with translating(
        lambda error: SourceError(f"{file} does not import: {context.without(account(error))}{_hint(error)}")
    ):
        importlib.import_module(packages)
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(
            name, file, loader=_Loader(context, name, str(file)), submodule_search_locations=None
        )
        assert spec is not None and spec.loader is not None  # noqa: PT018, S101 - a loader was given
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # before it runs: dataclasses and pickle look there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
    return module


def _hint(error: BaseException) -> str:
    is_relative = isinstance(error, ImportError) and "relative import" in str(error)
    return f"; say in which folder its imports start: DIR{ROOT}FILE:callable" if is_relative else ""


def _digest_of(path: str) -> bytes | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        return None


def _place_of(module: ModuleType) -> str | None:
    """The file a module came from, or the first folder of a package without one."""
    file = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", ())), None)


def _found_at(spec: importlib.machinery.ModuleSpec) -> str | None:
    return spec.origin or next(iter(spec.submodule_search_locations or ()), None)


def _same(first: str, second: str | None) -> bool:
    return second is not None and os.path.realpath(first) == os.path.realpath(second)


# Which modules came into being as neighbours of which user's file, under the program's own names: by
# `importlib.import_module`, say. Those of another version have the same names, and must not be given in their place.
_neighbours: dict[str, tuple[str, ...]] = {}


@contextlib.contextmanager
def importable(folders: Sequence[str]) -> Iterator[None]:
    """Let imports find what lies in `folders`, and there only its own neighbours of a user's file."""
    home = tuple(folders)
    hidden = {
        name: sys.modules.pop(name)
        for name, place in _neighbours.items()
        if place != home and name in sys.modules and _lies_in(home, name.partition(".")[0])
    }
    known = set(sys.modules)
    before = sys.path
    sys.path = [*home, *before]  # another list: a thread that imports walks through this one meanwhile
    importlib.invalidate_caches()
    try:
        yield
    finally:
        left = [*sys.path]
        for entry in home:
            with contextlib.suppress(ValueError):
                left.remove(entry)
        sys.path = before if left == before else left
        for name in set(sys.modules) - known:
            place_of = _place_of(sys.modules[name])
            if (
                name.partition(".")[0] not in _contexts
                and place_of
                and is_users(place_of)
                and any(Path(place_of).is_relative_to(folder) for folder in home)
            ):
                _neighbours.setdefault(name, home)
        sys.modules.update(hidden)


def _lies_in(folders: Sequence[str], name: str) -> bool:
    return any(
        os.path.isfile(os.path.join(folder, f"{name}.py")) or os.path.isdir(os.path.join(folder, name))
        for folder in folders
    )
