"""Model specifications: from a line of text such as `torchvision:resnet50` to a live model."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from verifier.border.error_texts import account, first_line
from verifier.border.programs import translating, undisturbed
from verifier.environment import flags, preserved
from verifier.errors import CannotRunError, SourceError, UsageError, suggestion
from verifier.graph.chance import random_state
from verifier.models.importing import ROOT, importable, imported, located, rooted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import ModuleType

    from verifier.graph.chance import RandomState

FORMS = "torchvision:NAME, reference:NAME, baseline:NAME, package.module:callable or path/to/file.py:callable"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that a specification led to, and what should be known about it.

    `flags` are the backend flags that building it changed, with their values before and after; they were put back.
    `chance` is the random state that building it left behind, which was put back likewise.
    """

    spec: str
    model: nn.Module
    notes: tuple[str, ...] = ()
    flags: tuple[tuple[str, str, str], ...] = ()
    chance: RandomState | None = None


def load(spec: str, *, seed: int | None) -> Source:
    """Build the model that `spec` names.

    `spec` is one of `FORMS`; after the colon a dotted path may be given. It may lead to a function or class
    that is called without arguments, or to a module that is taken as it is. It is built under
    `torch.manual_seed(seed)` (or, where `seed` is None, under the current random state), and random states,
    default dtype and device, grad mode and backend flags are as before afterwards.

    A model whose modules are all in training mode, as constructors leave them, is put into evaluation mode.
    Where the modes are mixed somebody chose them: they are left as they are, with a note.

    Raises:
        SourceError: The specification leads to no model; the message says where it ends and what to do.
        CannotRunError: torchvision is needed and does not import here.
    """
    kind, colon, name = spec.partition(":")
    with preserved(), undisturbed():
        _start(seed)
        before = flags()
        if colon and kind == "torchvision":
            model = _torchvision_model(spec, name, seed)
        elif colon and kind == "baseline":
            model = _baseline_model(spec, name, seed)
        elif colon and kind == "reference":
            model = _reference_model(spec, name, seed)
        else:
            model = _users_model(spec, seed)
        changed = tuple(
            (name, before.get(name, "unset"), value)
            for name, value in flags().items()
            if before.get(name) != value
        )
        return Source(spec, model, _settle_mode(model), changed, random_state())


def architectures() -> list[str]:
    """What `--arch` knows: the reference models that have a baseline, sorted by name."""
    import reference_models  # noqa: PLC0415 - builds every family, which only this function and its kin need

    return [known for known in reference_models.list() if reference_models.get(known).baseline is not None]


def function(spec: str) -> Callable[..., Any]:
    """What a specification of the form `package.module:name` or `path/to/file.py:name` leads to, not called.

    Raises:
        SourceError: It leads to nothing, or to something that cannot be called.
    """
    with preserved(), undisturbed():
        found = attribute(spec)
    if not callable(found):
        raise SourceError(f"{spec} is no function: it is a {type(found).__name__}")
    named: Callable[..., Any] = found
    return named


def arch(name: str) -> tuple[str, str]:
    """The baseline's and the candidate's specification that `--arch name` is short for.

    Raises:
        UsageError: There is no reference model of this name, or no baseline for it.
    """
    import reference_models  # noqa: PLC0415 - builds every family, which only this function and its kin need

    paired = architectures()
    if name in paired:
        return str(reference_models.get(name).baseline), f"reference:{name}"
    if name in reference_models.list():
        raise UsageError(
            f"{name!r} has no twin to be the baseline. Name one with --baseline and use "
            f"--candidate reference:{name}."
        )
    if elsewhere := _named(name):
        raise UsageError(
            f"--arch has no {name!r}: there is no reference model of it to be the candidate. Use --baseline "
            f"{elsewhere[0]}, and --candidate with your model."
        )
    raise UsageError(
        f"unknown architecture {name!r}{suggestion(name, paired) or '.'} `verifier models` lists "
        "what it takes; other models are named with --baseline and --candidate."
    )


def _named(name: str) -> list[str]:
    """The specifications without a place of the user's that lead to a model of this name."""
    import reference_models  # noqa: PLC0415 - builds every family, which only this function and its kin need

    known: dict[str, Collection[str]] = {"reference": reference_models.list()}
    with contextlib.suppress(Exception):  # torchvision does not import here: a name is being explained
        from torchvision import models  # noqa: PLC0415 - half a second, and not every run needs it

        from verifier.models import composed_baselines  # noqa: PLC0415 - imports torchvision

        known = {"torchvision": models.list_models(), **known, "baseline": composed_baselines.BUILDERS}
    return [f"{kind}:{name}" for kind, names in known.items() if name in names]


