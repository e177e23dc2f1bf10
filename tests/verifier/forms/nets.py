"""Small networks that are deployed, one of each kind, with an input each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier.records import Verdict


class ConvNet(nn.Module):
    """Convolutions with batch norm, a residual addition, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.act = nn.Hardswish()
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, (N, 3, H, W), to (N, 5)."""
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        x = x + self.act(self.conv2(x))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        found: Tensor = self.fc(self.drop(x))
        return found


class Perceptron(nn.Module):
    """Linear layers around a layer norm, with a table and numbers between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16, 32)
        self.norm = nn.LayerNorm(32)
        self.fc2 = nn.Linear(32, 4)
        self.scale: Tensor
        self.register_buffer("scale", torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 16) to (N, 4)."""
        x = self.fc2(F.gelu(self.norm(self.fc1(x))))
        return F.softmax(x, -1) * self.scale / 2.5 - 1


class Attention(nn.Module):
    """A block of masked attention over embedded tokens."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(50, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Indices of words, (N, T), to (N, T, 16)."""
        x = self.embed(tokens)
        n, t, d = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5
        mask = torch.ones(t, t, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(mask, float("-inf")).softmax(-1)
        found: Tensor = x + self.out((weights @ v).transpose(1, 2).reshape(n, t, d))
        return found


class Recurrent(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 12, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 8) to (N, 3)."""
        found: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return found


NETS = {"cnn": ConvNet, "mlp": Perceptron, "attention": Attention, "lstm": Recurrent}
"""Every kind by name."""


def net(kind: str) -> nn.Module:
    """A network of one kind in evaluation mode, its norms not as they are initialised."""
    torch.manual_seed(0)
    made: nn.Module = NETS[kind]()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return made.eval()


def given(kind: str) -> Tensor:
    """What a network of one kind is given."""
    generator = torch.Generator().manual_seed(1)
    if kind == "attention":
        return torch.randint(0, 50, (2, 7), generator=generator)
    shape = {"cnn": (2, 3, 16, 16), "mlp": (3, 16), "lstm": (2, 5, 8)}[kind]
    return torch.randn(shape, generator=generator)


MATCH, DIVERGED = Verdict.MATCH, Verdict.DIVERGED
