"""A program that goes through a compiler: first its code as it is shipped, then, if that departs, the stages below.

Each stage takes seconds to make. So what is shipped runs first; if it gives what its program gives within rounding,
whatever is below it has been good enough. If not, the stages are climbed from the lowest one, and the first that
departs is looked into.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from msgspec.structs import replace

from verifier.bench.ladder import Climbed, beside, failing, furthest, keep, told
from verifier.bench.nearness import Error, near
from verifier.bench.outputs import agree, all_near, apart, begin, copied, one_of_each_size
from verifier.border.programs import translating
from verifier.border.signals import check_unanswered
from verifier.cells import ORACLE
from verifier.errors import CannotRunError, VerifierError
from verifier.graph.chance import random_state, same_chance
from verifier.graph.returned import Returned
from verifier.graph.widening import default_dtype
from verifier.models.casting import made_in
from verifier.models.compiled import interpreted
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from verifier.bench.side import Side
    from verifier.cells import Cell
    from verifier.forms.form import Form, Rung
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.records import FormStage


def recompiled(side: Side, form: Form, parts: Sequence[Inputs]) -> Climbed:
    """Run the stages of a form that a compiler makes of its program, as far as it takes.

    Args:
        side: The model, with the tensors and in the cell in which it is asked about.
        form: What makes its stages.
        parts: What it is asked about, in batches; it is run on one of each size, in their order.

    Raises:
        InputError: The baseline does not take the inputs.
        ModelError: The candidate fails on what the baseline takes, or what is shipped on what its program takes.
    """
    begin(side)
    found = Climbed()
    rungs: tuple[Rung, ...] = ()
    for inputs in one_of_each_size(parts):
        python = _python(side, inputs, side.cell())
        found.draws |= python.draws
        climb = _Climb(side, form, inputs, python)
        rungs = rungs or climb.rungs(side.cell())
        returned = climb.run(rungs[-1])
        found.made = rungs[-1].made
        nears = agree(side, inputs, python.returned, returned)
        if all_near(nears):
            keep(found, climb.told(rungs[-1], returned, Verdict.MATCH))
            continue
        found.apart = apart(python.returned, returned, nears)
        found.limits = tuple(each.limit for each in nears)
        found.results, found.stage = climb.up(rungs, returned)
        break
    return found


class _Python(NamedTuple):
    """What the program itself returned, and whether it drew random numbers."""

    returned: list[Tensor]
    draws: bool


@contextlib.contextmanager
def _running(cell: Cell) -> Iterator[None]:
    """All that both the program and its code run in, in a cell. Casts to float32 are left: code has them, too."""
    with torch.no_grad(), cell.casting(), default_dtype(made_in(cell)), same_chance():
        yield


def _python(side: Side, inputs: Inputs, cell: Cell) -> _Python:
    """The program as Python runs it in a cell."""
    copy = copied(side, cell)
    args, kwargs = side.arguments(inputs, cell)
    with translating(partial(side.failure, inputs=inputs)), _running(cell), interpreted():
        before = random_state()
        returned = [tensor.clone() for tensor in Returned.of(copy(*args, **kwargs)).values()]
        return _Python(returned, draws=not before.same(random_state()))


class _Climb(NamedTuple):
    """A form of a model that is asked about one batch."""

    side: Side
    form: Form
    inputs: Inputs
    python: _Python

    def rungs(self, cell: Cell) -> tuple[Rung, ...]:
        """Its stages in a cell."""
        making = self.form.recompiled
        return () if making is None else making(copied(self.side, cell), draws=self.python.draws)

    def run(
        self, rung: Rung, cell: Cell | None = None, call: Callable[..., Any] | None = None
    ) -> list[Tensor]:
        """What a stage returns, or what a `call` of it does, in a cell or the model's own."""
        cell = cell or self.side.cell()
        args, kwargs = self.side.arguments(self.inputs, cell)
        with translating(partial(failing, self.side, rung)), _running(cell):
            return [tensor.clone() for tensor in Returned.of((call or rung.run)(args, kwargs)).values()]

    def near(self, returned: Sequence[Tensor]) -> bool:
        """Whether what a stage returned is what the program returns."""
        return all_near(agree(self.side, self.inputs, self.python.returned, returned))

    def told(self, rung: Rung, returned: Sequence[Tensor], verdict: Verdict) -> FormStage:
        """The record of a stage."""
        error = furthest(self.python.returned, returned)
        return told(self.side, self.form, rung, verdict, error, exact=verdict is Verdict.MATCH and error == 0)

    def up(self, rungs: Sequence[Rung], shipped: Sequence[Tensor]) -> tuple[list[FormStage], str]:
        """From the lowest stage to the first that departs, what is shipped after it; and where that went wrong."""
        found = []
        for number, rung in enumerate(rungs[:-1]):
            try:
                returned = self.run(rung)
            except CannotRunError:  # what is shipped runs, so this one may be left out
                continue
            if self.near(returned):
                found.append(self.told(rung, returned, Verdict.MATCH))
                continue
            first = self.placed(rungs, number, self.told(rung, returned, Verdict.DIVERGED))
            last = self.told(rungs[-1], shipped, Verdict.DIVERGED)
            return [*found, first, last], self.cause(number)
        last = self.placed(rungs, len(rungs) - 1, self.told(rungs[-1], shipped, Verdict.DIVERGED))
        if rungs[-1].graph:
            return [*found, last], self.cause(len(rungs) - 1)
        return [*found, replace(last, casts=self.casts(rungs[-1]))], "fusion"

    def casts(self, rung: Rung) -> bool:
        """Whether generated code agrees where it rounds between operators as torch's own kernels do."""
        try:
            return self.near(self.run(rung, call=rung.rounding))
        except CannotRunError:
            return False

    def cause(self, number: int) -> str:
        """Of a graph that torch's own kernels run, what is wrong: it, if float64 tells as well, else a kernel."""
        try:
            exact = _python(self.side, self.inputs, ORACLE)
            found = self.run(self.rungs(ORACLE)[number], ORACLE)
        except VerifierError:  # some programs do not run in float64 as they are
            return ""
        if [each.shape for each in exact.returned] != [each.shape for each in found]:
            return "translation"
        unit = self.side.cell().unit_roundoff
        pairs = zip(exact.returned, found, strict=True)
        alike = all(near(unit, one, one, two, Error(0.0, 0.0)).near for one, two in pairs)
        return "kernel" if alike else "translation"

    def placed(self, rungs: Sequence[Rung], number: int, result: FormStage) -> FormStage:
        """The record of a stage that departs, with the first of the program's sites that it changes.

        Where it changes none as soon as they are kept, it has those that mend it.
        """
        rung = rungs[number]
        try:
            graph = self.side.record(self.inputs)
            # What the lowest stage has at a site is what the program has there, or it is not that site's.
            known = (
                None if number == 0 else {site for site, _, alike in self.inside(rungs[0], graph) if alike}
            )
            met = [each for each in self.inside(rung, graph) if known is None or each[0] in known]
            changed = next((each for each in met if not each[2]), None)
            if changed is not None:
                return replace(result, site=graph.sites[changed[0]].name, operator=changed[1])

            def mends(sites: Sequence[int]) -> bool:
                return self.near(self.run(rung, call=partial(rung.keeping, sites=sites)))

            sites = tuple(site for site, _, _ in met)
            if sites and mends(sites):
                found = sorted(_least((), sites, mends))
                return replace(result, mended=tuple(graph.sites[site].name for site in found))
        except Exception as error:  # a backend need not take what is asked of it here
            check_unanswered(error)
        return result

    def inside(self, rung: Rung, graph: Graph) -> Iterator[tuple[int, str, bool]]:
        """The program's sites that a stage has, what makes each there, and whether it is as near to float64."""
        unit = self.side.cell().unit_roundoff
        args, kwargs = self.side.arguments(self.inputs)
        with _running(self.side.cell()):
            values = [*rung.values(args, kwargs, graph)]
        for site, operator, exact, program, value in beside(self.side, self.inputs, graph, iter(values)):
            alike = exact.shape == program.shape == value.shape and (
                near(unit, exact, program, value, Error.of(exact, program)).near
            )
            yield site, operator, alike


