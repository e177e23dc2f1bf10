from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.cuda import needs_cuda
from verifier import environment
from verifier.records import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

backends: Any = torch.backends

DISTURBANCES: dict[str, Callable[[], object]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "autocast cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast cpu dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "autocast cache": lambda: torch.set_autocast_cache_enabled(False),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "flush denormal": lambda: torch.set_flush_denormal(True),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "matmul precision high": lambda: torch.set_float32_matmul_precision("high"),
    "matmul precision medium": lambda: torch.set_float32_matmul_precision("medium"),
    "cuda matmul tf32": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "cuda matmul fp16 reduction": lambda: setattr(
        backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False
    ),
    "cuda matmul bf16 reduction": lambda: setattr(
        backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False
    ),
    "cuda matmul fp16 accumulation": lambda: setattr(backends.cuda.matmul, "allow_fp16_accumulation", True),
    "cudnn tf32": lambda: setattr(backends.cudnn, "allow_tf32", False),
    "cudnn": lambda: setattr(backends.cudnn, "enabled", False),
    "cudnn benchmark": lambda: setattr(backends.cudnn, "benchmark", True),
    "cudnn deterministic": lambda: setattr(backends.cudnn, "deterministic", True),
    "mkldnn": lambda: setattr(backends.mkldnn, "enabled", False),
    "mkldnn deterministic": lambda: setattr(backends.mkldnn, "deterministic", True),
    "flash attention": lambda: backends.cuda.enable_flash_sdp(False),
    "memory-efficient attention": lambda: backends.cuda.enable_mem_efficient_sdp(False),
    "math attention": lambda: backends.cuda.enable_math_sdp(False),
    "cudnn attention": lambda: backends.cuda.enable_cudnn_sdp(False),
    "attention fast path": lambda: backends.mha.set_fastpath_enabled(False),
    "every fp32 precision tf32": lambda: setattr(backends, "fp32_precision", "tf32"),
    "every fp32 precision ieee": lambda: setattr(backends, "fp32_precision", "ieee"),
    "cuda matmul fp32 precision": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "cudnn fp32 precision": lambda: setattr(backends.cudnn, "fp32_precision", "ieee"),
    "cudnn conv fp32 precision": lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    "mkldnn fp32 precision": lambda: setattr(backends.mkldnn, "fp32_precision", "bf16"),
    "mkldnn matmul fp32 precision": lambda: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
}


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    with environment.preserved():
        yield


def precisions() -> dict[str, str]:
    return {name: value for name, value in environment.describe().flags.items() if "precision" in name}


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_a_disturbed_setting_is_put_back(disturbance: str) -> None:
    before = environment.describe().flags
    with environment.preserved():
        DISTURBANCES[disturbance]()
        assert environment.describe().flags != before
    assert environment.describe().flags == before


def test_all_settings_disturbed_together_are_put_back() -> None:
    before = environment.describe().flags
    with environment.preserved():
        for disturb in DISTURBANCES.values():
            disturb()
    assert environment.describe().flags == before


@pytest.mark.parametrize("inner", ["matmul precision medium", "cudnn tf32", "every fp32 precision ieee"])
@pytest.mark.parametrize(
    "outer", ["matmul precision high", "every fp32 precision tf32", "cudnn conv fp32 precision"]
)
def test_float32_precision_chosen_by_the_user_survives(outer: str, inner: str) -> None:
    DISTURBANCES[outer]()
    before = precisions()
    with environment.preserved():
        DISTURBANCES[inner]()
    assert precisions() == before


def test_a_precision_that_was_inherited_still_follows_its_parent() -> None:
    backends.fp32_precision = "tf32"
    with environment.preserved():
        backends.mkldnn.matmul.fp32_precision = "ieee"
    assert backends.mkldnn.matmul.fp32_precision == "tf32"
    backends.fp32_precision = "ieee"
    assert backends.mkldnn.matmul.fp32_precision == "ieee"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_settings_are_put_back_after_an_exception(error: type[BaseException]) -> None:
    state = torch.get_rng_state()

    def run_a_model_that_fails() -> None:
        with environment.preserved():
            torch.set_default_dtype(torch.float64)
            torch.rand(3)
            raise error

    with pytest.raises(error):
        run_a_model_that_fails()
    assert torch.get_default_dtype() is torch.float32
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: float(torch.rand(())),
        lambda: float(torch.randn(())),
        random.random,
        lambda: random.gauss(0, 1),
        lambda: float(np.random.rand()),  # noqa: NPY002 - the global generator is the subject
        lambda: float(np.random.randn()),  # noqa: NPY002
    ],
    ids=["torch uniform", "torch normal", "python uniform", "python normal", "numpy uniform", "numpy normal"],
)
def test_random_numbers_continue_as_if_nothing_had_been_drawn(draw: Callable[[], float]) -> None:
    def start() -> None:
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        draw()

    start()
    expected = [draw() for _ in range(4)]
    start()
    with environment.preserved():
        torch.manual_seed(99)
        random.seed(99)
        np.random.seed(99)  # noqa: NPY002
        draw()
    assert [draw() for _ in range(4)] == expected


