"""The machine and the process: what numerics depend on, and process-wide state put back as it was."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import random
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.border import git
from verifier.records import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = (
    "parity-verifier",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "numba",
    "msgspec",
    "pandas",
    "pillow",
    "safetensors",
    "scikit-image",
    "triton",
)

VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


@dataclass(frozen=True, slots=True)
class Flag:
    """A process- or thread-wide setting: its name in reports, how to read it and how to set it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


# torch has two interfaces to the precision of float32 arithmetic. Writing the older one (matmul precision,
# allow_tf32) changes the newer one (fp32_precision per backend and operator), so the older is restored first;
# reading the older one raises once the two disagree. In the newer one, parents come before children. The
# low-level accessors are used because `torch.backends.mkldnn.fp32_precision = x` sets every backend.
_PRECISIONS = (
    ("generic", "all"),
    ("cuda", "all"),
    ("cuda", "matmul"),
    ("cuda", "conv"),
    ("cuda", "rnn"),
    ("mkldnn", "all"),
    ("mkldnn", "matmul"),
    ("mkldnn", "conv"),
    ("mkldnn", "rnn"),
)


def _attribute(owner: Any, name: str, label: str) -> Flag:
    return Flag(label, lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _read_algorithms() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _write_algorithms(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _write_device(device: torch.device) -> None:
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _autocast(device: str) -> tuple[Flag, Flag]:
    return (
        Flag(
            f"autocast {device}",
            lambda: torch.is_autocast_enabled(device),
            lambda on: torch.set_autocast_enabled(device, on),
        ),
        Flag(
            f"autocast {device} dtype",
            lambda: torch.get_autocast_dtype(device),
            lambda dtype: torch.set_autocast_dtype(device, dtype),
        ),
    )


_backends: Any = torch.backends
FLAGS: tuple[Flag, ...] = (
    Flag("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Flag("default device", torch.get_default_device, _write_device),
    Flag("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    *_autocast("cpu"),
    *_autocast("cuda"),
    Flag("autocast cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    Flag("threads", torch.get_num_threads, torch.set_num_threads),
    # A subnormal number that Python's own arithmetic finds to be zero: the only way to read this one.
    Flag("flush denormal", lambda: sys.float_info.min / 2 == 0.0, torch.set_flush_denormal),
    Flag("deterministic algorithms", _read_algorithms, _write_algorithms),
    Flag("matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _attribute(_backends.cuda.matmul, "allow_tf32", "cuda matmul tf32"),
    _attribute(_backends.cudnn, "allow_tf32", "cudnn tf32"),
    _attribute(_backends.cudnn, "enabled", "cudnn"),
    _attribute(_backends.cudnn, "benchmark", "cudnn benchmark"),
    _attribute(_backends.cudnn, "deterministic", "cudnn deterministic"),
    Flag(
        "cuda matmul fp16 reduced precision reduction",
        torch._C._get_cublas_allow_fp16_reduced_precision_reduction,
        lambda value: torch._C._set_cublas_allow_fp16_reduced_precision_reduction(*value),
    ),
    Flag(
        "cuda matmul bf16 reduced precision reduction",
        torch._C._get_cublas_allow_bf16_reduced_precision_reduction,
        lambda value: torch._C._set_cublas_allow_bf16_reduced_precision_reduction(*value),
    ),
    _attribute(_backends.cuda.matmul, "allow_fp16_accumulation", "cuda matmul fp16 accumulation"),
    _attribute(_backends.mkldnn, "enabled", "mkldnn"),
    _attribute(_backends.mkldnn, "deterministic", "mkldnn deterministic"),
    Flag("flash attention", _backends.cuda.flash_sdp_enabled, _backends.cuda.enable_flash_sdp),
    Flag(
        "memory-efficient attention",
        _backends.cuda.mem_efficient_sdp_enabled,
        _backends.cuda.enable_mem_efficient_sdp,
    ),
    Flag("math attention", _backends.cuda.math_sdp_enabled, _backends.cuda.enable_math_sdp),
    Flag("cudnn attention", _backends.cuda.cudnn_sdp_enabled, _backends.cuda.enable_cudnn_sdp),
    Flag("attention fast path", _backends.mha.get_fastpath_enabled, _backends.mha.set_fastpath_enabled),
)


# The settings that let float32 matrix products be rounded to TF32. (That convolutions may is torch's default.)
TF32_FLAGS = ("matmul precision", "cuda matmul tf32")


def tf32_allowed() -> bool:
    """Whether float32 matrix products on CUDA may be rounded to TF32 now, which torch by itself does not allow."""
    with _quiet():
        return _precision(("cuda", "matmul")) == "tf32" or _reading(
            next(flag for flag in FLAGS if flag.name == TF32_FLAGS[1])
        ) == (True,)


@contextlib.contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Let float32 products and convolutions on CUDA be rounded to TF32, or not, and put all flags back afterwards."""
    saved = _save_flags()
    with _quiet():
        _backends.cuda.matmul.allow_tf32 = _backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        _restore_flags(saved)


def describe() -> Environment:
    """Versions, machine, devices and every setting that touches numerics, as they are now."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(),
        packages=_packages(),
        devices=("cpu", *(f"cuda:{index} {name}" for index, name in enumerate(_cuda_devices()))),
        threads=torch.get_num_threads(),
        flags=flags(),
        **_working_tree(),
    )


def _working_tree() -> dict[str, Any]:
    """The commit of the git repository the process works in, and whether its tree differs from it."""
    commit = git.ask("rev-parse", "HEAD")
    if not commit:
        return {}
    changes = git.ask("status", "--porcelain", "--untracked-files=normal")
    # Results and data that git does not know are no reason to distrust the code; code is.
    dirty = changes is not None and any(
        not line.startswith("??") or line.rstrip('"').endswith(".py") for line in changes.splitlines()
    )
    return {"commit": commit, "dirty": None if changes is None else dirty}


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Put back, on the way out, all process-wide state that running somebody's model could change.

    That is: the random states of torch (CPU and CUDA), numpy and `random`; grad mode, autocast, default dtype
    and default device; thread count; and the backend flags in `FLAGS` with the float32 precisions. It is put
    back after an exception and after Ctrl-C too. Grad mode, autocast and denormal flushing are those of the
    calling thread.
    """
    generators = _save_generators()
    flags = _save_flags()
    try:
        yield
    finally:
        _restore_flags(flags)
        _restore_generators(generators)


def seed_all(seed: int) -> None:
    """Start the global random states of torch, numpy and `random`: those a model or a transform would use."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is the one a model would use
    random.seed(seed)


@dataclass(frozen=True, slots=True)
class _Generators:
    python: Any
    numpy: Any
    cpu: torch.Tensor
    seed: int
    cuda: list[torch.Tensor] | None


def _save_generators() -> _Generators:
    return _Generators(
        python=random.getstate(),
        numpy=np.random.get_state(),  # noqa: NPY002 - the global state is the one a model would use
        cpu=torch.get_rng_state(),
        seed=torch.initial_seed(),
        cuda=torch.cuda.get_rng_state_all() if _cuda_is_initialized() else None,
    )


def _restore_generators(saved: _Generators) -> None:
    random.setstate(saved.python)
    np.random.set_state(saved.numpy)  # noqa: NPY002 - see above
    if saved.cuda is not None:
        torch.cuda.set_rng_state_all(saved.cuda)
    elif torch.cuda.is_available():
        # CUDA had no state yet, but a seed may have been waiting for it: the one last given to `manual_seed`.
        torch.cuda.manual_seed_all(saved.seed)
    torch.set_rng_state(saved.cpu)


@dataclass(frozen=True, slots=True)
class _Settings:
    flags: tuple[tuple[Flag, Any], ...]
    precisions: tuple[tuple[tuple[str, str], str], ...]


def _save_flags() -> _Settings:
    with _quiet():
        readings = ((flag, _reading(flag)) for flag in FLAGS)
        return _Settings(
            tuple((flag, reading[0]) for flag, reading in readings if reading),
            tuple((key, _precision(key)) for key in _PRECISIONS),
        )


def _restore_flags(saved: _Settings) -> None:
    with _quiet():
        for flag, value in saved.flags:
            if _reading(flag) != (value,):
                flag.write(value)
        for key, value in saved.precisions:
            if _precision(key) != value:
                _restore_precision(key, value)


def _restore_precision(key: tuple[str, str], value: str) -> None:
    # Inherit from the parent where that gives the value: a later change of the parent then reaches the child.
    torch._C._set_fp32_precision_setter(*key, "none")
    if _precision(key) != value:
        torch._C._set_fp32_precision_setter(*key, value)


def _precision(key: tuple[str, str]) -> str:
    return str(torch._C._get_fp32_precision_getter(*key))


def _reading(flag: Flag) -> tuple[Any] | None:
    """The flag's value, or None where it cannot be read (torch refuses while its two interfaces disagree)."""
    try:
        return (flag.read(),)
    except RuntimeError:
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecation warnings some torch releases give for merely reading the older flags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def flags() -> dict[str, str]:
    """The flags that touch numerics, by name, as they are now."""
    settings = _save_flags()
    known = {flag.name: value for flag, value in settings.flags}
    found = {flag.name: _text(known[flag.name]) if flag.name in known else "mixed" for flag in FLAGS}
    found |= {f"fp32 precision {backend} {op}": value for (backend, op), value in settings.precisions}
    found["cpu capability"] = str(_backends.cpu.get_cpu_capability())
    return found | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(_text(item) for item in value)
    return str(value).removeprefix("torch.")


def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if torch.cuda.is_available():
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(_backends.cudnn.version())
    return versions


def _cuda_is_initialized() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _cuda_devices() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
