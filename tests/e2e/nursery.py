"""Commands in processes of their own that need not import torch again: each is forked from one that has.

Run as a program it imports what takes long, but nothing of the command line, and then reads requests, one a line:
what to run, where, in which environment and where its output goes. It answers with the exit code of each.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_TRANSLATED = 99
"""The exit code of a command that an exception went through, which is none of the contract."""


class Nursery:
    """Starts commands from a process that has imported torch, and waits for each."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End it; what it has started has ended before."""
        self._parent.kill()
        self._parent.communicate()

    def run(
        self, arguments: Sequence[str], place: Path, environment: Mapping[str, str], patience: float
    ) -> tuple[int, str, str]:
        """Run `python -m verifier` with these arguments to its end: its exit code, stdout and stderr."""
        outputs = [place.with_name(f"{place.name}.{name}") for name in ("out", "err")]
        request = {
            "arguments": list(arguments),
            "place": str(place),
            "environment": dict(environment),
            "outputs": [str(each) for each in outputs],
            "patience": patience,
        }
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(request) + "\n")
        self._parent.stdin.flush()
        code = int(self._parent.stdout.readline())
        assert code != -signal.SIGKILL, (
            f"{arguments} was killed: it may have taken longer than {patience} seconds"
        )
        texts = [each.read_text(encoding="utf-8") for each in outputs]
        for each in outputs:
            each.unlink()
        return code, texts[0], texts[1]


def serve() -> None:
    """Answer requests until there are no more."""
    import torch
    import torchvision  # noqa: F401 - that is what a process is forked for

    import reports.html  # noqa: F401 - likewise
    import verifier.verification  # noqa: F401 - likewise
    from verifier.metrics import collect, measure, precision

    for dtype in (torch.float64, torch.float32):  # kernels that were compiled before are loaded
        x = torch.ones(2, dtype=dtype)
        collect([measure(x, x)])
        precision.collect([precision.read(x.double(), x, x)])

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
        with contextlib.suppress(ProcessLookupError):
            signal.signal(signal.SIGALRM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
            signal.alarm(int(request["patience"]))
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(request: dict[str, Any]) -> NoReturn:
    """Be the command that was asked for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(each, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for each in request["outputs"]]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["place"])
    sys.path[0] = request["place"]
    sys.path[1:1] = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["-m", *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", "verifier", *request["arguments"]]
    try:
        runpy.run_module("verifier", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(NOT_TRANSLATED)


if __name__ == "__main__":
    serve()
