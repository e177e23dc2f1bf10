"""`--map` and `--save-map` as a user meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended


def test_the_map_in_use_is_saved_and_taken_again(compare: Callable[..., Ended]) -> None:
    first = compare("--save-map", "maps/used.toml", "--out", "one")
    assert first.code == 0, first.err
    text = (first.directory / "maps" / "used.toml").read_text(encoding="utf-8")
    assert '"conv1.weight" = "conv1.weight"' in text
    second = compare("--map", "maps/used.toml", "--save-map", "-", "--out", "two")
    assert second.code == 0, second.err
    assert text.strip() in second.out
    assert second.result("two")["weights"]["parameter_map"] == first.result("one")["weights"]["parameter_map"]


def test_a_map_that_does_not_fit_is_refused_before_anything_runs(compare: Callable[..., Ended]) -> None:
    refused = compare("--map", "none.toml")
    assert refused.refusal(2) == "--map none.toml cannot be read: No such file or directory."


def test_a_map_cannot_be_saved_over_a_directory(compare: Callable[..., Ended]) -> None:
    assert compare("--save-map", "tmp").refusal(2) == "tmp is a directory; give the name of a file"
