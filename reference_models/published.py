"""What others published about the networks, as data: `published.toml` has the figures, this reads them."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib import resources
from typing import Any

QUANTITIES = ("parameters", "gflops", "depth", "top1", "cifar10", "cifar10-minutes")


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number, with its digits as they were printed.

    `quantity` is one of `QUANTITIES`; the file says in which unit each is. `below` says that the publication names a
    limit the number is under. `source` says who published it and where, `note` what to know before comparing.
    """

    network: str
    quantity: str
    value: str
    source: str
    note: str = ""
    below: bool = False

    def agrees(self, measured: float) -> bool:
        """Whether `measured`, in the unit of the quantity, gives the printed digits, rounded or cut off there.

        Parameters are measured in all; a value with more than four digits before the point is printed in all too.
        """
        value, exact = Decimal(self.value), Decimal(repr(measured))
        if self.quantity == "parameters" and value < 10_000:
            exact /= 1_000_000
        if self.below:
            return exact < value
        return any(exact.quantize(value, rounding) == value for rounding in (ROUND_HALF_UP, ROUND_DOWN))


def family(name: str) -> str:
    """What a family of the catalogue is called where networks are compared."""
    called: dict[str, str] = _content()["families"]
    return called.get(name, name.replace("_", " "))


@functools.cache
def _content() -> dict[str, Any]:
    text = resources.files("reference_models").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@functools.cache
def figures() -> tuple[Figure, ...]:
    """All published figures, in the file's order."""
    content = _content()
    return tuple(
        Figure(
            network=network,
            quantity=each["quantity"],
            value=value,
            source=_spelt(each["source"], content["sources"]),
            note=each.get("note", ""),
            below=each.get("below", False),
        )
        for each in content["figure"]
        for network, value in each["values"].items()
    )


def _spelt(source: str, sources: dict[str, str]) -> str:
    """`paper, table 6` with the paper's full name for its key."""
    key, comma, place = source.partition(",")
    return sources[key] + comma + place
