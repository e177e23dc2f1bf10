"""What was compiled is kept where that can be done, and compiled again where it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import verifier

if TYPE_CHECKING:
    from collections.abc import Callable

NOWHERE = f"{os.devnull}/none"

PROGRAM = """
import torch
from verifier.certificates import kernel
from verifier.certificates.bits import BitHash
from verifier.metrics import kernel_cpu, pieces_cpu
found = BitHash(torch.device("cpu"))
found.add(torch.arange(10.0), 0)
wide = torch.zeros(4, dtype=torch.float64)
kernel_cpu.widen_float32(torch.ones(4).numpy(), wide.numpy())
assert wide.tolist() == [1] * 4
for each in (kernel.hashed, kernel_cpu.widen_float32):
    print(sum(each.stats.cache_hits.values()), each.stats.cache_path)
"""


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """The package where nothing can be kept beside it, not even by root: a file stands in each cache's place."""
    assert verifier.__file__ is not None
    copy = tmp_path / "site" / "verifier"
    shutil.copytree(Path(verifier.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in {each.parent for each in copy.rglob("*.py")}:
        (folder / "__pycache__").touch()
    return copy.parent


def ran(site: Path, cache: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": str(site), "XDG_CACHE_HOME": cache, "HOME": NOWHERE, "LOCALAPPDATA": cache}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=site,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(
    sys.platform == "darwin", reason="has its caches in the home directory, whatever is asked for"
)
def test_where_the_package_cannot_be_written_to_the_users_cache_is_used(sealed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ran(sealed, str(cache))
    second = ran(sealed, str(cache))
    assert [each.split()[0] for each in first[:2]] == ["0", "0"]
    assert [each.split()[0] for each in second[:2]] == ["1", "1"]
    assert all(Path(each.split()[1]).is_relative_to(cache) for each in second[:2])
    assert list(cache.rglob("kernel.hashed-*.nbc"))


def test_where_nothing_can_be_written_it_is_compiled_each_time(sealed: Path) -> None:
    assert ran(sealed, NOWHERE)[:2] == ["0 None", "0 None"]


def loaded(folder: Path) -> Callable[[Any], float]:
    """A compiled function, as a process that begins would find it."""
    file = folder / "kernels.py"
    if not file.exists():
        file.write_text(
            "from verifier.metrics.jit import compiled\n\n\n"
            "@compiled\ndef largest(values):\n    found = values[0]\n"
            "    for each in values:\n        found = max(found, each)\n    return found\n"
        )
    spec = importlib.util.spec_from_file_location("kernels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernels"] = module  # where what was compiled looks for its own
    spec.loader.exec_module(module)
    found: Callable[[Any], float] = module.largest
    return found


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("length", [0, 100], ids=["empty", "cut off"])
def test_a_damaged_file_is_replaced(
    kind: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kernels", None)  # as it was, afterwards
    values = np.arange(5.0)
    assert loaded(tmp_path)(values) == 4
    (file,) = tmp_path.rglob(f"*.{kind}")
    file.write_bytes(file.read_bytes()[:length])
    anew = loaded(tmp_path)
    assert anew(values) == 4
    assert hits(anew) == 0
    again = loaded(tmp_path)
    assert again(values) == 4
    assert hits(again) == 1


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_what_cannot_be_written_or_read_is_no_error(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, or where another user's files are in the way."""
    monkeypatch.setitem(sys.modules, "kernels", None)
    values = np.arange(5.0)
    loaded(tmp_path)(values)
    (file,) = tmp_path.rglob(f"*.{kind}")
    file.unlink()
    file.mkdir()
    for _ in range(2):
        anew = loaded(tmp_path)
        assert anew(values) == 4
        assert hits(anew) == 0
