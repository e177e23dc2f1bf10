"""Whole data sets, by the command as users give it: memory over their size, time over ranks, results after kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from verifier.inputs.images import photographs

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH = 32


def crops(directory: Path, count: int, size: int, seed: int = 0) -> Path:
    """Square parts of the sample photographs, of other sides each, as JPEG files of `size` x `size` pixels."""
    draws, wholes = random.Random(seed), []
    for file in photographs("samples")[0]:
        with Image.open(file) as opened:
            wholes.append(opened.convert("RGB"))
    directory.mkdir(parents=True)
    for number in range(count):
        whole = draws.choice(wholes)
        side = draws.randint(64, min(whole.size))
        left, top = (draws.randint(0, length - side) for length in whole.size)
        part = whole.resize((size, size), box=(left, top, left + side, top + side))
        part.save(directory / f"{number:06}.jpg", quality=95)
    return directory


class Ran(NamedTuple):
    """A command that has ended: seconds, the peak resident bytes of its largest process, and of all at once."""

    seconds: float
    largest: int
    together: int


def run(arguments: Sequence[str], *, threads: int, ranks: int = 1) -> Ran:
    """Run `verifier run` and wait for it."""
    launcher = ["torch.distributed.run", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, "verifier", "run", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.DEVNULL,
    )
    most = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            most[0] = max(most[0], sum(map(resident, descendants(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    over.set()
    watcher.join()
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{arguments} ended with {code}")
    return Ran(seconds, usage.ru_maxrss * 1024, most[0])


def descendants(process: int) -> list[int]:
    """A process and all that it has started."""
    found = [process]
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{process}/task").glob("*/children"):
            for child in file.read_text().split():
                found += descendants(int(child))
    return found


def resident(process: int) -> int:
    """Its resident bytes; 0 once it has gone."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def memory(place: Path, count: int, size: int) -> None:
    """The peak memory of many photographs over that of 64."""
    found = {}
    for number in (64, count):
        folder = crops(place / f"memory{number}", number, size)
        found[number] = run([*common(folder, size), "--out", str(place / "out")], threads=2)
        ran = found[number]
        print(
            f"  {number:6,} photographs of {size} px, 2 threads: {ran.seconds:6.1f} s, peak "
            f"{ran.largest / 2**20:6.0f} MiB, with the processes that decode {ran.together / 2**20:6.0f} MiB",
            flush=True,
        )
    print(f"  {count:,} over 64: x {found[count].largest / found[64].largest:.3f}")


def ranks(place: Path, count: int, size: int, rounds: int) -> None:
    """Two ranks of one thread each over one of one thread, on the same photographs, in alternation."""
    folder = crops(place / "ranks", count, size)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(rounds):
        for number in (1, 2) if turn % 2 == 0 else (2, 1):
            out = place / f"ranks{number}"
            seconds[number].append(
                run([*common(folder, size), "--out", str(out)], threads=1, ranks=number).seconds
            )
    ratios = [two / one for one, two in zip(seconds[1], seconds[2], strict=True)]
    one, two = (statistics.median(each) for each in seconds.values())
    print(
        f"  {count:,} photographs of {size} px, one thread a rank: {one:.1f} s of one rank, {two:.1f} s of two: "
        f"x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); load {os.getloadavg()[0]:.1f}"
    )
    same = told(place / "ranks1") == told(place / "ranks2")
    print(f"  the results are {'equal bit for bit' if same else 'NOT EQUAL'}")


def common(folder: Path, size: int) -> list[str]:
    """ResNet-18 of this package against torchvision's."""
    return [
        *("--arch", "resnet18", "--images", str(folder), "--image-size", str(size)),
        *("--batch-size", str(BATCH), "--no-history"),
    ]


NET = """
import torch
from torch import nn


def net(eps=1e-5):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8, eps=eps)
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(7200, 10)).eval()


def other():
    return net(2e-5)


def batches():
    for _ in range(120):
        yield torch.randn(16, 3, 32, 32)
"""


def kills(place: Path, times: int, seed: int = 0) -> None:
    """Runs that are killed at a random moment, gone on with: how many give the result of one that was not."""
    draws = random.Random(seed)
    (place / "net.py").write_text(NET, encoding="utf-8")

    def start(out: str, *more: str) -> int:
        arguments = ["--baseline", "net.py:net", "--candidate", "net.py:other", "--data", "net.py:batches"]
        return forked(place, ["run", *arguments, "--out", out, "--no-history", *more])

    started = time.perf_counter()
    os.waitpid(start("straight"), 0)
    whole = time.perf_counter() - started
    expected, equal, kept, ended = told(place / "straight"), 0, 0, 0
    for turn in range(times):
        again = f"out{turn}", "--checkpoint", f"kept{turn}"
        process = start(*again)
        time.sleep(draws.uniform(0.1, 1.0) * whole)
        os.kill(process, signal.SIGKILL)
        ended += not os.WIFSIGNALED(os.waitpid(process, 0)[1])
        kept += (place / f"kept{turn}").exists()
        os.waitpid(start(*again), 0)
        equal += told(place / f"out{turn}") == expected and not (place / f"kept{turn}").exists()
    print(
        f"  killed {times} times ({kept} times with a checkpoint, {ended} times after the end): "
        f"{equal} results equal that of a run that was not"
    )


def forked(place: Path, arguments: Sequence[str]) -> int:
    """The command in a child of this process, which has imported everything; a checkpoint every 0.1 s."""
    from verifier.bench.checkpoints import Checkpoint
    from verifier.cli import app

    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(place)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        Checkpoint.__init__.__defaults__ = (0.1,)
        sys.argv = ["verifier", *arguments]
        app()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        os._exit(code)


def told(directory: Path) -> Any:
    """What a result says of the models, without times and places."""
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    cells = [{**cell, "seconds": 0} for cell in result["cells"]]
    return result["verdict"], cells, result["inputs"], result["exercise"]


def scale(count: int = 5000, size: int = 64, rounds: int = 3) -> None:
    """Print all of it."""
    print(f"\nWhole data sets: ResNet-18, batch {BATCH}, float32; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        memory(place, count, size)
        ranks(place, 384, 192, rounds)
        kills(place, 20)