@needs_cuda
def test_cuda_random_numbers_continue_as_if_nothing_had_been_drawn() -> None:
    torch.cuda.manual_seed(7)
    expected = torch.rand(4, device="cuda").tolist()
    torch.cuda.manual_seed(7)
    with environment.preserved():
        torch.manual_seed(99)
        torch.rand(4, device="cuda")
    assert torch.rand(4, device="cuda").tolist() == expected


@needs_cuda
def test_a_seed_that_waits_for_cuda_is_not_lost() -> None:
    program = """
import torch
from verifier.environment import preserved
torch.manual_seed(7)
with preserved():
    torch.manual_seed(99)
print(torch.rand(1, device="cuda").item())
torch.manual_seed(7)
print(torch.rand(1, device="cuda").item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second


def test_preserving_initialises_no_cuda() -> None:
    program = """
import torch
from verifier.environment import preserved
with preserved():
    torch.manual_seed(99)
print(torch.cuda.is_initialized())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_description_tells_versions_machine_and_settings() -> None:
    described = environment.describe()
    assert isinstance(described, Environment)
    assert described.packages["torch"] == torch.__version__.partition("+")[0]
    assert described.packages["numpy"] == np.__version__
    assert described.devices[0] == "cpu"
    assert described.threads == torch.get_num_threads()
    assert described.processor
    assert described.flags["default dtype"] == "float32"
    assert described.flags["grad mode"] == "on"
    assert described.flags["deterministic algorithms"] == "off, off"


def test_the_description_is_given_while_the_two_float32_interfaces_disagree() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision("highest")
    backends.cuda.matmul.fp32_precision = "tf32"
    flags = environment.describe().flags
    assert flags["cuda matmul tf32"] == "mixed"
    assert flags["fp32 precision cuda matmul"] == "tf32"


def test_environment_variables_that_touch_numerics_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert environment.describe().flags["NVIDIA_TF32_OVERRIDE"] == "0"
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert "NVIDIA_TF32_OVERRIDE" not in environment.describe().flags


def test_the_processor_is_named_as_the_kernel_names_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Imaginary CPU: 9000\nmodel name\t: other\n")
    assert environment._processor(cpuinfo) == "Imaginary CPU: 9000"
    assert environment._processor(tmp_path / "missing")


def test_describing_changes_nothing() -> None:
    state = torch.get_rng_state()
    assert environment.describe() == environment.describe()
    assert torch.equal(torch.get_rng_state(), state)


# --- the caller's working tree


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs git in a repository with one commit, which is where the process works."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity |= {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", *arguments], cwd=tmp_path, check=True, capture_output=True, env=os.environ | identity
        )

    git("init")
    (tmp_path / "net.py").write_text("x = 1")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.chdir(tmp_path)
    return git


def test_the_callers_commit_is_named_and_clean(repository: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("not code")
    described = environment.describe()
    assert len(described.commit) == 40
    assert described.dirty is False


def test_a_change_that_is_not_committed_is_told(repository: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("x = 2")
    assert environment.describe().dirty is True


def test_code_that_git_does_not_know_is_told(repository: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("x = 2")
    assert environment.describe().dirty is True


def test_no_monitor_of_the_repository_is_started(repository: Callable[..., None], tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    hook.chmod(0o755)
    repository("config", "core.fsmonitor", str(hook))
    environment.describe()
    assert not (tmp_path / "started").exists()


def test_without_a_repository_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    described = environment.describe()
    assert (described.commit, described.dirty) == ("", None)


def test_without_git_nothing_is_said(
    repository: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment.describe().commit == ""
