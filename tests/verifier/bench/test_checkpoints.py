"""A run that was ended in the middle, gone on with: its result is that of one that was not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.networks import Block, images, network
from tests.verifier.bench.test_streaming import Sharper, Slices
from verifier import verify
from verifier.bench.checkpoints import EVERY, Checkpoint
from verifier.errors import DataError, ModelError, OutputError, UsageError
from verifier.inputs import Stream
from verifier.records import to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from verifier.inputs import Inputs
    from verifier.records import Result


class EndedError(Exception):
    """The run is ended from outside."""


class Ending(Slices):
    """Gives so many batches in all, and then ends the run."""

    left = 10**9
    given = 0
    identity = "these pictures"
    killed: Callable[[], object] | None = None

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Inputs]]:
        for each in super().read(wanted):
            if not self.left:
                if self.killed is not None:
                    self.killed()
                raise EndedError
            self.left -= 1
            self.given += 1
            yield each


def run(
    file: Path,
    left: int,
    whole: torch.Tensor,
    block: type[Block] = Sharper,
    every: float = EVERY,
    **settings: Any,
) -> tuple[Result, Ending]:
    source = Ending(whole, 4)
    source.left = left
    for name, value in settings.items():
        setattr(source, name, value)
    stream = Stream(source)
    stream.checkpoint = Checkpoint(file, every)
    return verify(network(), network(block, seed=1), stream), source


def told(result: Result) -> Any:
    cells = [to_builtins(cell) | {"seconds": 0} for cell in result.cells]
    return cells, result.verdict, to_builtins(result.inputs), to_builtins(result.exercise)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole() -> torch.Tensor:
    found = images(batch=40) / 100
    found[33] *= 3000
    return found


@pytest.fixture(scope="module")
def straight(whole: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Ending]:
    """A run that was never ended."""
    return run(tmp_path_factory.mktemp("straight") / "kept", 10**9, whole)


# The free pass has ten batches, then the forced one; both are made anew where float64 looks at the worst sample.
# The batch that came last is lost each time: nobody knows yet whether more of it would have come.
@pytest.mark.parametrize("left", [3, 6, 11, 15, 24, 33])
def test_a_run_that_goes_on_gives_the_result_of_one_that_was_never_ended(
    left: int, whole: torch.Tensor, straight: tuple[Result, Ending], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="EndedError"):
        run(tmp_path / "kept", left, whole)
    found, rest = run(tmp_path / "kept", 10**9, whole)
    assert told(found) == told(straight[0])
    assert rest.given < straight[1].given


def test_what_a_kill_leaves_is_gone_on_from(
    whole: torch.Tensor, straight: tuple[Result, Ending], tmp_path: Path
) -> None:
    def killed() -> None:
        shutil.copy(tmp_path / "kept", tmp_path / "left")
        (tmp_path / ".left-abcd1234").write_text("half of the next one")

    with pytest.raises(ModelError, match="EndedError"):
        run(tmp_path / "kept", 8, whole, every=0, killed=killed)
    found, rest = run(tmp_path / "left", 10**9, whole)
    assert told(found) == told(straight[0])
    assert rest.given <= straight[1].given - 6
    assert not (tmp_path / ".left-abcd1234").exists()


def test_several_ends_are_gone_on_from(
    whole: torch.Tensor, straight: tuple[Result, Ending], tmp_path: Path
) -> None:
    for _ in range(4):
        with pytest.raises(ModelError, match="EndedError"):
            run(tmp_path / "kept", 7, whole)
    assert told(run(tmp_path / "kept", 10**9, whole)[0]) == told(straight[0])


def test_what_several_ranks_have_kept_is_taken_together(
    whole: torch.Tensor, straight: tuple[Result, Ending], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="EndedError"):
        run(tmp_path / "kept", 6, whole)
    (tmp_path / "kept").rename(tmp_path / "kept.1")
    found, rest = run(tmp_path / "kept", 10**9, whole)
    assert told(found) == told(straight[0])
    assert rest.given < straight[1].given
    Checkpoint(tmp_path / "kept").clear()
    assert not any(tmp_path.iterdir())


def test_a_checkpoint_of_another_comparison_is_refused(whole: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="EndedError"):
        run(tmp_path / "kept", 5, whole)
    for samples, block, identity in (
        (whole + 1, Sharper, Ending.identity),
        (whole, Block, Ending.identity),
        (whole, Sharper, "others behind the first batch"),
    ):
        with pytest.raises(UsageError, match="of another comparison"):
            run(tmp_path / "kept", 10**9, samples, block, identity=identity)


def test_samples_that_are_others_than_before_the_end_are_refused_where_only_reading_tells(
    whole: torch.Tensor, straight: tuple[Result, Ending], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="EndedError"):
        run(tmp_path / "kept", 7, whole, identity="")
    changed = whole.clone()
    changed[9] += 1  # of a batch that was measured before the end
    with pytest.raises(DataError, match="other samples"):
        run(tmp_path / "kept", 10**9, changed, identity="")
    assert told(run(tmp_path / "kept", 10**9, whole, identity="")[0]) == told(straight[0])


def test_what_is_no_checkpoint_is_not_overwritten(whole: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a novel")
    with pytest.raises(OutputError, match="cannot be read as a checkpoint"):
        run(tmp_path / "kept", 10**9, whole)
    assert (tmp_path / "kept").read_text() == "a novel"
