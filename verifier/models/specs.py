"""Model specifications: from a line of text such as `torchvision:resnet50` to a live model."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from verifier.border.error_texts import account, first_line, is_users
from verifier.border.programs import translating, undisturbed
from verifier.environment import flags, preserved
from verifier.errors import CannotRunError, SourceError, UsageError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

FORMS = "torchvision:NAME, reference:NAME, baseline:NAME, package.module:callable or path/to/file.py:callable"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that a specification led to, and what should be known about it.

    `flags` are the backend flags that building it changed, with their values before and after; they were put back.
    """

    spec: str
    model: nn.Module
    notes: tuple[str, ...] = ()
    flags: tuple[tuple[str, str, str], ...] = ()


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
        return Source(spec, model, _settle_mode(model), changed)


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
    raise UsageError(
        f"unknown architecture {name!r}{suggestion(name, paired) or '.'} `verifier models` lists "
        "what it takes; other models are named with --baseline and --candidate."
    )


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
        raise SourceError(
            f"there is no reference model {name!r}{suggestion(name, reference_models.list())}"
        ) from error
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
    file = _as_file(place)
    with _importable(file.resolve().parent if file else Path.cwd()):
        module = _import_file(file, spec) if file else _import_module(place, spec)
        yield _attribute(module, target, spec)


def _users_model(spec: str, seed: int | None) -> nn.Module:
    with holding(spec) as found:
        return found if isinstance(found, nn.Module) else _call(found, spec, seed)


def _split(spec: str) -> tuple[str, str]:
    """Where to import from and what to take from there. The last colon counts: a Windows path has one too."""
    place, colon, target = spec.rpartition(":")
    is_drive = len(place) == 1 and place.isalpha() and re.search(r"[\\/]|\.py$", target, re.IGNORECASE)
    if not colon or is_drive:
        example = f"torchvision:{spec} or reference:{spec}" if spec.isidentifier() else f"{spec}:build"
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


def _import_file(file: Path, spec: str) -> ModuleType:
    if file.is_dir():
        raise SourceError(f"{file} in {spec!r} is a folder; name the Python file in it that builds the model")
    if not file.is_file():
        with_suffix = file.with_name(f"{file.name}.py")
        raise SourceError(
            f"{file} in {spec!r} does not exist"
            + (f"; did you mean {with_suffix}?" if with_suffix.is_file() else f" (looked from {Path.cwd()})")
        )
    try:
        code = file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error
    # One name per file and content: an edited file is imported afresh, two specifications of one share its classes.
    digest = hashlib.sha256(os.fsencode(file.resolve()) + b"\0" + code).hexdigest()[:12]
    name = f"{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.SourceFileLoader(name, str(file.resolve()))
    module_spec = importlib.util.spec_from_file_location(name, file.resolve(), loader=loader)
    if module_spec is None:
        raise SourceError(f"{file} cannot be imported as Python")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look there
    try:
        with translating(
            lambda error: SourceError(f"{file} does not import: {account(error)}{_hint(error)}")
        ):
            # As the file is now: what Python caches is told apart by whole seconds, and edits are faster.
            exec(loader.source_to_code(loader.get_data(loader.path), loader.path), module.__dict__)  # noqa: S102
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _hint(error: BaseException) -> str:
    is_relative = isinstance(error, ImportError) and "relative import" in str(error)
    return "; name its package instead, as package.module:callable" if is_relative else ""


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


# Which modules came into being as neighbours of which user's file. Two versions of one program, side by
# side, have neighbours of the same names: the candidate would be given the baseline's and always match.
_neighbours: dict[str, Path] = {}


@contextlib.contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let imports find what lies in `root`, and there only its own neighbours of a user's file."""
    hidden = {
        name: sys.modules.pop(name)
        for name, home in _neighbours.items()
        if home != root and name in sys.modules and _provides(root, name.partition(".")[0])
    }
    known = set(sys.modules)
    entry, before = str(root), sys.path
    sys.path = [entry, *before]  # another list: a thread that imports walks through this one meanwhile
    importlib.invalidate_caches()
    try:
        yield
    finally:
        left = [*sys.path]
        with contextlib.suppress(ValueError):
            left.remove(entry)
        sys.path = before if left == before else left
        for name in set(sys.modules) - known:
            place = _place_of(sys.modules[name])
            if place and Path(place).is_relative_to(root) and is_users(place):
                _neighbours.setdefault(name, root)
        sys.modules.update(hidden)


def _place_of(module: ModuleType) -> str | None:
    """The file a module came from, or the first folder of a package without one."""
    file = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", ())), None)


def _provides(root: Path, name: str) -> bool:
    return (root / f"{name}.py").is_file() or (root / name).is_dir()
