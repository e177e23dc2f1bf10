"""A policy's file: which models are verified, in which cells, on what, and how they are judged."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from verifier.border.toml import check_keys
from verifier.errors import UsageError, suggestion
from verifier.gate.cause_codes import misspelt
from verifier.judge.policy import NAMED, PYPROJECT, Policy, table_of
from verifier.judge.rules import Waiver, is_for, several, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.judge.rules import Rule

_MODES = ("calibrated", "init", "imagenet", "as-is")
_FILES = (".safetensors", ".npy", ".npz", ".zip", ".pt", ".pth", ".pt2", ".onnx", ".xml", ".toml")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two models to verify, and what `run` takes with them, by the names of its options.

    Attributes:
        name: What the policy calls the two; the folder of their report, too.
        baseline: The trusted model, or a certificate.
        base: The policy by name that the file's own constants change; None for the file's.
        minimum_coverage: Share of the sites of either model that has to be compared; None for the file's.
    """

    name: str
    arch: str | None = None
    baseline: str | None = None
    candidate: str | None = None
    cells: tuple[str, ...] = ("cpu/float32",)
    input: str | None = None
    candidate_input: str | None = None
    candidate_preprocessing: str | None = None
    images: str | None = None
    image_size: int | str | None = None
    batch_size: int | None = None
    batch_dim: int | Literal["none"] = 0
    weights: str | None = None
    map: str | None = None
    seed: int = 0
    granularity: Literal["site", "block"] = "site"
    localise: Literal["auto", "always", "never"] = "auto"
    semantics: bool = True
    repeat: int = 1
    outputs: Literal["by-name", "by-order"] = "by-name"
    probe: bool = False
    base: str | None = None
    minimum_coverage: float | None = None


_PAIR = ("name", "arch", "baseline", "candidate")
_PATHS = ("baseline", "candidate", "input", "candidate_input", "candidate_preprocessing", "images", "map")


class PolicyFile(NamedTuple):
    """What a file says: the models, how they are judged by default, and each by its name.

    `policy` holds all budgets and waivers, those of `policies` what is for that model.
    """

    path: Path
    entries: tuple[Entry, ...]
    policy: Policy
    policies: Mapping[str, Policy]


def find(start: Path) -> Path:
    """The next `pyproject.toml` with a table `tool.verifier`, in a folder or above it.

    Raises:
        UsageError: There is none.
    """
    for folder in (start, *start.parents):
        file = folder / PYPROJECT
        if file.is_file() and "tool.verifier" in file.read_text(encoding="utf-8", errors="replace"):
            return file
    raise UsageError(
        f"no {PYPROJECT} here or above has a table [tool.verifier]. Write one, or name a policy with --policy FILE."
    )


def read(path: Path) -> PolicyFile:
    """The policy of a file with models to verify. Relative paths in it are seen from its folder.

    Raises:
        UsageError: The file cannot be read, or says what no policy says.
    """
    if str(path) in NAMED:
        raise UsageError(f"--policy {path} names no models; give a TOML file that does.")
    if not path.is_file():
        raise UsageError(f"--policy {path}: there is no such file.")
    table, called = table_of(path), f"--policy {path}"
    policy = Policy.of(table, called, path.name)
    entries = _entries(table, called, path.parent)
    if not entries:
        raise UsageError(f"{called} names no models, so there is nothing to check: add one under [[models]].")
    _check_rules(policy, [each.name for each in entries], called)
    _check_causes(policy, called)
    policies = {each.name: _policy_of(each, table, called, path.name) for each in entries}
    return PolicyFile(path, entries, policy, policies)


def policy_for(text: str, baseline: str, candidate: str, model: str = "") -> Policy:
    """The policy by name or from a file, with the budgets and waivers that are for these models.

    Args:
        text: A policy's name, or a file.
        baseline: The trusted model's specification.
        candidate: That of the model under test.
        model: What a policy's file calls the two, as far as known; else that of the entry with these specifications.

    Raises:
        UsageError: As `Policy.load` does.
    """
    policy = Policy.load(text)
    if not (policy.budgets or policy.waivers):
        return policy
    _check_causes(policy, f"--policy {text}")
    path = Path(text)
    table = table_of(path)
    known = _entries(table, f"--policy {text}", path.parent)
    names = [each.name for each in known]
    if names and model not in names:
        same = (each.name for each in known if _specs(each) == (baseline, candidate))
        model = next(same, "")
    entry = next((each for each in known if each.name == model), None)
    if entry is not None:
        policy = _policy_of(entry, table, f"--policy {text}", path.name)
    return at(policy, model)


def at(policy: Policy, model: str) -> Policy:
    """The policy with the budgets and waivers that are for what it calls so."""
    return msgspec.structs.replace(
        policy,
        budgets=tuple(each for each in policy.budgets if is_for(each, model)),
        waivers=tuple(each for each in policy.waivers if is_for(each, model)),
    )


def _specs(entry: Entry) -> tuple[str | None, str | None]:
    return entry.baseline, entry.candidate


