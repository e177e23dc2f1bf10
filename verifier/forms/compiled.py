"""Models through torch.compile: the Python inside is the program, and what the compiler makes of it the stages."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from verifier.border.error_texts import account
from verifier.errors import UsageError, suggestion
from verifier.forms import compiler
from verifier.forms.form import Form
from verifier.forms.taps import Log, Tap, Watching, places
from verifier.graph.tensors import mapped, tensors_in
from verifier.models.copying import INSIDE, copy_with, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.graph import Graph

KIND = "a compiled module"

_BELOW = {
    "inductor": ("eager", "aot_eager", "aot_eager_decomp_partition"),
    "aot_eager_decomp_partition": ("eager", "aot_eager"),
    "aot_eager": ("eager",),
    "eager": (),
}
"""What some of torch's backends are built upon: what they are handed, run by torch's own kernels."""
_HANDED = ("eager",)  # all that is known of another one is that it is handed a graph

_OPTIONS = ("backend", "mode", "dynamic", "fullgraph")
_WORDS = {"true": True, "false": False}
_CALLS = 3  # before CUDA graphs are replayed: one to warm up, one to record


@dataclass(frozen=True)
class Recipe:
    """How a module is compiled.

    Attributes:
        name: What the backend is called, with its mode.
        backend: It.
        below: The backends of torch's that it is built upon, the least first.
        graph: Whether it runs the graph it is handed with torch's own kernels, an operator at a time.
        dynamic: Whether sizes are; None where the compiler finds out.
        fullgraph: Whether the compiler may not leave its graph.
    """

    name: str
    backend: Callable[..., Any]
    below: tuple[str, ...] = _HANDED
    graph: bool = False
    dynamic: bool | None = None
    fullgraph: bool = False

    @classmethod
    def of(cls, text: str) -> Recipe:
        """The recipe that is written `backend=inductor,mode=max-autotune,dynamic=true`; nothing is torch's default.

        Raises:
            UsageError: torch.compile has no such option, or it takes no such value.
        """
        options: dict[str, Any] = {}
        for each in filter(None, (each.strip() for each in text.split(","))):
            name, equals, value = each.partition("=")
            if name not in _OPTIONS or not equals or name in options:
                hint = suggestion(name, _OPTIONS) or f". They are {', '.join(_OPTIONS)}."
                raise UsageError(
                    f"{each!r} is no option of torch.compile that is known here, or stands twice{hint}"
                )
            options[name] = _WORDS.get(value.lower(), value)
        for name in {"dynamic", "fullgraph"} & options.keys():
            if not isinstance(options[name], bool):
                raise UsageError(f"{name}={options[name]}: write true or false.")
        return cls.made(**options)

    @classmethod
    def made(
        cls,
        backend: str | Callable[..., Any] = "inductor",
        mode: str | None = None,
        dynamic: bool | None = None,
        fullgraph: bool = False,
    ) -> Recipe:
        """What torch.compile does with these options.

        Raises:
            UsageError: There is no such backend or mode.
        """
        try:
            found = _of_context(torch.compile(nn.Identity(), backend=backend, mode=mode).dynamo_ctx)  # type: ignore[attr-defined]
        except Exception as error:
            raise UsageError(f"torch.compile takes no such options: {account(error)}") from error
        if found is None:
            raise UsageError(f"torch.compile does nothing with the backend {backend}.")
        name = found.name if mode is None else f"{found.name}, {mode}"
        return replace(found, name=name, dynamic=dynamic, fullgraph=fullgraph)

    @property
    def replays(self) -> bool:
        """Whether CUDA graphs stand in for its code after some calls."""
        config = getattr(self.backend, "config", None)
        return isinstance(config, dict) and bool(config.get("triton.cudagraphs"))


class Compiled:
    """A program after some of what the compiler does to it.

    Args:
        name: The backend, as it is told.
        program: The program, which is copied for every run.
        recipes: How each of its modules is compiled that is, by name.
        graph: Whether the backend runs the graph it is handed with torch's own kernels, an operator at a time.
        draws: Whether the program draws random numbers.

    Attributes:
        made: In words, what the compiler has made of it; empty before it has run.
    """

    def __init__(
        self, name: str, program: nn.Module, recipes: Mapping[str, Recipe], *, graph: bool, draws: bool
    ) -> None:
        self.name = name
        self.graph = graph
        self.made = ""
        self._program = program
        self._recipes = recipes
        self._draws = draws
        self._shapes = compiler.Shapes()
        self._taps: dict[int, Tap] = {}

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What its code returns, untouched."""
        before = compiler.breaks()
        returned, log = self._run(args, kwargs, ())
        left = [why for why, count in compiler.breaks().items() if count > before.get(why, 0)]
        self.made = _made(len(log.ran), left)
        return returned

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        """What it computes where each of the program's values is kept."""
        _, log = self._run(args, kwargs, None)
        found = {
            site: each
            for site, each in zip(places(log.kept, graph), log.kept, strict=True)
            if site is not None
        }
        self._taps = {site: each.tap for site, each in found.items()}
        for site in sorted(found):
            yield site, found[site].operator, found[site].tensor

    def keeping(self, args: Sequence[Any], kwargs: Mapping[str, Any], sites: Collection[int]) -> Any:
        """What it returns where the values of some sites are kept that `values` has yielded."""
        return self._run(args, kwargs, {self._taps[site] for site in sites})[0]

    def rounding(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns where generated code rounds between operators as torch's own kernels do."""
        return self._run(args, kwargs, (), rounding=True)[0]

    def _run(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        taps: Collection[Tap] | None,
        *,
        rounding: bool = False,
    ) -> tuple[Any, Log]:
        log = Log()
        copied = copy_with(self._program, state_of(self._program), lambda tensor: tensor, role="model")
        for name, recipe in self._recipes.items():
            nn.Module.compile(  # a class may have another method of that name
                copied.get_submodule(name),
                backend=Watching(recipe.backend, recipe.name, log, name, taps),
                dynamic=recipe.dynamic,
                fullgraph=recipe.fullgraph,
                **compiler.APART,
            )
        held = [(module, dict(vars(module))) for module in copied.modules()]
        with compiler.undisturbed(self._shapes, draws=self._draws, rounding=rounding):
            for number in range(self._calls(args, kwargs)):
                if number:  # what an earlier call wrote is put back
                    self._begin_again(copied, held)
                    log.kept.clear()
                own = mapped((args, kwargs), torch.clone)
                returned = copied(*own[0], **own[1])
        return returned, log

    def _calls(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """How many calls it takes until what is shipped runs."""
        cuda = any(tensor.is_cuda for tensor in tensors_in((args, kwargs)))
        return _CALLS if cuda and any(each.replays for each in self._recipes.values()) else 1

    def _begin_again(self, copied: nn.Module, held: Sequence[tuple[nn.Module, Mapping[str, Any]]]) -> None:
        for module, attributes in held:
            vars(module).update(attributes)
        before = state_of(self._program)
        for name, tensor in state_of(copied).items():
            tensor.copy_(before[name])
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def of(program: nn.Module, recipes: Mapping[str, Recipe]) -> Form:
    """The form of a program of which some modules are compiled.

    Args:
        program: It, of which nothing is compiled.
        recipes: How each of these modules is, by name.
    """

    def recompiled(made: nn.Module, *, draws: bool) -> tuple[Compiled, ...]:
        names = [each.name for each in recipes.values()]
        below = max((each.below for each in recipes.values()), key=len)
        under = (
            Compiled(
                name,
                made,
                {part: Recipe.made(name, dynamic=each.dynamic) for part, each in recipes.items()},
                graph=True,
                draws=draws,
            )
            for name in below
        )
        shipped = Compiled(
            "; ".join(dict.fromkeys(names)),
            made,
            recipes,
            graph=all(each.graph for each in recipes.values()),
            draws=draws,
        )
        return (*under, shipped)

    return Form(KIND, program, owns_weights=False, recompiled=recompiled)


def recipes_of(model: nn.Module, parts: Sequence[str]) -> dict[str, Recipe]:
    """How the modules of a model are compiled, by their names in the program inside; empty where one does not tell.

    Args:
        model: The model as it was given.
        parts: Names of the modules that are compiled.
    """
    found: dict[str, Recipe] = {}
    for part in parts:
        module = model.get_submodule(part)
        context = getattr(module, "dynamo_ctx", None)
        if context is None:
            function = getattr(module, "_compiled_call_impl", None)
            context = (
                inspect.getclosurevars(function).nonlocals.get("self")
                if inspect.isfunction(function)
                else None
            )
        recipe = None if context is None else _of_context(context)
        if recipe is None:
            return {}
        found[".".join(each for each in part.split(".") if each != INSIDE)] = recipe
    return found


def _of_context(context: Any) -> Recipe | None:
    """What torch.compile has put into one of its contexts; None where it is another one."""
    backend: Any = getattr(context, "callback", None)
    while hasattr(backend, "_torchdynamo_orig_backend"):
        backend = backend._torchdynamo_orig_backend
    if not callable(backend):
        return None
    name = str(getattr(backend, "compiler_name", "") or getattr(backend, "__name__", type(backend).__name__))
    function = getattr(backend, "compiler_fn", backend)
    own = str(getattr(function, "__module__", "")).partition(".")[0] == "torch"
    return Recipe(
        name,
        backend,
        _BELOW.get(name, _HANDED) if own else _HANDED,
        own and name in _BELOW["inductor"],
        getattr(context, "_dynamic", None),
        bool(getattr(context, "fullgraph", False)),
    )


def _made(graphs: int, left: Sequence[str]) -> str:
    if graphs == 0:
        return "nothing: its Python ran as it is"
    count = "one graph" if graphs == 1 else f"{graphs} graphs"
    return f"{count}, which it left for Python: {'; '.join(left)}" if left else count