def _start(seed: int | None) -> None:
    if seed is not None:
        torch.manual_seed(seed)


def _settle_mode(model: nn.Module) -> tuple[str, ...]:
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if len(training) == sum(1 for _ in model.modules()):
        with contextlib.suppress(
            NotImplementedError
        ):  # an exported program has the one mode it was traced in
            model.eval()
        return ()
    if not training:
        return ()
    more = f" and {len(training) - 3} more" if len(training) > 3 else ""
    return (f"left in training mode, as it was built: {', '.join(training[:3])}{more}",)


@contextlib.contextmanager
def _torchvision_needed() -> Iterator[None]:
    with translating(
        lambda error: CannotRunError(
            f"torchvision does not import here ({first_line(error)}). Install builds of torch and "
            "torchvision that belong together, or give a --baseline that is not torchvision's."
        )
    ):
        yield


def _torchvision_model(spec: str, name: str, seed: int | None) -> nn.Module:
    with _torchvision_needed():
        from torchvision import models  # noqa: PLC0415 - half a second, and not every run needs it
    known = models.list_models()
    if name not in known:
        raise SourceError(f"torchvision has no model {name!r}{suggestion(name, known)}")
    build = models.get_model_builder(name)
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(build).parameters:
        options["weights_backbone"] = None  # detection and segmentation models would download them
    if name.lower() in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # their default, but they warn unless it is said
    return _call(functools.partial(build, **options), spec, seed)


def _baseline_model(spec: str, name: str, seed: int | None) -> nn.Module:
    with _torchvision_needed():
        from verifier.models import composed_baselines  # noqa: PLC0415 - imports torchvision, which not every run needs
    if name not in composed_baselines.BUILDERS:
        raise SourceError(f"there is no baseline {name!r}{suggestion(name, composed_baselines.BUILDERS)}")
    return _call(composed_baselines.BUILDERS[name], spec, seed)


def _reference_model(spec: str, name: str, seed: int | None) -> nn.Module:
    import reference_models  # noqa: PLC0415 - builds every family, which only a `reference:` spec needs

    try:
        build = reference_models.get(name)
    except LookupError as error:
        known = _named(name)
        hint = f"; there is {known[0]}" if known else suggestion(name, reference_models.list())
        raise SourceError(f"there is no reference model {name!r}{hint}") from error
    return _call(build, spec, seed)


def attribute(spec: str) -> Any:
    """What a user's file or module holds under a name: `file.py:name` or `package.module:name`, dotted if need be.

    Raises:
        SourceError: There is no such file, module or name, or importing it raised.
    """
    with holding(spec) as found:
        return found


@contextlib.contextmanager
def holding(spec: str) -> Iterator[Any]:
    """What `attribute` returns; inside, it may still import what lies beside it.

    Raises:
        SourceError: As `attribute` does.
    """
    place, target = _split(spec)
    root, place = rooted(place)
    if root is not None:
        with imported(_below(root, place, spec), spec, root) as module:
            yield _attribute(module, target, spec)
    elif file := _as_file(place):
        with imported(file, spec) as module:
            yield _attribute(module, target, spec)
    else:
        with importable((str(Path.cwd()),)):
            yield _attribute(_import_module(place, spec), target, spec)


def started_in(spec: str, directory: Path, option: str) -> str:
    """A user's specification whose imports start in a directory: `directory/./package/net.py:build`.

    Args:
        spec: The specification without it: a file, named from here or from there, or a module there.
        directory: Where imports start.
        option: What asked for it, for messages.

    Raises:
        SourceError: It is no such specification, or does not lie there.
    """
    kind, colon, _ = spec.partition(":")
    if (colon and kind in ("torchvision", "reference", "baseline")) or not spec.rpartition(":")[1]:
        raise SourceError(
            f"{option} goes with package.module:callable or path/to/file.py:callable, not with {spec!r}"
        )
    if not directory.is_dir():
        raise SourceError(f"{option} is {str(directory)!r}, which is no directory")
    place, target = _split(spec)
    file = _as_file(place)
    if file is not None and file.is_file() and file.resolve().is_relative_to(directory.resolve()):
        place = file.resolve().relative_to(directory.resolve()).as_posix()
    whole = f"{directory}{ROOT}{place}:{target}"
    _below(directory, place, spec)
    return whole


