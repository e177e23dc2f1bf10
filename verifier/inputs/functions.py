"""What a user's function returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from verifier.border.programs import undisturbed
from verifier.environment import preserved
from verifier.errors import InputError
from verifier.graph.tensors import mapped
from verifier.inputs.files import ENDINGS, file
from verifier.inputs.given import Inputs, as_arguments, described
from verifier.models import specs


def read(source: str | Path, seed: int = 0) -> Inputs:
    """What `source` leads to: a file of tensors (`file`), or a function that makes inputs (`function`).

    Raises:
        UsageError: As these do.
    """
    text = str(source)
    if Path(text).suffix.lower() in ENDINGS or Path(text).is_file() or ":" not in text:
        if Path(text).suffix.lower() == ".py":
            raise InputError(
                f"{text} is Python; name the function in it that returns the inputs, as {text}:inputs"
            )
        return file(text)
    return function(text, seed)


def function(spec: str, seed: int = 0) -> Inputs:
    """What `file.py:name` or `package.module:name` returns, or is, if it is no function.

    A tensor is the first positional argument, a tuple or list holds the positional arguments, a mapping the keyword
    arguments. What is no tensor goes to the model as it is: numbers, strings, None, and objects such as caches, of
    which every call gets a copy. The function is called without arguments and gradients, under
    `torch.manual_seed(seed)`; random states are as before afterwards.

    Raises:
        SourceError: There is no such function, it takes arguments, or it raised.
        InputError: What it returns cannot be given to a model.
    """
    with preserved(), undisturbed(), torch.no_grad(), specs.holding(spec) as found:
        content: Any = found
        if not isinstance(found, torch.Tensor | tuple | list | Mapping):
            if not callable(found):
                raise InputError(f"{spec} is neither a function nor tensors: it is a {type(found).__name__}")
            content = specs.called(found, spec, seed)
        args, kwargs = as_arguments(content, spec)
        made = described(args, kwargs, f"tensors from {spec}")
        args, kwargs = mapped((made.args, made.kwargs), torch.Tensor.detach)
        return Inputs(args, kwargs, info=made.info)
