"""The usual ways to prepare an image, and which of them an affine map of channels gives away."""

from __future__ import annotations

from dataclasses import dataclass

# Red, green, blue, on a scale of 0 to 1; torchvision's presets and the usual CIFAR-10 recipes.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ONES, ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to a picture on a scale of 0 to 1: y = (x - mean) / std in each channel."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _on_255(name: str, constants: tuple[tuple[float, ...], tuple[float, ...]]) -> Preparation:
    """The same constants applied to bytes: (255 x - mean) / std."""
    mean, std = constants
    return Preparation(name, tuple(m / 255 for m in mean), tuple(s / 255 for s in std))


PREPARATIONS = (
    Preparation("on a scale of 0 to 1", ZEROS, ONES),
    _on_255("on a scale of 0 to 255", (ZEROS, ONES)),
    Preparation("normalised with ImageNet's mean and std", *IMAGENET),
    Preparation("normalised with 0.5 and 0.5", *HALVES),
    Preparation("normalised with CIFAR-10's mean and std", *CIFAR10),
    Preparation("less ImageNet's mean only", IMAGENET[0], ONES),
    Preparation("divided by ImageNet's std only", ZEROS, IMAGENET[1]),
    Preparation("bytes less ImageNet's mean only", IMAGENET[0], (1 / 255,) * 3),
    _on_255("bytes normalised with ImageNet's mean and std, which are for 0 to 1", IMAGENET),
    _on_255("bytes normalised with CIFAR-10's mean and std, which are for 0 to 1", CIFAR10),
)
NORMALISED = PREPARATIONS[2:5]


def known_preparations(
    gain: list[float], offset: list[float], order: list[int], lowest: float, accuracy: float
) -> str | None:
    """A clause on the preparations that make candidate channel k = gain[k] * baseline channel order[k] + offset[k].

    `lowest` is the baseline's smallest value: a negative one rules out that it is a plain picture. `accuracy`
    is the error allowed in gain and offset, relative to the gain.
    """

    def fits(expected: list[tuple[float, float]]) -> bool:
        return all(
            abs(g - eg) <= accuracy * abs(eg) and abs(o - eo) <= accuracy * max(abs(eg), abs(eo))
            for g, o, (eg, eo) in zip(gain, offset, expected, strict=True)
        )

    if len(gain) != 3:
        return None
    if lowest < 0:
        for known in NORMALISED:
            if fits([(1 / known.std[k], -known.mean[k] / known.std[k]) for k in range(3)]):
                return f"is {known.name} once more"
    for b in PREPARATIONS:
        if lowest < 0 and b.mean == ZEROS:
            continue
        for c in PREPARATIONS:
            # constants may stand in the order of the picture's channels or of the positions they land in
            for stands in (list(range(3)), order):
                expected = [
                    (b.std[j] / c.std[k], (b.mean[j] - c.mean[k]) / c.std[k])
                    for j, k in zip(order, stands, strict=True)
                ]
                if c is not b and fits(expected):
                    return f"is {c.name}, the baseline's is {b.name}"
                if c is b and stands != order and order != list(range(3)) and fits(expected):
                    return f"was {c.name} in the other order of channels"
    return None
