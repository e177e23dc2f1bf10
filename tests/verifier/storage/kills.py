"""Saves results over one another in processes that are killed; run by `test_folder.py`, and by hand with counts.

A process of its own without torch, so that it can fork: `kills.py TASK RESULT DIRECTORY [MOMENTS]`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from verifier.storage import saving
from verifier.storage.folder import Aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification

Files = dict[str, bytes]
TOUCHING = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "shutil.copyfile",
    "shutil.rmtree",
    "os.scandir",
)


def files_of(directory: Path) -> Files:
    """The files of a result that lie in `directory`."""
    return {name: (directory / name).read_bytes() for name in saving.WRITTEN if (directory / name).is_file()}


def forked(act: Callable[[], object]) -> int:
    """Start a process that does `act` and ends."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return child


def ended_by(child: int) -> int:
    """The signal a process was ended by; 0 if it ended well by itself, -1 if it raised."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) * -1


def killed_at(event: int, act: Callable[[], object]) -> Callable[[], object]:
    """`act`, killed when it is about to touch the file system for the `event`-th time."""

    def run() -> None:
        left = event

        def watch(name: str, _arguments: object) -> None:
            nonlocal left
            if name in TOUCHING:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        act()

    return run


def whole(found: Files, runs: list[Files]) -> bool:
    """Whether files are those of one run, its result among them."""
    return saving.RESULT in found and any(found.items() <= run.items() for run in runs)


def made(verification: Verification, directory: Path) -> Files:
    """The files of a result, as they are written where nothing was before."""
    saving.save(verification, directory)
    found = files_of(directory)
    shutil.rmtree(directory)
    return found


def kills(
    prepare: Callable[[], object],
    act: Callable[[], object],
    check: Callable[[], dict[str, bool]],
    moments: int,
) -> dict[str, object]:
    """Kill `act` whenever it touches the file system, then `moments` times at random; what `check` found, counted."""
    counts: dict[str, int] = {}
    failed: list[str] = []
    died = 0

    def once(child: int, moment: str) -> bool:
        nonlocal died
        number = ended_by(child)
        died += number == signal.SIGKILL
        for what, holds in check().items():
            counts[what] = counts.get(what, 0) + holds
            if not holds:
                failed.append(f"{moment}: {what}")
        return number == signal.SIGKILL

    event = 0
    while True:
        prepare()
        if not once(forked(killed_at(event, act)), f"event {event}"):
            break
        event += 1
    prepare()
    started = time.monotonic()
    ended_by(forked(act))
    length = time.monotonic() - started
    for _ in range(moments):
        prepare()
        child = forked(act)
        moment = random.uniform(0, length)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        once(child, f"after {moment:.4f} of {length:.4f} s")
    return {"events": event, "random": moments, "died": died, "counts": counts, "failed": failed}


def main() -> None:
    """Do the task that is named and print what was found as JSON."""
    task, source, place, *more = sys.argv[1:]
    moments = int(more[0]) if more else 0
    old = saving.load(source)
    new = msgspec.structs.replace(old, command="another run")
    directory = Path(place)
    runs = [made(each, directory) for each in (old, new)]

    def fresh() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name, content in runs[0].items():
            (directory / name).write_bytes(content)

    def hidden() -> list[str]:
        return [path.name for path in directory.iterdir() if path.name.startswith(".")]

    def check() -> dict[str, bool]:
        before = files_of(directory)
        number = int(saving.load(directory).command == new.command)
        after = files_of(directory)
        return {
            "at once: a result, and no file of another run": whole(before, runs),
            "for the next reader: one run's result, alone or with all that is made of it": after
            in (runs[number], {saving.RESULT: runs[number][saving.RESULT]}),
            "for the next reader: nothing else": hidden() == [],
        }

    def check_aside() -> dict[str, bool]:
        before, kept = files_of(directory), files_of(directory / "earlier")
        with_lock = Aside(directory, ())
        with_lock.move()  # takes the lock, and finishes what the dead one began
        after, aside = files_of(directory), files_of(directory / "earlier")
        return {
            "at once: no file of another run": before.items() <= runs[0].items() and kept in ({}, runs[0]),
            "for the next command: whole, in its place or aside": [after, aside]
            in ([runs[0], {}], [{}, runs[0]]),
            "for the next command: nothing else": hidden() == [],
        }

    def there_and_back() -> None:
        aside = Aside(directory, saving.WRITTEN)
        aside.move()
        aside.put_back()

    if task == "save":
        print(json.dumps(kills(fresh, lambda: saving.save(new, directory), check, moments)))
    elif task == "aside":
        print(json.dumps(kills(fresh, there_and_back, check_aside, moments)))
    else:
        mixed = 0
        for _ in range(moments):
            fresh()
            both = [forked(lambda each=each: saving.save(each, directory)) for each in (old, new)]  # type: ignore[misc]
            codes = [ended_by(child) for child in both]
            mixed += codes != [0, 0] or files_of(directory) not in runs or hidden() != []
        print(json.dumps({"times": moments, "mixed": mixed}))


if __name__ == "__main__":
    main()
