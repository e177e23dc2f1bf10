"""Differences that only inputs show that were not given."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable


class Chosen(nn.Module):
    """One of four experts for each sample, the second with an activation of its own."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(4, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        chosen = nn.functional.one_hot(self.router(x).argmax(-1), 4).to(x.dtype)
        acts = [torch.tanh, self.act, torch.tanh, torch.tanh]
        shares = [chosen[:, k : k + 1] * acts[k](expert(x)) for k, expert in enumerate(self.experts)]
        return torch.stack(shares).sum(0)


def test_an_expert_that_neither_the_inputs_nor_their_opposites_choose_is_seen() -> None:
    baseline = Chosen(torch.tanh)
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    never = (baseline.router(x).argmax(-1) != 1) & (baseline.router(-x).argmax(-1) != 1)
    assert verify(baseline, Chosen(torch.tanh), x[never][:3]).verdict == "match"
    assert verify(baseline, Chosen(torch.sigmoid), x[never][:3]).verdict == "diverged"


def test_experts_that_are_exchanged_are_seen_though_neither_is_chosen() -> None:
    baseline = Chosen(torch.tanh)
    exchanged = copy.deepcopy(baseline)
    one, two = copy.deepcopy(baseline.experts[1]), copy.deepcopy(baseline.experts[2])
    exchanged.experts[1], exchanged.experts[2] = two, one
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    x = x[baseline.router(x).argmax(-1) == 0][:3]
    assert torch.equal(baseline(x), exchanged(x))
    assert verify(baseline, copy.deepcopy(baseline), x, weights="as-is").verdict == "match"
    assert verify(baseline, exchanged, x, weights="as-is").verdict == "diverged"


class OfToken(nn.Module):
    """Something else for one token."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.special, self.last = nn.Embedding(20, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.act = act

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        y: Tensor = self.last(torch.where((tokens == 7)[..., None], self.act(self.special(x)), x))
        return y


def test_a_token_that_was_not_given_is_tried() -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert verify(OfToken(torch.tanh), OfToken(torch.sigmoid), tokens).verdict == "diverged"


class Table(nn.Module):
    """A table that is computed anew at each call, of angles up to `most`."""

    def __init__(self, most: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.most, self.last = most, nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        angles = torch.arange(10.0)[:, None] * torch.tensor([1.0, 0.5, 0.25, 0.1])
        found: Tensor = self.last(torch.sin(angles.clamp(max=self.most))[tokens])
        return found


def test_rows_of_a_table_up_to_its_last_are_tried() -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert verify(Table(99.0), Table(99.0), tokens).verdict == "match"
    assert verify(Table(99.0), Table(8.2), tokens).verdict == "diverged"  # in the row of 9 alone


class Averaged(nn.Module):
    """The mean over tokens that are not padded, as a mask says or the tokens themselves."""

    def __init__(self, *, by_mask: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.first, self.last, self.by_mask = (
            nn.Embedding(20, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
            by_mask,
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        told, seen = mask[..., None].float(), (tokens != 0)[..., None].float()
        x = self.first(self.table(tokens) * seen)
        found: Tensor = self.last((x * (told if self.by_mask else seen)).sum(1) / told.sum(1))
        return found


def test_inputs_that_belong_together_are_not_drawn_apart() -> None:
    tokens = torch.randint(1, 20, (3, 6), generator=torch.Generator().manual_seed(1))
    tokens[0, 4:] = tokens[1, 5:] = 0
    given = {"tokens": tokens, "mask": (tokens != 0).long()}
    assert verify(Averaged(by_mask=False), Averaged(by_mask=True), given).verdict == "match"
