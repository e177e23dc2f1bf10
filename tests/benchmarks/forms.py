"""What looking into a deployed form costs: an ONNX model over two bare forwards, and over its depth."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.benchmarks.measuring import alternate, peak_memory, ratio
from verifier import verify
from verifier.estimate.memory import known

if TYPE_CHECKING:
    from collections.abc import Callable


class Exported:
    """A network and its ONNX file, as a user gives them.

    Args:
        network: Builds it, with weights of its own.
        inputs: Samples along the first dimension.
        folder: Where the file is written.
    """

    def __init__(self, network: Callable[[], nn.Module], inputs: Tensor, folder: Path) -> None:
        import onnxruntime

        torch.manual_seed(0)
        self.model, self.inputs, self.file = network().eval(), inputs, folder / "net.onnx"
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                self.model,
                (inputs,),
                self.file,
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session: Any = onnxruntime.InferenceSession(self.file, options)

    def bare(self) -> None:
        """Both forwards: torch's, and the runtime's as it is shipped."""
        with torch.no_grad():
            self.model(self.inputs)
        self._session.run(None, {self._session.get_inputs()[0].name: self.inputs.numpy()})

    def verify(self) -> None:
        """The whole verification."""
        found = verify(self.model, self.file, self.inputs)
        if found.verdict != "match":
            raise AssertionError(found.reason)


def resnet50() -> nn.Module:
    """Torchvision's, with statistics as a trained one has them: those of a new one say nothing."""
    import torchvision

    model: nn.Module = torchvision.models.resnet50()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def chain(layers: int) -> nn.Module:
    """Convolutions and activations of one width."""
    made = (layer for _ in range(layers) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()))
    return nn.Sequential(*made)


def forms(rounds: int) -> None:
    """Print the time and memory of verifying an ONNX ResNet-50, and memory over depth."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Exported(resnet50, torch.randn(8, 3, 224, 224), Path(folder))
        seconds = alternate({"bare": subject.bare, "verify": subject.verify}, rounds)
        medians = {name: statistics.median(each) for name, each in seconds.items()}
        print(
            f"\nONNX ResNet-50, batch 8: {medians['verify']:.2f} s, two bare forwards {medians['bare']:.2f} s: "
            f"x {ratio(seconds['verify'], seconds['bare']):.2f}"
        )
        if not known():
            return
        peaks = [peak_memory(each)[1] for each in (subject.bare, subject.verify)]
        print(f"  peak memory {peaks[1] / 2**20:.0f} MiB, x {peaks[1] / peaks[0]:.2f}")
        del subject
        grown = []
        for layers in (20, 300):
            subject = Exported(lambda layers=layers: chain(layers), torch.randn(8, 16, 64, 64), Path(folder))  # type: ignore[misc]
            subject.verify()
            before, peak = min(peak_memory(subject.verify) for _ in range(2))
            grown.append(peak)
            print(
                f"  {layers:5} convolutions: {peak / 2**20:.0f} MiB, {(peak - before) / 2**20:.0f} more than before"
            )
            del subject
        print(f"  300 over 20: x {grown[1] / grown[0]:.2f}")
