"""ONNX Runtime's sessions: a model that runs, optimised to a level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
import torch

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

LEVELS = {
    "disable_all": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""The runtime's levels of graph optimisation, least first; the last is what it does unless told otherwise."""

_QUIET = 4  # only what ends a run is logged: what a session raises is told here


def opened(
    model: onnx.ModelProto | Path,
    *,
    level: str = "disable_all",
    heavy: bool = True,
    saved: Path | None = None,
) -> Any:
    """A session of a model on the CPU.

    Args:
        model: The model, or its file.
        level: One of `LEVELS`.
        heavy: Whether threads pay for it.
        saved: Where the optimised model is written.

    Raises:
        Exception: The runtime's own, where it does not take the model.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = torch.get_num_threads() if heavy else 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.enable_cpu_mem_arena = False  # each session would keep what its largest run took
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    content = str(model) if not hasattr(model, "SerializeToString") else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
