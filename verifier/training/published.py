"""Published test accuracies on CIFAR-10, as shares in 0..1, with their sources."""

from __future__ import annotations

PAPER = "He et al. (2015), https://arxiv.org/abs/1512.03385, table 6"
ARTICLE = "the article on the CIFAR-10 experiment (option B)"

# The paper gives errors in percent; at depth 110 the best of five runs.
_PAPER = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
_ARTICLE = {20: 0.9161, 56: 0.9305, 110: 0.9271, 1202: 0.9361}


def accuracies(name: str, data: str) -> tuple[tuple[float, str], ...]:
    """What is published of a network of the catalogue on some data; empty where nothing is.

    Args:
        name: As `--arch` takes it, such as `cifar_resnet20` (option A, the paper's) or `cifar_resnet20_b`.
        data: As `--data` takes it.
    """
    depth = name.removeprefix("cifar_resnet").removesuffix("_b")
    if data != "cifar10" or not name.startswith("cifar_resnet") or not depth.isdigit():
        return ()
    table, source = (_ARTICLE, ARTICLE) if name.endswith("_b") else (_PAPER, PAPER)
    found = table.get(int(depth))
    if found is None:
        return ()
    return ((found if table is _ARTICLE else round(1 - found / 100, 4), source),)
