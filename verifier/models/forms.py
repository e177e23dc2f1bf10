"""Forms of a model that cannot be looked into yet: what they are, and what to give in their place."""

from __future__ import annotations

import torch
from torch import nn

from verifier.errors import UsageError

_INSTEAD = {
    "ExportedProgram": ("an exported program", "its module, `program.module()`"),
    "ModelProto": ("an ONNX model", "the torch.nn.Module it was exported from"),
    "InferenceSession": ("an ONNX Runtime session", "the torch.nn.Module it was exported from"),
    "CompiledModel": ("a compiled OpenVINO model", "the torch.nn.Module it was converted from"),
}
_QUANTIZED = "torch.ao.nn.quantized", "torch.nn.quantized"


def refuse_form(role: str, model: object) -> None:
    """See that a model is made of modules whose operators can be watched.

    Raises:
        UsageError: It is another form of a model, or no model at all; the message says what to give.
    """
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        what, instead = "a TorchScript module", "the torch.nn.Module that it was scripted or traced from"
    elif kind in _INSTEAD:
        what, instead = _INSTEAD[kind]
    elif not isinstance(model, nn.Module):
        raise UsageError(f"the {role} is a {kind}, not a torch.nn.Module or a specification.")
    elif any(type(each).__module__.startswith(_QUANTIZED) for each in model.modules()):
        what, instead = (
            "quantised, with layers that hold packed weights",
            "it as it was before it was converted",
        )
    else:
        return
    raise UsageError(f"the {role} is {what}, which this verifier cannot look into yet: give {instead}.")
