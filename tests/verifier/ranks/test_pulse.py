"""Ranks that meet, and what they are told of those that do not come."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch.distributed as dist

from verifier.border import heartbeat
from verifier.errors import ProcessError
from verifier.ranks import pulse
from verifier.ranks.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pulse]]:
    """Makes a rank of two, which share a store."""
    monkeypatch.setattr(pulse, "_BEAT", 0.02)
    monkeypatch.setattr(pulse, "_SILENT", 0.3)
    store, made = dist.HashStore(), []  # type: ignore[attr-defined]

    def begin(rank: int, patience: float = 100.0, end: Callable[[str], None] = lambda _: None) -> Pulse:
        made.append(Pulse(store, rank, 2, patience, end))
        return made[-1]

    yield begin
    for each in made:
        each.stop()


def waited(function: Callable[[], Any]) -> tuple[float, BaseException | None]:
    started = time.monotonic()
    try:
        function()
    except ProcessError as error:
        return time.monotonic() - started, error
    return time.monotonic() - started, None


def test_who_comes_first_waits_for_the_other_time_after_time(begun: Callable[..., Pulse]) -> None:
    first, second = begun(0), begun(1)
    for _ in range(2):
        thread = threading.Timer(0.6, second.meet)  # longer than silence is borne
        thread.start()
        seconds, error = waited(first.meet)
        thread.join()
        assert error is None
        assert seconds >= 0.5


def test_of_a_rank_that_gives_no_sign_of_life_it_is_told(begun: Callable[..., Pulse]) -> None:
    begun(1).stop()
    seconds, error = waited(begun(0).meet)
    assert "rank 1 has given no sign of life" in str(error)
    assert seconds < 5


def test_a_rank_that_ends_is_not_waited_for_and_its_reason_is_told(begun: Callable[..., Pulse]) -> None:
    begun(1).leave_reason("the disk is full.")
    _, error = waited(begun(0).meet)
    assert str(error) == "rank 1 has ended: the disk is full."


def test_a_rank_that_comes_no_further_ends_and_says_where(begun: Callable[..., Pulse]) -> None:
    heartbeat.stage("reading batches")
    ended: list[str] = []
    begun(1, 0.3, ended.append)
    _, error = waited(begun(0).meet)
    assert "it has come no further for 0.3 s (--patience), at: reading batches" in str(error)
    assert ended[0].startswith("rank 1 ends: it has come no further")


def test_a_rank_that_waits_or_comes_further_does_not_end(begun: Callable[..., Pulse]) -> None:
    ended: list[str] = []
    first, second = begun(0, 0.3, ended.append), begun(1, 0.3, ended.append)
    thread = threading.Thread(target=first.meet)
    thread.start()
    for _ in range(20):
        heartbeat.stage("further")
        time.sleep(0.04)
    second.meet()
    thread.join()
    assert ended == []
