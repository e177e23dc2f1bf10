"""Suspending a model in the middle of its forward pass: by a greenlet where that is safe, by a thread elsewhere.

A model cannot be written as a generator, so its whole call stack has to wait. A greenlet keeps all models in one
thread: they share one pool of OpenMP workers, which stay awake between operators, and one CUDA stream. Two
threads have a pool each and pay for waking it at every operator. But grad mode, autocast, inference mode and C++
guards belong to a thread, and two greenlets that change them would change each other's; `verifier.graph` notices
while recording (`Graph.suspendable`).
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import greenlet
import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class Abandoned(BaseException):
    """Unwinds a body that is closed early. Not an Exception: models may catch those."""


class Coroutine(ABC):
    """A function that can be suspended from anywhere inside it.

    Args:
        body: The function; it calls `suspend` of the object it is given.
        name: For threads.
    """

    def __init__(self, body: Callable[[], None], name: str) -> None:
        self.body = body
        self.name = name
        self.closing = False

    @abstractmethod
    def resume(self) -> bool:
        """Run the body to its next `suspend`, or to its end; whether it can be resumed again.

        Raises whatever the body raised.
        """

    @abstractmethod
    def _wait(self) -> None:
        """Hand over to whoever resumed the body, until it is resumed again."""

    @abstractmethod
    def close(self) -> None:
        """Unwind the body wherever it is. Safe to call twice."""

    def suspend(self) -> None:
        """Called in the body: wait to be resumed."""
        self.check()
        self._wait()
        self.check()

    def release(self) -> None:
        """Let go of the body and all it holds; only after `close`."""
        self.body = _nothing

    def check(self) -> None:
        """Called in the body: leave it if the coroutine is being closed."""
        if self.closing:
            raise Abandoned


def _nothing() -> None:
    pass


class Greenlet(Coroutine):
    """A body that runs in the thread of whoever resumes it."""

    def __init__(self, body: Callable[[], None], name: str) -> None:
        super().__init__(body, name)
        self._error: BaseException | None = None
        self._greenlet = greenlet.greenlet(self._run)

    def resume(self) -> bool:
        """Switch to the body; what it raised is raised here."""
        if self._greenlet.dead:
            return False
        grad = torch.is_grad_enabled()
        self._greenlet.parent = greenlet.getcurrent()
        try:
            self._greenlet.switch()
        finally:
            torch.set_grad_enabled(grad)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return not self._greenlet.dead

    def _wait(self) -> None:
        parent = self._greenlet.parent
        assert parent is not None  # noqa: S101 - only a main greenlet has none
        grad = torch.is_grad_enabled()
        parent.switch()
        torch.set_grad_enabled(grad)

    def close(self) -> None:
        """Raise `Abandoned` in the body until it is gone."""
        self.closing = True
        grad = torch.is_grad_enabled()
        while not self._greenlet.dead:  # a body may swallow the first attempts
            self._greenlet.parent = greenlet.getcurrent()
            with contextlib.suppress(Abandoned):  # which comes out here if the body was never begun
                self._greenlet.throw(Abandoned)
        self._error = None
        torch.set_grad_enabled(grad)

    def _run(self) -> None:
        # Carried over by hand: greenlets take a GreenletExit for a quiet end, and a model may raise that, too.
        try:
            self.body()
        except Abandoned:
            pass
        except BaseException as error:
            self._error = error


class Thread(Coroutine):
    """A body in a thread of its own; it and whoever resumes it never run at once."""

    def __init__(self, body: Callable[[], None], name: str) -> None:
        super().__init__(body, name)
        self._finished = False
        self._error: BaseException | None = None
        self._go, self._arrived = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._arrived.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def resume(self) -> bool:
        """Let the thread go on and wait for it; what it raised is raised here."""
        if self._finished:
            return False
        self._go.release()
        self._arrived.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return not self._finished

    def _wait(self) -> None:
        self._arrived.release()
        self._go.acquire()

    def close(self) -> None:
        """Let the thread go on into `Abandoned`, and wait for its end."""
        self.closing = True
        if self._thread.is_alive():
            if self._go.locked():
                self._go.release()
            self._thread.join()
        self._error = None

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.check()
            self.body()
        except Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._finished = True
            self._arrived.release()
