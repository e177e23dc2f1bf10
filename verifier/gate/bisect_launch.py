"""The installed verifier, run on the code of another commit.

A program of its own: a copy of it is what a bisection runs in its worktree. `verifier` and `reports` are imported
from where they were before the bisection began. All else that would come from the checkout the user works in, by a
path or by an editable installation, comes from the worktree: what git tracks is not found if the commit lacks it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from importlib.machinery import ModuleSpec

_OWN = ("verifier", "reports")


class Worktree:
    """A finder that leads from a checkout to a worktree of the same repository."""

    def __init__(self, checkout: str, tree: str, tracked: Collection[str]) -> None:
        self.checkout = os.path.realpath(checkout)
        self.tree = os.path.realpath(tree)
        self.tracked = tracked

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """What the other finders find, in the worktree if that is in the checkout."""
        if name.partition(".")[0] in _OWN:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                return self._moved(name, spec)
        return None

    def _moved(self, name: str, spec: ModuleSpec) -> ModuleSpec:
        places = spec.submodule_search_locations
        if places is not None:
            places = [self._there(place) or place for place in places]
        inside = self._inside(spec.origin) if spec.has_location and spec.origin else None
        if inside is None:
            if places is not None and not spec.has_location:  # a package without a file of its own
                spec.submodule_search_locations = places
            return spec
        there = os.path.join(self.tree, inside)
        if os.path.isfile(there):
            return (
                importlib.util.spec_from_file_location(name, there, submodule_search_locations=places) or spec
            )
        if inside.replace(os.sep, "/") in self.tracked:
            raise ModuleNotFoundError(f"No module named {name!r} at this commit", name=name)
        return spec

    def _there(self, place: str) -> str | None:
        inside = self._inside(place)
        there = None if inside is None else os.path.join(self.tree, inside)
        return there if there is not None and os.path.isdir(there) else None

    def _inside(self, place: str) -> str | None:
        """The path below the checkout; None where it is elsewhere, or in the worktree."""
        real = os.path.realpath(place)
        if _below(real, self.tree) or not _below(real, self.checkout):
            return None
        return os.path.relpath(real, self.checkout)


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def main() -> None:
    """Import this package from where it was, lead all other imports to the worktree, and run the command."""
    terms = json.loads(Path(__file__).with_name("terms.json").read_text(encoding="utf-8"))
    sys.path.insert(0, terms["home"])
    for name in _OWN:
        importlib.import_module(name)
    sys.path.remove(terms["home"])
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    tracked = frozenset(Path(terms["tracked"]).read_text(encoding="utf-8").split("\0"))
    sys.meta_path.insert(0, Worktree(terms["checkout"], terms["tree"], tracked))
    importlib.import_module("verifier.__main__").main()


if __name__ == "__main__":
    main()