def _below(root: Path, place: str, spec: str) -> Path:
    """The file that a path or a module's name leads to below a folder."""
    if _as_file(place):
        return root / place
    found = located(root, place) if all(part.isidentifier() for part in place.split(".")) else None
    if found is None:
        raise SourceError(f"there is no module {place!r} in {root} for {spec!r}")
    return found


def _users_model(spec: str, seed: int | None) -> nn.Module:
    with holding(spec) as found:
        return found if isinstance(found, nn.Module) else _call(found, spec, seed)


def _split(spec: str) -> tuple[str, str]:
    """Where to import from and what to take from there. The last colon counts: a Windows path has one too."""
    place, colon, target = spec.rpartition(":")
    is_drive = len(place) == 1 and place.isalpha() and re.search(r"[\\/]|\.py$", target, re.IGNORECASE)
    if not colon or is_drive:
        example = " or ".join(_named(spec)) or f"{spec}:build"
        raise SourceError(f"{spec!r} does not say what to build: expected {FORMS}, such as {example}")
    if not place:
        raise SourceError(f"{spec!r} has nothing before its colon: expected {FORMS}")
    if not all(part.isidentifier() for part in target.split(".")):
        raise SourceError(
            f"{target!r} in {spec!r} is not the name of a function, class or model: expected {FORMS}"
        )
    return place, target


def _as_file(place: str) -> Path | None:
    path = Path(place).expanduser()
    if path.suffix.lower() == ".py" or path.is_file():
        return path
    return path if re.search(r"[\\/]", place) or place.startswith("~") else None


def _import_module(name: str, spec: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise SourceError(f"{name!r} in {spec!r} is neither a module's name nor a .py file: expected {FORMS}")
    with translating(lambda error: SourceError(f"{name} does not import: {account(error)}")):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            hint = suggestion(name, ("torchvision", "reference", "baseline"))
            hint = hint or " (looked in the current directory and among the installed packages)"
            raise SourceError(f"there is no module {error.name!r} for {spec!r}{hint}") from error


def _attribute(module: ModuleType, target: str, spec: str) -> Any:
    found: Any = module
    for part in target.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            owner = "" if found is module else f" in {type(found).__name__}"
            names = [key for key in dir(found) if not key.startswith("_")]
            hint = suggestion(part, names) or _builders(found, module)
            raise SourceError(f"{spec} does not exist: there is no {part!r}{owner}{hint}") from error
    return found


def _builders(owner: Any, module: ModuleType) -> str:
    """A few things defined there that are or could build a model, as the end of a message."""

    def fits(value: object) -> bool:
        defined_here = getattr(value, "__module__", "") == module.__name__
        return isinstance(value, nn.Module) or (callable(value) and defined_here)

    own = [name for name in dir(owner) if not name.startswith("_") and fits(getattr(owner, name, None))]
    more = " and more" if len(own) > 5 else ""
    return f"; there are {', '.join(own[:5])}{more}" if own else ", nor anything else to call"


def _call(build: Any, spec: str, seed: int | None) -> nn.Module:
    if not callable(build):
        raise SourceError(
            f"{spec} is a {type(build).__name__}, neither a torch.nn.Module nor something that builds one"
        )
    model = called(build, spec, seed)
    if isinstance(model, nn.Module):
        return model
    hint = "; return the model that these weights belong to" if isinstance(model, dict) else ""
    raise SourceError(
        f"{spec} returned an object of type {type(model).__name__}, not a torch.nn.Module{hint}"
    )


def called(build: Callable[..., Any], spec: str, seed: int | None) -> Any:
    """What a user's function that takes no arguments returns under a seed.

    Raises:
        SourceError: It takes some, or raised.
    """
    missing = _missing_arguments(build)
    if missing:
        raise SourceError(
            f"{spec} cannot be called without arguments: it needs {', '.join(missing)}. Name a function that "
            "takes none, for example one of your own in a .py file that calls it."
        )
    _start(seed)  # again: importing may have drawn numbers, and does so only the first time
    with translating(lambda error: SourceError(f"{spec} raised {account(error)}")):
        return build()


def _missing_arguments(build: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        return []  # some built-in callables do not tell
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]
