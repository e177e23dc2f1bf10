"""The border to the programs this package is given: models, preprocessings, trainers, whatever a user wrote.

They may raise anything: `sys.exit()`, a KeyboardInterrupt of their own, GeneratorExit, some other BaseException. None
of it may end whoever called this package, or look like an end of its own: it becomes a `VerifierError`.
What a signal's handler raises is no program's: Ctrl-C stays KeyboardInterrupt, and passes (`border.signals`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from verifier.border.error_texts import account, raised_by_program, raised_here
from verifier.border.signals import check_unanswered, marking
from verifier.errors import ModelError, VerifierError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Raised = TypeVar("Raised", bound=VerifierError)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Mark what signal handlers raise inside. They, and the current directory, are as before afterwards.

    Handlers belong to the main thread: in others nothing is done about them, and none runs there either.
    """
    with marking(), _staying():
        yield


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """Come back to the current directory: relative paths that were given are meant from there."""
    try:
        before = Path.cwd()
    except FileNotFoundError:  # it was removed
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(before)


@contextlib.contextmanager
def translating(made: Callable[[BaseException], VerifierError]) -> Iterator[None]:
    """Whatever a program raises inside becomes what `made` makes of it, marked as a program's (`of_program`).

    What this package raised on purpose passes, and so do answers to signals.
    """
    try:
        yield
    except VerifierError:
        raise
    except BaseException as error:
        check_unanswered(error)
        raise by_program(made(error)) from error


@contextlib.contextmanager
def contained(*, exceptions: bool = False) -> Iterator[None]:
    """The outermost border, around all that a public function does; also a decorator.

    Ordinary exceptions pass, unless `exceptions` says that what a program raises is told as a model's: a property, a
    hook, a comparison, a method of `nn.Module` that a class has made anew.

    Raises:
        ModelError: A program raised something in a place where nothing more is known about it.
    """
    with undisturbed():
        try:
            yield
        except VerifierError:
            raise
        except RecursionError as error:
            if not exceptions or raised_here(error):
                raise
            raise by_program(
                ModelError(
                    "the modules of one of the models are nested deeper than Python's recursion limit of "
                    f"{sys.getrecursionlimit()} allows ({account(error)}). Allow for more with sys.setrecursionlimit."
                )
            ) from error
        except Exception as error:
            if not (exceptions and raised_by_program(error)):
                raise
            raise by_program(ModelError(f"code of one of the models raised {account(error)}.")) from error
        except BaseException as error:
            check_unanswered(error)
            raise by_program(
                ModelError(
                    f"a program that was given raised {account(error)}, which would have ended the whole run. "
                    "Let it return, or raise an ordinary error."
                )
            ) from error


def by_program(error: Raised) -> Raised:
    """Note on an error that a program raised what led to it, and return it."""
    error.of_program = True
    return error
