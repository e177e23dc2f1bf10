"""What others published about networks that learnt the same data, to be drawn beside what was measured."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import reference_models
from reference_models.published import family, figures
from verifier.training.records import Reference

if TYPE_CHECKING:
    from reference_models.published import Figure


def published_accuracies(name: str, data: str) -> tuple[tuple[float, str], ...]:
    """Test accuracies, as shares in 0..1, that others published of a network of the catalogue, with their sources.

    Args:
        name: As `--arch` takes it, such as `cifar_resnet20` (option A, the paper's) or `cifar_resnet20_b`.
        data: As `--data` takes it; of digits nothing is published.
    """
    return tuple((_share(each), _source(each)) for each in _figures(data) if each.network == name)


def references(data: str) -> tuple[Reference, ...]:
    """All that is published of networks on `data`, as `--data` takes it."""
    minutes = {(each.network, each.source): float(each.value) for each in _figures(f"{data}-minutes")}
    found = []
    for each in _figures(data):
        entry = reference_models.get(each.network)
        if entry.parameters is not None:
            found.append(
                Reference(
                    name=entry.name,
                    family=family(entry.family),
                    depth=entry.depth,
                    parameters=entry.parameters,
                    accuracy=_share(each),
                    minutes=minutes.get((each.network, each.source)),
                    source=_source(each),
                )
            )
    return tuple(found)


def _figures(quantity: str) -> list[Figure]:
    return [each for each in figures() if each.quantity == quantity]


def _share(each: Figure) -> float:
    return float(Decimal(each.value) / 100)


def _source(each: Figure) -> str:
    return f"{each.source}; {each.note}" if each.note else each.source
