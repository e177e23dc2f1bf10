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


class Attending(nn.Module):
    """A block of attention and a head; (N, 12, 32) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.out, self.head = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 10)
        self.fc1, self.fc2 = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to class scores."""
        n, count, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, count, 3, 4, 8).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, count, width))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        found: Tensor = self.head(x.mean(1))
        return found


class Bounded(nn.Module):
    """Convolutions with batch norm and activations that end at 6; (N, 3, 16, 16) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.fc = nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to class scores."""
        x = F.relu6(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv3(F.relu6(self.bn2(self.conv2(x)))))
        found: Tensor = self.fc(x.mean((2, 3)))
        return found


def drawn(model: nn.Module, spread: float = 1.5) -> nn.Module:
    """A model with weights that nothing hides."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                size = spread / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.5)
    return model.eval()


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