def _policy_of(entry: Entry, table: Mapping[str, Any], called: str, name: str) -> Policy:
    own = {"base": entry.base, "minimum_coverage": entry.minimum_coverage}
    given = {key: value for key, value in own.items() if value is not None}
    return at(Policy.of({**table, **given}, called, name), entry.name)


def _entries(table: Mapping[str, Any], called: str, folder: Path) -> tuple[Entry, ...]:
    keys = Entry.__struct_fields__
    defaults, given = table.get("defaults", {}), table.get("models", [])
    if not isinstance(defaults, dict):
        raise UsageError(f"{called}: defaults is a table: write it under [defaults].")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise UsageError(f"{called}: models is a list of tables: write each under [[models]].")
    check_keys(defaults, [key for key in keys if key not in _PAIR], f"{called}: defaults")
    found: dict[str, Entry] = {}
    for number, own in enumerate(given, 1):
        where = f"{called}: model {own.get('name', number)}"
        check_keys(own, keys, where)
        if "name" not in own:
            raise UsageError(f"{where} has no name: its report and what is said of it go by one.")
        try:
            entry = msgspec.convert({**defaults, **own}, Entry)
        except msgspec.ValidationError as error:
            raise UsageError(f"{where}: {str(error).replace('`$.', '`')}.") from error
        _check_entry(entry, where)
        if entry.name in found:
            raise UsageError(f"{called}: two models are called {entry.name}; give each a name of its own.")
        found[entry.name] = _resolved(entry, folder)
    return tuple(found.values())


def _check_entry(entry: Entry, where: str) -> None:
    if not _NAME.fullmatch(entry.name):
        raise UsageError(f"{where}: its name is a folder's, too: use letters, digits, '.', '_' and '-'.")
    if not entry.cells:
        raise UsageError(
            f"{where} has no cells, so there is nothing to compare in; name one, such as cpu/float32."
        )
    if entry.arch is None and (entry.baseline is None or entry.candidate is None):
        missing = "candidate" if entry.candidate is None else "baseline"
        raise UsageError(f"{where} has no {missing}: name both models, or arch.")
    if entry.arch is not None and ("," in entry.arch or entry.arch == "all"):
        raise UsageError(f"{where}: arch names several; give each a model of its own.")
    for name in ("repeat", "batch_size"):
        value = getattr(entry, name)
        if value is not None and value < 1:
            raise UsageError(f"{where}: {name} is {value}, but has to be 1 or more.")
    if entry.seed < 0:
        raise UsageError(f"{where}: seed is {entry.seed}, but has to be 0 or more.")


def _check_rules(policy: Policy, names: Sequence[str], called: str) -> None:
    """See that what rules call models are models, and that a waiver says of which it is where there are several."""
    numbered: list[tuple[str, int, Rule]] = [
        *(("budget", k, each) for k, each in enumerate(policy.budgets, 1)),
        *(("waiver", k, each) for k, each in enumerate(policy.waivers, 1)),
    ]
    for kind, number, rule in numbered:
        where = f"{called}: {kind} {number} ({words(rule)})"
        for pattern in several(rule.model):
            if not any(is_for(msgspec.structs.replace(rule, model=pattern), name) for name in names):
                near = suggestion(pattern, names) or f". There are {', '.join(names)}."
                raise UsageError(f"{where} is for model {pattern!r}, which there is not{near}")
        if isinstance(rule, Waiver) and len(names) > 1 and not (rule.model or rule.cause):
            raise UsageError(
                f"{where} would waive whatever goes wrong there in any model: name its model, or the cause as well."
            )


def _check_causes(policy: Policy, called: str) -> None:
    """See that no waiver names a cause that is a known one misspelt: it would waive nothing."""
    for number, each in enumerate(policy.waivers, 1):
        for code in several(each.cause):
            if meant := misspelt(code):
                raise UsageError(
                    f"{called}: waiver {number} ({words(each)}) names the cause {code!r}, which there is not; "
                    f"did you mean {meant!r}?"
                )


def _resolved(entry: Entry, folder: Path) -> Entry:
    """The entry with paths as seen from here."""
    paths = {name: getattr(entry, name) for name in _PATHS}
    if entry.weights is not None and entry.weights not in _MODES:
        paths["weights"] = entry.weights
    return msgspec.structs.replace(
        entry, **{name: seen_from_here(text, folder) for name, text in paths.items() if text is not None}
    )


def seen_from_here(text: str, folder: Path) -> str:
    """A specification, or the name of a file, that was written in a file of `folder`: as it is called here."""
    place, colon, target = text.rpartition(":")
    built = bool(colon) and (
        place.lower().endswith(".py") or re.search(r"[\\/]", place) or (folder / place).is_file()
    )
    if not (built or text.lower().endswith(_FILES) or (folder / text).exists()):
        return text
    file = place if built else text
    if Path(file).is_absolute() or file.startswith("~"):
        return text
    try:
        here = os.path.relpath(folder / file)
    except ValueError:  # on another drive
        here = str((folder / file).absolute())
    return f"{here}:{target}" if built else here
