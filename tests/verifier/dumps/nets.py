"""The networks that Flax has dumped, written in torch, with Flax's weights; each can be built with one fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).parent


def arrays(name: str) -> dict[str, np.ndarray[Any, Any]]:
    """What Flax has dumped, by name, in its order."""
    with np.load(HERE / f"{name}.npz") as found:
        return {key: found[key] for key in found.files}


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def inputs(name: str) -> Tensor:
    """What went in, as torch lays it out: NCHW, or as it is."""
    found = _tensor(arrays(name)["inputs"])
    return found.permute(0, 3, 1, 2).contiguous() if found.dim() == 4 else found


class ConvNet(nn.Module):
    """Pictures are NCHW."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        dump, self.fault = arrays("convnet"), fault
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.body = nn.Conv2d(6, 8, 3, padding=0 if fault == "padding" else 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8, eps=1e-3 if fault == "eps" else 1e-5)
        self.head = nn.Linear(8, 5)
        for k, conv in enumerate((self.stem, self.body)):
            conv.weight.data = _tensor(dump[f"params/Conv_{k}/kernel"].transpose(3, 2, 0, 1))
        assert self.stem.bias is not None
        self.stem.bias.data = _tensor(dump["params/Conv_0/bias"])
        for k, norm in enumerate((self.bn1, self.bn2)):
            norm.weight.data = _tensor(dump[f"params/BatchNorm_{k}/scale"])
            norm.bias.data = _tensor(dump[f"params/BatchNorm_{k}/bias"])
            norm.running_mean = _tensor(dump[f"batch_stats/BatchNorm_{k}/mean"])
            norm.running_var = _tensor(dump[f"batch_stats/BatchNorm_{k}/var"])
        self.head.weight.data = _tensor(dump["params/Dense_0/kernel"].T)
        self.head.bias.data = _tensor(dump["params/Dense_0/bias"])
        if fault == "weight":
            self.body.weight.data[0, 0, 0, 0] += 0.5
        if fault == "flipped":  # a true convolution's kernel
            self.body.weight.data = torch.flip(self.body.weight.data, (2, 3))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = F.max_pool2d(x, 2)
        if self.fault == "swapped axes":
            x = x.transpose(2, 3)
        x = self.bn2(self.body(x))
        x = F.gelu(x, approximate="tanh") if self.fault == "activation" else F.gelu(x)
        if self.fault == "no head":
            return x.mean((2, 3))
        y: Tensor = self.head(x.mean((2, 3)))
        return y.softmax(1) if self.fault == "softmax" else y


class Block(nn.Module):
    """Tokens are (batch, time); with `seq_first` all of it is (time, batch), inputs and outputs too."""

    def __init__(self, fault: str = "", *, seq_first: bool = False) -> None:
        super().__init__()
        dump, self.fault, self.seq_first = arrays("block"), fault, seq_first
        self.embed = nn.Embedding(11, 12)
        self.ln1 = nn.LayerNorm(12, eps=1e-6)
        self.attn = nn.MultiheadAttention(12, 3, batch_first=not seq_first)
        self.ln2 = nn.LayerNorm(12, eps=1e-3 if fault == "eps" else 1e-6)
        self.up, self.down, self.head = nn.Linear(12, 24), nn.Linear(24, 12), nn.Linear(12, 11)
        self.embed.weight.data = _tensor(dump["params/Embed_0/embedding"])
        for k, norm in enumerate((self.ln1, self.ln2)):
            norm.weight.data = _tensor(dump[f"params/LayerNorm_{k}/scale"])
            norm.bias.data = _tensor(dump[f"params/LayerNorm_{k}/bias"])
        for k, linear in enumerate((self.up, self.down, self.head)):
            linear.weight.data = _tensor(dump[f"params/Dense_{k}/kernel"].T)
            linear.bias.data = _tensor(dump[f"params/Dense_{k}/bias"])
        mha = {k: v for k, v in dump.items() if k.startswith("params/MultiHead")}
        kernels, biases = (
            [
                next(v for k, v in mha.items() if k.endswith(f"/{part}/{leaf}"))
                for part in ("query", "key", "value")
            ]
            for leaf in ("kernel", "bias")
        )
        self.attn.in_proj_weight = nn.Parameter(torch.cat([_tensor(k.reshape(12, 12).T) for k in kernels]))
        self.attn.in_proj_bias = nn.Parameter(torch.cat([_tensor(b.reshape(12)) for b in biases]))
        out = next(v for k, v in mha.items() if k.endswith("/out/kernel"))
        self.attn.out_proj.weight.data = _tensor(out.reshape(12, 12).T)
        self.attn.out_proj.bias.data = _tensor(next(v for k, v in mha.items() if k.endswith("/out/bias")))
        if fault == "transposed weight":
            self.attn.out_proj.weight.data = self.attn.out_proj.weight.data.T.contiguous()
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.ln1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        if self.fault == "post-norm":
            x = self.ln2(x)
            y = self.up(x)
        else:
            y = self.up(self.ln2(x))
        y = F.relu(y) if self.fault == "activation" else F.gelu(y)
        y = self.down(y)
        x = y if self.fault == "no residual" else x + y
        z: Tensor = self.head(x)
        return z.transpose(0, 1) if self.fault == "swapped axes" else z


class Recurrent(nn.Module):
    """Series are (time, batch, features), which torch's LSTM takes; Flax has dumped (batch, time, features)."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        dump, self.fault = arrays("lstm"), fault
        self.lstm = nn.LSTM(5, 7)
        self.up, self.head = nn.Linear(7, 9), nn.Linear(9, 4)
        cell = "params/OptimizedLSTMCell_0"
        gates = "ifog" if fault == "gates" else "ifgo"
        self.lstm.weight_ih_l0.data = torch.cat([_tensor(dump[f"{cell}/i{g}/kernel"].T) for g in gates])
        self.lstm.weight_hh_l0.data = torch.cat([_tensor(dump[f"{cell}/h{g}/kernel"].T) for g in gates])
        self.lstm.bias_hh_l0.data = torch.cat([_tensor(dump[f"{cell}/h{g}/bias"]) for g in gates])
        self.lstm.bias_ih_l0.data = torch.zeros(28)
        for k, linear in enumerate((self.up, self.head)):
            linear.weight.data = _tensor(dump[f"params/Dense_{k}/kernel"].T)
            linear.bias.data = _tensor(dump[f"params/Dense_{k}/bias"])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(x)[0]
        if self.fault == "reversed":
            x = x.flip(0)
        y = self.up(x)
        y = F.leaky_relu(y) if self.fault == "activation" else F.relu(y)
        z: Tensor = self.head(y)
        return z
