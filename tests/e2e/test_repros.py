"""Scripts that show a fault, from the real command."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

SMALL = ("--image-size", "32", "--batch-size", "2", "--repro", "attached", "-v")


def test_a_fault_is_written_down_to_be_attached(call: Callable[..., Ended]) -> None:
    ended = call("run", "--baseline", "nets.py:net", "--candidate", "nets.py:other_eps", *SMALL)
    assert ended.code == 1
    assert "--repro wrote scripts that need torch alone: repro-1-bn2.py" in " ".join(ended.out.split())
    written = {name for name in ended.new if name.startswith("attached")}
    assert written == {"attached/repro-1-bn2.py", "attached/repro-1-bn2.safetensors"}
    script = ended.directory / "attached" / "repro-1-bn2.py"
    shown = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert str(ended.directory) not in script.read_text(encoding="utf-8")  # no place of somebody's home


def test_a_match_leaves_no_directory(call: Callable[..., Ended]) -> None:
    ended = call("run", "--baseline", "nets.py:net", "--candidate", "nets.py:net", *SMALL)
    assert ended.code == 0
    assert "--repro wrote nothing" in ended.out
    assert not any(name.startswith("attached") for name in ended.new)
