"""Weights of two models that were drawn under one seed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from verifier import verify


class ByHand(nn.Module):
    """A GRU of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.ih, self.hh = nn.Linear(8, 48), nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.new_zeros(len(x), 16), []
        for t in range(x.shape[1]):
            (ir, iz, i_n), (hr, hz, hn) = (each.chunk(3, -1) for each in (self.ih(x[:, t]), self.hh(h)))
            z = torch.sigmoid(iz + hz)
            h = (1 - z) * torch.tanh(i_n + torch.sigmoid(ir + hr) * hn) + z * h
            out.append(h)
        return torch.stack(out, 1)


class Recurrent(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        self.embed, self.head = nn.Linear(8, 8), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(self.embed(x))
        found: Tensor = self.head(h[0] if isinstance(h, tuple) else h)
        return found


def test_layers_of_two_kinds_that_were_drawn_under_one_seed_are_no_edits_of_each_other() -> None:
    torch.manual_seed(0)
    baseline = Recurrent(nn.GRU(8, 16, batch_first=True))
    torch.manual_seed(0)
    candidate = Recurrent(ByHand())
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    assert verify(baseline, candidate, x).verdict == "match"
