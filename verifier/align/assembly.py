"""How a candidate's tensor is made from the baseline's: whole, reshaped, transposed, cut out, added, put together.

As text an assembly is what `--map` files hold: `conv.weight`, `attn.in_proj_weight[0:768]` for some rows,
`fc.weight.T` for the transpose, `fc.weight[0:768].T` for that of some rows, `rnn.bias_ih + rnn.bias_hh` for a sum,
`0 * fc.bias` for zeros, and a list of such for tensors put one below the other, with `.T` at its end where the whole
is transposed then.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence

    from torch import Tensor

_TURNED = ".T"
_PLUS = " + "
_NONE = "0 * "
_ROWS = re.compile(r"^(?P<name>.+)\[(?P<start>\d+):(?P<stop>\d+)\](?P<turned>\.T)?$")


class Piece(NamedTuple):
    """One of the baseline's tensors, or rows `start` to `stop` of it, transposed first where that is said.

    What was cut out is transposed where it is `turned`, and others of its shape are added: `plus`. With `none` the
    tensor gives its shape alone, and zeros stand in it.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    transposed: bool = False
    turned: bool = False
    none: bool = False
    plus: Piece | None = None

    @classmethod
    def parsed(cls, text: str, known: Collection[str] = ()) -> Piece:
        """The piece that `text` stands for; a name in `known` is taken literally."""
        if text not in known and _PLUS in text:
            first, _, rest = text.partition(_PLUS)
            return cls.parsed(first, known)._replace(plus=cls.parsed(rest, known))
        none = text not in known and text.startswith(_NONE)
        text = text.removeprefix(_NONE) if none else text
        rows = _ROWS.match(text)
        start = stop = None
        turned = False
        if rows and text not in known and text.removesuffix(_TURNED) not in known:
            text, start, stop = rows["name"], int(rows["start"]), int(rows["stop"])
            turned = rows["turned"] is not None
        transposed = text.endswith(".T") and text not in known
        return cls(text.removesuffix(".T") if transposed else text, start, stop, transposed, turned, none)

    def __str__(self) -> str:
        rows = "" if self.start is None else f"[{self.start}:{self.stop}]{_TURNED if self.turned else ''}"
        own = f"{_NONE if self.none else ''}{self.name}{_TURNED if self.transposed else ''}{rows}"
        return own if self.plus is None else f"{own}{_PLUS}{self.plus}"

    @property
    def terms(self) -> Iterator[Piece]:
        """What is added up, each without what follows it."""
        yield self._replace(plus=None)
        if self.plus is not None:
            yield from self.plus.terms

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The piece: a view of its tensor, or a sum in float64, which no dtype of the tensors' has rounded."""
        own = self.view(tensors[self.name])
        if self.none:
            own = torch.zeros_like(own)
        return own if self.plus is None else own.double() + self.plus.of(tensors).double()

    def view(self, tensor: Tensor) -> Tensor:
        """What the first term takes of its tensor."""
        tensor = tensor.T if self.transposed else tensor
        tensor = tensor if self.start is None else tensor[self.start : self.stop]
        return tensor.T if self.turned else tensor

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The first term's shape, where its tensor has the shape `whole`."""
        shape = tuple(reversed(whole)) if self.transposed else tuple(whole)
        if self.start is None:
            return shape
        shape = (len(range(shape[0])[self.start : self.stop]), *shape[1:])
        return tuple(reversed(shape)) if self.turned else shape


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
        return tuple(dict.fromkeys(term.name for piece in self.pieces for term in piece.terms))

    @property
    def whole(self) -> str | None:
        """The one tensor it takes as it is, but for its shape; None where it cuts, turns or puts together."""
        one = len(self.pieces) == 1 and self.pieces[0] == Piece(self.pieces[0].name) and not self.turned
        return self.pieces[0].name if one else None

    def fits(self, shapes: Mapping[str, Sequence[int]], shape: Sequence[int]) -> bool:
        """Whether it gives as many elements as a tensor of `shape` has, and all pieces go together."""
        terms = [[*piece.terms] for piece in self.pieces]
        for term in (term for each in terms for term in each):
            if term.name not in shapes:
                return False
            if (term.transposed or term.turned) and len(shapes[term.name]) != 2:
                return False
            if term.start is not None and not shapes[term.name]:
                return False
        sums = [{term.shape(shapes[term.name]) for term in each} for each in terms]
        if any(len(each) > 1 for each in sums):
            return False
        made = [each.pop() for each in sums]
        if len(made) > 1 and (() in made or len({each[1:] for each in made}) > 1):
            return False
        if self.turned and any(len(each) != 2 for each in (*made, shape)):
            return False
        if self.turned:
            return (made[0][1], sum(each[0] for each in made)) == tuple(shape)
        rows = sum(each[0] for each in made) if made[0] else 1
        if self.whole is None and rows not in itertools.accumulate(shape, operator.mul):
            return False  # as many elements, but not the same rows, nor these in groups
        return sum(map(math.prod, made)) == math.prod(shape)

    def make(self, tensors: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
        """The candidate's tensor, of shape `shape`: the baseline's itself or a view of it where that can be."""
        made = [piece.of(tensors) for piece in self.pieces]
        tensor = made[0] if len(made) == 1 else torch.cat(made)
        tensor = tensor.T if self.turned else tensor
        return tensor if tensor.shape == tuple(shape) else tensor.reshape(tuple(shape))

    def stored(self, tensors: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """The candidate's tensor as it would be kept in place of `like`: a sum rounded to the dtype of that."""
        made = self.make(tensors, like.shape)
        return made if all(piece.plus is None for piece in self.pieces) else made.to(like.dtype)

    def unmake(self, tensor: Tensor, tensors: MutableMapping[str, Tensor]) -> None:
        """Write a candidate's tensor into the places of the baseline's tensors it is made of.

        Of a sum the first term takes all, and the others become 0.
        """
        for piece in self.pieces:
            for term in [*piece.terms][1:]:
                term.view(tensors[term.name]).zero_()
        views = [
            torch.empty_like(view) if piece.none else view
            for piece in self.pieces
            for view in [piece.view(tensors[piece.name])]
        ]
        tensor = tensor.T if self.turned else tensor
        count = sum(view.numel() for view in views)
        parts = torch.split(tensor.reshape(-1)[:count], [view.numel() for view in views])
        for view, part in zip(views, parts, strict=True):
            view.copy_(part.reshape(view.shape))
