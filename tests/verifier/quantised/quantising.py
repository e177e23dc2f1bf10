"""A small network in eight bits, as onnxruntime quantises it, with faults to plant."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime import quantization
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Small(nn.Module):
    """Convolutions with batch norm, a residual addition, a pool and two linear layers; (N, 3, 16, 16) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc1 = nn.Linear(32, 16)
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to class scores."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        x = F.max_pool2d(torch.relu(self.conv3(x)), 8).flatten(1)
        found: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return found


def small(seed: int = 0) -> Small:
    """The network with weights that nothing hides."""
    torch.manual_seed(seed)
    model = Small().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(8) * 0.1
            module.running_var = torch.rand(8) + 0.5
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, 0, 2 / module.weight[0].numel() ** 0.5)
    return model


def pictures(count: int = 8, seed: int = 1) -> Tensor:
    """Random pictures, (N, 3, 16, 16)."""
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters and calibrators say."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def exported(model: nn.Module, x: Tensor, path: Path) -> Path:
    """The model as an ONNX file, for any number of samples."""
    with quiet():
        axes = {"x": {0: "batch"}}
        torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
        changed = onnx.load(path)
        for k, node in enumerate(changed.graph.node):
            node.name = node.name or f"node{k}"
        onnx.save(changed, path)
    return path


class _Data(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Tensor) -> None:
        self._left = iter([{"x": x.numpy()}])

    def get_next(self) -> Any:
        return next(self._left, None)


def quantised(path: Path, to: Path, calibration: Tensor, **options: Any) -> Path:
    """The file in eight bits (QDQ, activations without sign, unless `options` say otherwise)."""
    settings = {
        "quant_format": quantization.QuantFormat.QDQ,
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
        **options,
    }
    with quiet():
        quantization.quantize_static(path, to, _Data(calibration), **settings)
    return to


class Planting:
    """A quantised model to plant a fault into, by the names of initialisers."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.graph = self.model.graph

    def held(self, name: str) -> onnx.TensorProto:
        """An initialiser."""
        [found] = [each for each in self.graph.initializer if each.name == name]
        return cast("onnx.TensorProto", found)

    def array(self, name: str) -> np.ndarray:
        """What an initialiser holds."""
        return np.array(numpy_helper.to_array(self.held(name)))

    def put(self, name: str, array: np.ndarray) -> None:
        """Have an initialiser hold something else."""
        self.held(name).CopyFrom(numpy_helper.from_array(array.astype(self.array(name).dtype), name))

    def times(self, name: str, factor: float) -> None:
        """Multiply an initialiser."""
        self.put(name, self.array(name) * np.float32(factor))

    def exchange(self, one: str, other: str) -> None:
        """Exchange what two initialisers hold."""
        first, second = self.array(one), self.array(other)
        self.put(one, second)
        self.put(other, first)

    def of(self, op: str, module: str) -> onnx.NodeProto:
        """The node of a module."""
        found = next(each for each in self.graph.node if each.op_type == op and module in each.name)
        return cast("onnx.NodeProto", found)

    def maker(self, name: str) -> onnx.NodeProto:
        """The node that makes a value."""
        return cast("onnx.NodeProto", next(each for each in self.graph.node if name in each.output))

    def grid(self, op: str, module: str, place: int) -> onnx.NodeProto:
        """The node that reads the codes of an input of a module's node."""
        return self.maker(self.of(op, module).input[place])
