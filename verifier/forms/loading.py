"""From a file, an object or `compile:SPEC` to a form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from verifier.errors import SourceError, UsageError
from verifier.forms.form import Form, needing
from verifier.forms.scripted.held import places
from verifier.models.compiled import compiled_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto
    from torch.export import ExportedProgram

    Deployed = Form | ExportedProgram | ModelProto

    from torch import nn

_QUANTIZED = "torch.ao.nn.quantized", "torch.nn.quantized"
_INSTEAD = {
    "InferenceSession": ("an ONNX Runtime session", "the file of the model that it runs"),
    "CompiledModel": ("a compiled OpenVINO model", "the openvino.Model that it was compiled from"),
}


def _exported(path: Path) -> Form:
    from verifier.forms import exported  # noqa: PLC0415 - torch.export takes a second to import

    return exported.read(path)


def _onnx(path: Path) -> Form:
    with needing("onnx", f"{path.name}, an ONNX model,"):
        from verifier.forms.onnx import runtime  # noqa: PLC0415 - an extra

    return runtime.read(path)


def _scripted(path: Path) -> Form:
    from verifier.forms.scripted import module  # noqa: PLC0415 - reads all of torch's operators

    return module.read(path)


def _openvino(path: Path) -> Form:
    with needing("openvino", f"{path.name}, an OpenVINO model,"):
        from verifier.forms.openvino import runtime  # noqa: PLC0415 - an extra

    return runtime.read(path)


FILES: dict[str, Callable[[Path], Form]] = {
    ".pt2": _exported,
    ".onnx": _onnx,
    ".pt": _scripted,
    ".xml": _openvino,
}
"""How the files of deployed forms are read, by how their names end."""


def is_file(spec: str) -> bool:
    """Whether a specification names a file of a deployed form."""
    return Path(spec).suffix.lower() in FILES


class Compiling(NamedTuple):
    """What `compile,OPTIONS:SPEC` says: how something is compiled, and what."""

    options: str
    spec: str


COMPILE = "compile"
"""Before a specification: `compile:torchvision:resnet18`, `compile,mode=max-autotune,dynamic=true:net.py:build`."""


def compiling(spec: str) -> Compiling | None:
    """What a specification says that goes through torch.compile; None for any other."""
    kind, colon, rest = spec.partition(":")
    word, _, options = kind.partition(",")
    return Compiling(options, rest) if colon and word == COMPILE else None


def compiled(program: nn.Module, options: str) -> Form:
    """The form of a program that goes through torch.compile.

    Raises:
        UsageError: torch.compile has no such options.
    """
    from verifier.forms import compiled as forms  # noqa: PLC0415 - torch's compiler takes seconds to import

    return forms.of(program, {"": forms.Recipe.of(options)})


def of_compiled(model: nn.Module, program: nn.Module) -> Form | None:
    """The form of a module of which something is compiled, around its program; None if it does not tell how."""
    parts = compiled_parts(model)
    if not parts:
        return None
    from verifier.forms import compiled as forms  # noqa: PLC0415 - torch's compiler takes seconds to import

    recipes = forms.recipes_of(model, parts)
    return forms.of(program, recipes) if recipes else None


def opened(model: nn.Module, role: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A model with programs in place of parts that are TorchScript, and what to know of these; else itself.

    Raises:
        ModelError: A part of it cannot be copied.
    """
    if not any(True for _ in places(model)):
        return model, ()
    from verifier.forms.scripted import parts  # noqa: PLC0415 - reads all of torch's operators

    return parts.opened(model, role)


def of_file(spec: str) -> Form:
    """The form in a file.

    Raises:
        SourceError: There is no such file, or something else in it.
        CannotRunError: What reads it is not installed.
    """
    path = Path(spec).expanduser()
    if not path.is_file():
        raise SourceError(f"there is no file {spec}")
    return FILES[path.suffix.lower()](path)


def of_object(role: str, model: Any) -> Form | torch.nn.Module:
    """The form that an object is; a caller's own is one, too. A module whose operators can be watched is itself.

    Raises:
        UsageError: It is a form that cannot be looked into, or no model at all; the message says what to give.
        CannotRunError: What reads it is not installed.
    """
    kind = type(model).__name__
    if isinstance(model, Form):
        return model
    if isinstance(model, torch.jit.ScriptModule):
        from verifier.forms.scripted import module  # noqa: PLC0415 - reads all of torch's operators

        return module.of(model)
    if kind == "ExportedProgram":
        from verifier.forms import exported  # noqa: PLC0415 - torch.export takes a second to import

        return exported.of(model)
    if kind == "ModelProto":
        from verifier.forms.onnx import runtime  # noqa: PLC0415 - an extra, which made the object

        return runtime.of(model)
    if kind == "Model" and type(model).__module__.partition(".")[0] == "openvino":
        from verifier.forms.openvino import runtime as openvino  # noqa: PLC0415 - an extra, which made the object

        return openvino.of(model)
    if isinstance(model, torch.fx.GraphModule):
        from verifier.forms import pt2e  # noqa: PLC0415 - beside the others

        return pt2e.of(model) if pt2e.is_quantised(model) else model
    if kind in _INSTEAD:
        what, instead = _INSTEAD[kind]
    elif not isinstance(model, torch.nn.Module):
        raise UsageError(f"the {role} is a {kind}, not a torch.nn.Module or a specification.")
    elif any(type(each).__module__.startswith(_QUANTIZED) for each in model.modules()):
        what, instead = (
            "quantised, with layers that hold packed weights",
            "it as it was before it was converted",
        )
    else:
        from verifier.forms import torchao  # noqa: PLC0415 - beside the others

        return torchao.of(model) if torchao.is_quantised(model) else model
    raise UsageError(f"the {role} is {what}, which this verifier cannot look into yet: give {instead}.")
