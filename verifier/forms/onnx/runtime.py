"""ONNX models as ONNX Runtime runs them: node by node, and optimised to each of its levels."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import Tensor

from verifier.errors import InputError
from verifier.forms.binding import bound
from verifier.forms.form import Form, Kernel, reading
from verifier.forms.onnx.kernels import dtypes, made_of, operator
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram
from verifier.forms.onnx.quantised import QuantisedOnnx
from verifier.forms.onnx.rounded import has_quantisers
from verifier.forms.onnx.sessions import LEVELS, opened
from verifier.forms.paths import numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from verifier.graph import Graph

_AT_ONCE = 64  # values that one run shows, so that not all of them are in memory


class Level:
    """A model in a session of one level, as its file is run.

    Args:
        name: One of `sessions.LEVELS`.
        model: The model, or its file.
        program: The same as a program.
    """

    def __init__(self, name: str, model: onnx.ModelProto | Path, program: OnnxProgram) -> None:
        self.name = name
        self._model = model
        self._program = program

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the session returns: a tensor, or a tuple of its outputs in order.

        Raises:
            InputError: The file says another shape of an input.
        """
        session = opened(
            self._model, level=self.name
        )  # and not kept: it holds all weights once more, or twice
        feeds = self._feeds(session, args, kwargs)
        for each in session.get_inputs():
            taken, given = each.shape, feeds[each.name].shape
            fits = len(taken) == len(given) and all(
                one == other for one, other in zip(taken, given, strict=True) if isinstance(one, int)
            )
            if not fits:
                sizes = ", ".join(str(size) if isinstance(size, int) else "any" for size in taken)
                raise InputError(
                    f"the ONNX model takes {each.name} of shape ({sizes}), and was given {given}. Give it such "
                    "inputs (--batch-size where it is the number of samples), or export it with that dimension "
                    "dynamic."
                )
        found = tuple(map(_tensors, session.run(None, feeds)))
        return found[0] if len(found) == 1 else found

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        """What is left of the program's values after the optimisation, as the optimised model computes them."""
        sites = {(line, site.output): site.index for line, site in numbered(graph)}
        place = {
            name: sites[planned.place.source.line, k]
            for planned in self._program.plan.steps
            for k, name in enumerate(filter(None, planned.step.node.outputs))
            if planned.place.source is not None and (planned.place.source.line, k) in sites
        }
        with self._optimised() as saved:
            model = onnx.load(str(saved))
            made = {name: node for node in model.graph.node for name in node.output}
            wanted = [name for name in made if name in place]
            own = [*model.graph.output]
            for first in range(0, len(wanted), _AT_ONCE):
                names = wanted[first : first + _AT_ONCE]
                del model.graph.output[:]
                model.graph.output.extend(own)
                present = {each.name for each in own}
                model.graph.output.extend(
                    onnx.ValueInfoProto(name=name) for name in names if name not in present
                )
                onnx.save(model, str(saved))
                session = opened(saved)
                found = session.run(names, self._feeds(session, args, kwargs))
                for name, array in zip(names, found, strict=True):
                    yield place[name], operator(made[name]), torch.from_numpy(np.array(array))

    def kernels(self, graph: Graph) -> Iterator[Kernel]:
        """What each node of the optimised model makes of the program's sites."""
        sites: dict[int, list[int]] = {}
        for line, site in numbered(graph):
            sites.setdefault(line, []).append(site.index)
        with self._optimised() as saved:
            model = onnx.load(str(saved), load_external_data=False)
        kinds, native = dtypes(model), str(self._program.plan.native).removeprefix("torch.")
        for made in made_of(self._program.plan, model.graph.node):
            makes = tuple(site for line in made.lines for site in sites.get(line, ()))
            dtype = kinds.get(made.computing.output[0]) or made.cast_to
            if not dtype and makes and len(made.nodes) == 1:  # as the file has it
                dtype = graph.sites[makes[0]].dtype
                dtype = native if dtype.startswith("float") else dtype
            yield Kernel(made.name, made.operator, makes, dtype)

    @contextlib.contextmanager
    def _optimised(self) -> Iterator[Path]:
        """The file of the optimised model."""
        with tempfile.TemporaryDirectory() as directory:
            saved = Path(directory) / "optimised.onnx"
            opened(self._model, level=self.name, saved=saved)
            yield saved

    def _feeds(self, session: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        kinds = {each.name: _KINDS.get(each.type) for each in session.get_inputs()}
        return {
            name: np.asarray(tensor.detach().numpy(), dtype=kinds.get(name), order="C")
            for name, tensor in self._program.bound(args, kwargs)
        }


_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""What floating-point inputs are, as the runtime has it: some models take other ones than they compute with."""


def _tensors(value: Any) -> Any:
    """What a session returns, with tensors: an array or, for a sequence, a list."""
    return list(map(_tensors, value)) if isinstance(value, list) else torch.from_numpy(np.array(value))


def of(model: onnx.ModelProto | Path) -> Form:
    """The form of a model, or of its file."""
    whole = onnx.load(str(model)) if isinstance(model, Path) else model
    file = model.name if isinstance(model, Path) else "model.onnx"
    if has_quantisers(whole):
        return _quantised(whole, file)
    program = OnnxProgram(Plan(whole, file))
    return _form(program, tuple(Level(level, model, program) for level in LEVELS))


def _form(
    program: OnnxProgram, stages: tuple[Level, ...] = (), quantised: QuantisedOnnx | None = None
) -> Form:
    dtype = str(program.plan.native).removeprefix("torch.")
    kind = "an ONNX model" if quantised is None else quantised.kind
    mixed = f"the ONNX model computes in {dtype} and in other dtypes: it is judged by the rounding of {dtype}"
    return Form(
        kind,
        program,
        stages,
        dtypes=frozenset({dtype}),
        notes=(mixed,) if program.plan.mixed else (),
        captured=True,
        quantised=quantised,
        shapes=program.plan.shapes,
    )


def _quantised(model: onnx.ModelProto, file: str) -> Form:
    """The form of a model with quantisers: what runs as shipped is held against them elsewhere."""
    quantised = QuantisedOnnx(model, lambda undone: _form(OnnxProgram(Plan(undone, file))), _running)
    if not quantised.whole or not quantised.layers:  # what rounds is computed, or laid out in another way
        program = OnnxProgram(Plan(model, file))
        return _form(program, tuple(Level(level, model, program) for level in LEVELS))
    return _form(OnnxProgram(Plan(model, file)), quantised=quantised)


def _running(
    model: onnx.ModelProto, level: str
) -> Callable[[Sequence[Any], Mapping[str, Any]], Sequence[np.ndarray]]:
    """Runs a model in a session of one level, on arguments as a program has them."""
    session = opened(model, level=level)
    names = [each.name for each in session.get_inputs()]

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[np.ndarray]:
        given = {
            name: np.asarray(tensor.detach().numpy(), order="C")
            for name, tensor in bound("the ONNX model", names, args, kwargs)
        }
        found: Sequence[np.ndarray] = session.run(None, given)
        return found

    return run


def read(path: Path) -> Form:
    """The form in an `.onnx` file.

    Raises:
        SourceError: It holds no ONNX model.
    """
    with reading(str(path), "an ONNX model"):
        try:
            onnx.checker.check_model(str(path))
        except onnx.checker.ValidationError:
            opened(
                path
            )  # which knows operators that ONNX does not, and puts them into files that it has optimised
    return of(path)
