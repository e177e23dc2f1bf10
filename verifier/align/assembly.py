"""How a candidate's tensor is made from the baseline's: taken whole, reshaped, transposed, cut out or put together.

As text an assembly is what `--map` files hold: `conv.weight`, `attn.in_proj_weight[0:768]` for some rows,
`fc.weight.T` for the transpose, and a list of such for tensors put one below the other, with `.T` at its end where
the whole is transposed then.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence

    from torch import Tensor

_TURNED = ".T"
_ROWS = re.compile(r"^(?P<name>.+)\[(?P<start>\d+):(?P<stop>\d+)\]$")


class Piece(NamedTuple):
    """One of the baseline's tensors, or rows `start` to `stop` of it, transposed first where that is said."""

    name: str
    start: int | None = None
    stop: int | None = None
    transposed: bool = False

    @classmethod
    def parsed(cls, text: str, known: Collection[str] = ()) -> Piece:
        """The piece that `text` stands for; a name in `known` is taken literally."""
        rows = _ROWS.match(text)
        start = stop = None
        if rows and text not in known:
            text, start, stop = rows["name"], int(rows["start"]), int(rows["stop"])
        transposed = text.endswith(".T") and text not in known
        return cls(text.removesuffix(".T") if transposed else text, start, stop, transposed)

    def __str__(self) -> str:
        rows = "" if self.start is None else f"[{self.start}:{self.stop}]"
        return f"{self.name}{'.T' if self.transposed else ''}{rows}"

    def of(self, tensor: Tensor) -> Tensor:
        """The piece as a view of its tensor."""
        tensor = tensor.T if self.transposed else tensor
        return tensor if self.start is None else tensor[self.start : self.stop]

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The piece's shape, where its tensor has the shape `whole`."""
        shape = tuple(reversed(whole)) if self.transposed else tuple(whole)
        if self.start is None:
            return shape
        return (len(range(shape[0])[self.start : self.stop]), *shape[1:])


@dataclass(frozen=True)
class Assembly:
    """A candidate's tensor as the baseline's pieces, put together along the first dimension and reshaped.

    Where it is `turned`, what was put together is transposed before.
    """

    pieces: tuple[Piece, ...]
    turned: bool = False

    @classmethod
    def built(cls, pieces: Iterable[Piece], *, turned: bool) -> Assembly:
        """The simplest assembly: one piece that is transposed twice is not transposed, nor is a vector."""
        pieces = tuple(pieces)
        if turned and len(pieces) == 1 and pieces[0].start is None:
            return cls((pieces[0]._replace(transposed=not pieces[0].transposed),))
        return cls(pieces, turned)

    @classmethod
    def of(cls, *names: str) -> Assembly:
        """Whole tensors, put together in this order."""
        return cls(tuple(Piece(name) for name in names))

    @classmethod
    def parsed(cls, text: str | Sequence[str], known: Collection[str] = ()) -> Assembly:
        """The assembly for one piece or a list of them, as text."""
        texts = [text] if isinstance(text, str) else list(text)
        turned = len(texts) > 1 and texts[-1] == _TURNED and _TURNED not in known
        return cls(tuple(Piece.parsed(each, known) for each in (texts[:-1] if turned else texts)), turned)

    @property
    def text(self) -> str | tuple[str, ...]:
        """The assembly as text: what `parsed` takes."""
        texts = (*map(str, self.pieces), *([_TURNED] if self.turned else []))
        return texts[0] if len(texts) == 1 else texts

    @property
    def names(self) -> tuple[str, ...]:
        """The baseline's tensors it uses, each once."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces))

    @property
    def whole(self) -> str | None:
        """The one tensor it takes as it is, but for its shape; None where it cuts, turns or puts together."""
        one = len(self.pieces) == 1 and self.pieces[0][1:] == (None, None, False) and not self.turned
        return self.pieces[0].name if one else None

    def fits(self, shapes: Mapping[str, Sequence[int]], shape: Sequence[int]) -> bool:
        """Whether it gives as many elements as a tensor of `shape` has, and all pieces go together."""
        if any(piece.name not in shapes for piece in self.pieces):
            return False
        if any(piece.transposed and len(shapes[piece.name]) != 2 for piece in self.pieces):
            return False
        if any(piece.start is not None and not shapes[piece.name] for piece in self.pieces):
            return False
        made = [piece.shape(shapes[piece.name]) for piece in self.pieces]
        if len(made) > 1 and (() in made or len({each[1:] for each in made}) > 1):
            return False
        if self.turned and any(len(each) != 2 for each in (*made, shape)):
            return False
        if self.turned:
            return (made[0][1], sum(each[0] for each in made)) == tuple(shape)
        rows = sum(each[0] for each in made) if made[0] else 1
        if self.whole is None and (not shape or shape[0] != rows):
            return False  # as many elements, but not the same rows
        return sum(map(math.prod, made)) == math.prod(shape)

    def make(self, tensors: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
        """The candidate's tensor, of shape `shape`: the baseline's itself or a view of it where that can be."""
        made = [piece.of(tensors[piece.name]) for piece in self.pieces]
        tensor = made[0] if len(made) == 1 else torch.cat(made)
        tensor = tensor.T if self.turned else tensor
        return tensor if tensor.shape == tuple(shape) else tensor.reshape(tuple(shape))

    def unmake(self, tensor: Tensor, tensors: MutableMapping[str, Tensor]) -> None:
        """Write a candidate's tensor into the places of the baseline's tensors it is made of."""
        views = [piece.of(tensors[piece.name]) for piece in self.pieces]
        tensor = tensor.T if self.turned else tensor
        count = sum(view.numel() for view in views)
        parts = torch.split(tensor.reshape(-1)[:count], [view.numel() for view in views])
        for view, part in zip(views, parts, strict=True):
            view.copy_(part.reshape(view.shape))