def clauses(stages: Sequence[FormStage]) -> Iterator[str]:
    """What the stages of compiled code tell, a clause each."""
    same = [each.name for each in stages if each.verdict is Verdict.MATCH]
    first = next((each for each in stages if each.verdict is Verdict.DIVERGED), None)
    if same:
        yield f"{' and '.join(same)} {'gives' if len(same) == 1 else 'give'} what the Python gives"
    if first is None:
        return
    yield f"{first.name} is the first stage that does not"
    if first.mended:
        yield f"kept as outputs of their own, the values of {' and '.join(first.mended)} mend it"
    if first.casts:
        yield "it agrees where it rounds between operators as torch's own kernels do (emulate_precision_casts)"


def _least(
    kept: tuple[int, ...], sites: tuple[int, ...], mends: Callable[[Sequence[int]], bool]
) -> tuple[int, ...]:
    """As few of some sites as mend, together with others that are kept, what all do (QuickXplain, Junker 2004)."""
    if len(sites) == 1:
        return sites
    half = len(sites) // 2
    one, other = sites[:half], sites[half:]
    for part in (one, other):
        if mends((*kept, *part)):
            return _least(kept, part, mends)
    mine = _least((*kept, *other), one, mends)
    return (*mine, *_least((*kept, *mine), other, mends))
