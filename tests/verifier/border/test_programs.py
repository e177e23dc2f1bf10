"""Nothing that a given program raises passes the border as it is; what a signal's handler raises does."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import greenlet
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from verifier import VerifierError, inputs, verify
from verifier.border import programs, signals
from verifier.errors import ModelError, SourceError
from verifier.initialisation.comparing import verify_initialisation
from verifier.models import specs
from verifier.training.data import read
from verifier.training.parity import train_parity
from verifier.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Callable


class Custom(BaseException):
    """Of a kind that nobody expects."""


class Mute(BaseException):
    """Even asking what it says ends the process."""

    def __str__(self) -> str:
        raise SystemExit(0)


ENDINGS = (
    SystemExit(0),
    KeyboardInterrupt(),
    GeneratorExit(),
    Custom("why"),
    greenlet.GreenletExit(),
    Mute(),
)
endings = pytest.mark.parametrize("ending", ENDINGS, ids=lambda each: type(each).__name__)

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))


class Ending(nn.Module):
    """Ends in its forward, once it has returned from `left` calls; copies of it count together."""

    left = 0

    def __init__(self, ending: BaseException) -> None:
        super().__init__()
        self.body = small()
        self.ending = Raising(ending)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if Ending.left == 0:
            self.ending()
        Ending.left -= 1
        return x


class Raising:
    """Raises one and the same exception, in copies, too."""

    def __init__(self, ending: BaseException) -> None:
        self.ending = ending

    def __deepcopy__(self, _: dict[int, Any]) -> Raising:
        return self

    def __call__(self, *_: object) -> None:
        raise self.ending


def message(act: Callable[[], object], kind: type[VerifierError] = VerifierError) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.of_program
    said = str(caught.value)
    assert "\n" not in said
    return said


@endings
@pytest.mark.parametrize("after", range(3))
def test_a_model_that_ends_in_any_of_its_calls_is_a_model_that_failed(
    ending: BaseException, after: int
) -> None:
    Ending.left = after
    said = message(lambda: verify(small(), Ending(ending), X), ModelError)
    assert "candidate" in said
    assert type(ending).__name__ in said


@endings
@pytest.mark.parametrize("kind", ["before", "after", "load"])
def test_so_is_one_whose_hooks_end(ending: BaseException, kind: str) -> None:
    hook = Raising(ending)
    candidate = small()
    if kind == "before":
        candidate[1].register_forward_pre_hook(hook)
    elif kind == "after":
        candidate[1].register_forward_hook(hook)
    else:
        candidate.__class__ = type("Sealed", (nn.Sequential,), {"__deepcopy__": hook})
    assert type(ending).__name__ in message(lambda: verify(small(), candidate, X), ModelError)


@endings
def test_a_baseline_that_ends_does_not_take_its_inputs(ending: BaseException) -> None:
    Ending.left = 0
    assert "the baseline" in message(lambda: verify(Ending(ending), small(), X))


@pytest.mark.parametrize(
    "ending", ["sys.exit()", "raise SystemExit(1)", "raise KeyboardInterrupt", "raise GeneratorExit"]
)
@pytest.mark.parametrize("when", ["import", "build"])
def test_what_ends_while_it_is_imported_or_built_leads_to_no_model(
    tmp_path: Path, ending: str, when: str
) -> None:
    program = f"import sys\n{ending}\n" if when == "import" else f"import sys\ndef build():\n    {ending}\n"
    (tmp_path / "net.py").write_text(program)
    said = message(lambda: specs.load(f"{tmp_path / 'net.py'}:build", seed=0), SourceError)
    assert "net.py, line" in said


@endings
def test_a_preprocessing_that_ends_fails_on_the_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: BaseException
) -> None:
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "one.png")
    (tmp_path / "prep.py").write_text("def prepare(picture):\n    raise ENDING\n")
    spec = f"{tmp_path / 'prep.py'}:prepare"
    specs.function(spec).__globals__["ENDING"] = ending
    said = message(lambda: inputs.images(tmp_path, None, 32, spec), ModelError)
    assert "one.png" in said


@pytest.mark.parametrize("where", ["loop", "backward"])
def test_a_trainer_that_ends_fails_at_its_batch(where: str) -> None:
    ending = SystemExit(0)

    def trainer(model: nn.Module, batches: Any) -> None:
        for images, labels in batches:
            if where == "loop":
                raise ending
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.register_hook(Raising(ending))  # type: ignore[no-untyped-call]
            loss.backward()  # type: ignore[no-untyped-call]

    tiny = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    data = read("digits", Path())
    recipe = TrainingRecipe(batch_size=2)
    said = message(lambda: train_parity(tiny, tiny, data, recipe=recipe, candidate_trainer=trainer, steps=1))
    assert "SystemExit" in said


@endings
def test_a_model_that_ends_while_its_initial_values_are_drawn_leads_to_none(ending: BaseException) -> None:
    def build() -> nn.Module:
        raise ending

    assert type(ending).__name__ in message(lambda: verify_initialisation(small, build))


# --- signals


class Pressing(nn.Module):
    """While it runs a signal arrives, and what its handler raises is changed on its way."""

    def __init__(self, number: signal.Signals, change: type[BaseException] | None = None) -> None:
        super().__init__()
        self.body = small()
        self.number, self.change = number, change

    def forward(self, x: Tensor) -> Tensor:
        try:
            signal.raise_signal(self.number)
        except BaseException:
            if self.change is None:
                raise
            raise self.change from None
        y: Tensor = self.body(x)
        return y


@pytest.mark.parametrize("change", [None, SystemExit, Custom])
def test_ctrl_c_stays_what_it_is_whatever_a_model_makes_of_it(change: type[BaseException] | None) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        verify(small(), Pressing(signal.SIGINT, change), X)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_callers_own_handler_raises_reaches_the_caller() -> None:
    def leave(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit) as caught:
            verify(small(), Pressing(signal.SIGTERM), X)
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143


def test_a_handler_that_a_model_sets_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import signal\nfrom torch import nn\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nbuild = nn.ReLU\n"
    )
    before = signal.getsignal(signal.SIGINT)
    specs.load(f"{tmp_path / 'deaf.py'}:build", seed=0)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_passing_is_no_answer_to_a_signal() -> None:
    error = KeyboardInterrupt()
    error.__context__ = ValueError()
    error.__context__.__context__ = error  # a circle ends the search
    assert signals.answer_in(error) is None


def test_a_program_that_goes_elsewhere_is_brought_back(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text(
        "import os\nfrom torch import nn\nos.chdir('/')\ndef build():\n    os.chdir('/')\n    return nn.ReLU()\n"
    )
    before = Path.cwd()
    specs.load(f"{tmp_path / 'leaving.py'}:build", seed=0)
    assert Path.cwd() == before


def test_a_manager_that_is_closed_unused_says_nothing_of_a_program() -> None:
    manager = programs.contained()
    manager.__enter__()
    manager.gen.close()  # what becomes of it where Ctrl-C came before its end; a ModelError would come out here
