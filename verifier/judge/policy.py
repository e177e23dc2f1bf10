"""Policies: what a pair may be off by, as data with reasons."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from verifier.border import toml
from verifier.errors import UsageError, suggestion
from verifier.judge.rules import SiteBudget, Waiver

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARES = frozenset({"minimum_coverage", "pearson_probabilities", "top1_agreement"})


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The constants every verdict rests on.

    Attributes:
        name: How verdicts and reports call it.
        semantics: Relative error (NRMSE) that is a real difference in float64. One rounding is 1.1e-16 there and
            the longest sums of the networks at hand (4,608 products) stay below 1e-14, while an epsilon
            changed in its third digit moves a batch norm by more than 1e-10.
        factor: How many times the baseline's own rounding error a difference between the two models may be.
            Two correct implementations differ by at most the sum of their errors, so by 2 if they are equally
            accurate; the rest is room for another summation order.
        floor: Unit roundoffs that are always allowed, for sites where the baseline happens to be exact.
        accuracy: How many times further than the baseline the candidate may be from exact arithmetic at one step.
            Rewriting an operator in the cell's dtype adds roundings: a layer norm by hand (five) is 2.5 times as far
            as the fused one, which rounds once. The benign rewrites this was calibrated on stay below 1.1 unit
            roundoffs in half precision; sums and scales kept in half precision reach 1.6 to 1.9.
        accuracy_total: The same for what errors add up to, which is a matter of luck too: the benign rewrites
            reach 2.2.
        accuracy_floor: Unit roundoffs that are allowed on top: one more rounding.
        systematic: Unit roundoffs by which gains and offsets of whole channels may be wrong in half precision, on
            top of twice the baseline's; a rounded scale is wrong by 0.42, the benign rewrites by up to 0.26.
        summation: Unit roundoffs of the accumulator, times the root of the number of terms, that are allowed on
            top: what adding n terms of either sign one by one costs is 0.3 sqrt(n) (`SUMMATION`), and blocked
            sums cost less.
        hardware: How many times what rounding explains the baseline's single steps may be from exact arithmetic
            before the device is said to compute otherwise. Measured on an H200, ResNet-50 in 14 cells: at most 1.75
            times, where autocast rounds operands as well as results.
        minimum_coverage: Share of the sites of either model that must be paired to call a match.
        criteria_decide: Whether the published criteria give the verdict instead of the budgets.
        output_mse: Published: largest mean squared error of the output.
        pearson_probabilities: Published: smallest correlation of the class probabilities.
        layer_mse: Published: largest mean squared error of any layer.
        task_decides: Whether what the difference does to the classes gives the verdict instead of the budgets: for
            a candidate that is another function on purpose, pruned or quantised. What the three below allow of the
            final class scores is then evaluated.
        top1_agreement: Smallest share of samples with the same highest class.
        kl_mean: Largest Kullback-Leibler divergence of the class probabilities in nats, in the mean over samples.
        logit_error: Largest difference of any logit.
        budgets: What single sites may be off by instead. What only they let pass is `accepted`, and no match.
        waivers: Faults that are known, and accepted until a day.
    """

    name: str = "strict"
    semantics: float = 1e-12
    factor: float = 8.0
    floor: float = 8.0
    accuracy: float = 2.0
    accuracy_total: float = 4.0
    accuracy_floor: float = 0.5
    systematic: float = 0.3
    summation: float = 0.3
    hardware: float = 4.0
    minimum_coverage: float = 0.5
    criteria_decide: bool = False
    output_mse: float = 1e-6
    pearson_probabilities: float = 0.999
    layer_mse: float = 1e-5
    task_decides: bool = False
    top1_agreement: float = 0.95
    kl_mean: float = 0.01
    logit_error: float = 1.0
    budgets: tuple[SiteBudget, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    def __post_init__(self) -> None:
        """See that every tolerance is one: NaN or less than nothing would let everything pass, or nothing.

        Raises:
            ValueError: One is not.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, float | int):
                continue
            most = 1.0 if name in _SHARES else math.inf
            if not 0 <= value <= most or math.isinf(value):
                allowed = (
                    "a share, from 0 to 1" if name in _SHARES else "a finite number that is not negative"
                )
                raise ValueError(f"{name} is {value}, but has to be {allowed}")

    @classmethod
    def load(cls, text: str) -> Policy:
        """A policy by name, or from a TOML file: its keys are this record's attributes, and `base`, a policy's name.

        Of a `pyproject.toml` its table `tool.verifier` is read. What `check` runs (`KEYS_OF_CHECK`) is left aside.

        Raises:
            UsageError: There is no such policy or file, or the file says what no policy says.
        """
        if text in NAMED:
            return NAMED[text]
        path = Path(text)
        if not path.is_file():
            near = suggestion(text, NAMED) or "."
            raise UsageError(f"--policy {text}: there is no such file{near} Use {_listed()} or a TOML file.")
        return cls.of(table_of(path), f"--policy {text}", path.name)

    @classmethod
    def of(cls, table: Mapping[str, Any], called: str, name: str) -> Policy:
        """The policy that a table holds.

        Args:
            table: What a file says.
            called: The file as messages call it.
            name: What the policy is called, unless the table says so.

        Raises:
            UsageError: The table says what no policy says.
        """
        keys = ("base", *cls.__struct_fields__, *KEYS_OF_CHECK)
        toml.check_keys(table, keys, f"{called}: a policy")
        own = {key: value for key, value in table.items() if key not in ("base", *KEYS_OF_CHECK)}
        for key, kind in (("budgets", SiteBudget), ("waivers", Waiver)):
            own[key] = rules(table.get(key, ()), kind, key, called)
        base = NAMED.get(table.get("base", STRICT.name))
        if base is None:
            near = suggestion(str(table["base"]), NAMED) or f". There are {_listed()}."
            raise UsageError(f"{called}: base is {table['base']!r}, which is no policy{near}")
        try:
            return msgspec.convert({**msgspec.structs.asdict(base), "name": name, **own}, cls)
        except msgspec.ValidationError as error:
            raise UsageError(f"{called}: {str(error).replace('`$.', '`')}.") from error


R = TypeVar("R", SiteBudget, Waiver)

KEYS_OF_CHECK = ("models", "defaults")
"""Keys of a policy's file that say what is verified, and not how it is judged (`verifier.gate.policy_files`)."""


def table_of(path: Path) -> dict[str, Any]:
    """What a policy's file says: all of it, or the table `tool.verifier` of a `pyproject.toml`.

    Raises:
        UsageError: It cannot be read, is no TOML, or has no such table.
    """
    content = toml.read(path, f"--policy {path}", UsageError)
    if path.name != PYPROJECT:
        return content
    tool = content.get("tool", {})
    found = tool.get("verifier") if isinstance(tool, dict) else None
    if not isinstance(found, dict):
        raise UsageError(f"--policy {path}: it has no table [tool.verifier], in which a policy would stand.")
    return found


PYPROJECT = "pyproject.toml"


def rules(given: Any, kind: type[R], key: str, called: str) -> tuple[R, ...]:
    """Budgets or waivers from a list of tables.

    Raises:
        UsageError: One is none, has no reason, or says what none says.
    """
    if not isinstance(given, list | tuple) or not all(isinstance(each, dict) for each in given):
        raise UsageError(f"{called}: {key} is a list of tables: write each under [[{key}]].")
    found = []
    for number, table in enumerate(given, 1):
        site = f" ({table['site']})" if "site" in table else ""
        where = f"{called}: {key[:-1]} {number}{site}"
        toml.check_keys(table, kind.__struct_fields__, where)
        for needed in kind.__struct_fields__:
            if needed in _NEEDED[kind] and needed not in table:
                raise UsageError(f"{where} has no {needed}: {_NEEDED[kind][needed]}.")
        try:
            found.append(msgspec.convert(table, kind))
        except msgspec.ValidationError as error:
            raise UsageError(f"{where}: {str(error).replace('`$.', '`')}.") from error
    return tuple(found)


_SITE = "name the site it is for, or several"
_NEEDED: dict[type[Any], dict[str, str]] = {
    SiteBudget: {"site": _SITE, "reason": "say why that much is right"},
    Waiver: {
        "site": _SITE,
        "reason": "say why the fault may stay",
        "expires": "give the last day on which it counts, such as expires = 2030-01-31",
    },
}


STRICT = Policy()
CRITERIA = Policy(name="criteria", criteria_decide=True)
TASK = Policy(name="task", task_decides=True)

# For networks with random weights, whose thousand logits have a standard deviation of 0.7 and best and
# second-best lie 0.005 apart in some samples: a flip there is chance, and the divergence tells more. Measured
# on eight images of 64 x 64 with calibrated weights of three seeds, ResNet-18: without a tenth of its weights
# 0.0021 to 0.0027 nats, in eight bits 0.0005; a missing ReLU, a norm without its running mean or eight dead
# channels add 0.005 to 0.017. Ten other seeds, looked at afterwards: all 20 compressed networks keep within the
# budgets, and none of 60 with one of these faults does.
PRUNED = Policy(name="pruned", task_decides=True, top1_agreement=0.5, kl_mean=0.004, logit_error=0.6)
INT8 = Policy(name="int8", task_decides=True, top1_agreement=0.5, kl_mean=0.001, logit_error=0.25)
NAMED = {policy.name: policy for policy in (STRICT, CRITERIA, TASK, PRUNED, INT8)}


def _listed() -> str:
    return ", ".join(NAMED)
