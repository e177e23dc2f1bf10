"""The table of causes has every code that can be given, and `docs/causes.md` is that table."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.catalogue import FAULTS
from verifier.diagnose import codebook, codes

ROOT = Path(__file__).parents[3]
ENTRIES = codebook.listed()
LISTED = {each.code for each in ENTRIES}

# Other words with dashes in the code: modes, options, files, packages. What is no cause's code belongs here, a new
# code into the table.
NO_CODES = {
    *("as-is", "by-name", "by-order"),
    *("cifar-train", "imagenet-train", "multi-scale", "ten-crop", "multi-step"),
    *(
        "train-parity",
        "training-parity",
        "verifier-report",
        "verifier-warm-up",
        "verifier-metrics",
        "verifier-pulse",
    ),
    "system-out",
    *("dist-packages", "site-packages", "parity-verifier", "scikit-image", "rev-parse", "utf-8"),
    "same-distribution",
    "top-1",
    "nearest-exact",
    "conv-transpose",  # the beginning of codes
    "not-loaded",  # the end of codes
}
# Names put together that are no codes: threads, files.
NO_PATTERNS = {"verifier-*", "verifier-training-*", "repro-*-*", "*-minutes", "*-*"}

DASHED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
PUT_TOGETHER = re.compile(r"(\*|[a-z0-9]+)(-(\*|[a-z0-9]+))+")


@cache
def trees() -> list[ast.Module]:
    return [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "verifier").rglob("*.py"))
        if path.name != "codebook.py"
        and not {"border", "forms", "gate"} & set(path.parts)  # where no cause is given
    ]


def text_of(node: ast.JoinedStr) -> str:
    """An f-string with a star for each of its holes."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)


def pattern(code: str) -> str:
    return re.sub("[A-Z]+", "*", code)


def covered(code: str) -> bool:
    """Whether the table tells of a code by itself, as an example, or by a pattern that says what is wrong."""
    vague = {"OPERATOR-SETTING", "BUFFER"}
    return any(
        code in (each.code, *each.examples)
        or (each.code not in vague and re.fullmatch(re.sub("[A-Z]+", "[a-z0-9_-]+", each.code), code))
        for each in ENTRIES
    )


def test_every_code_that_is_written_in_the_code_is_listed() -> None:
    written = {
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and DASHED.fullmatch(node.value)
    }
    assert written - NO_CODES - LISTED == set()


def literals(node: ast.expr) -> set[str]:
    """The texts that an expression may be, as far as they are written there."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.IfExp):
        return literals(node.body) | literals(node.orelse)
    return set().union(*map(literals, node.values)) if isinstance(node, ast.BoolOp) else set()


def test_every_code_of_one_word_is_listed() -> None:
    given = {
        text
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "code"
        for text in literals(node.value)
    }
    given |= {
        text
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_confirmed"
        for text in literals(node.args[0])
    }
    assert "frozen" in given
    assert given - LISTED - {""} == set()


def test_every_code_that_is_put_together_fits_a_pattern() -> None:
    made = {
        text_of(node)
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) and PUT_TOGETHER.fullmatch(text_of(node))
    }
    known = {pattern(code) for code in LISTED}
    words = {f"*-{code.rpartition('-')[2]}" for code in LISTED}  # `*-different` of three kinds, `*-mode`
    assert made - NO_PATTERNS - known - words == set()


def test_every_deviation_of_a_tensor_has_a_code() -> None:
    kinds = {
        node.args[0].value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Deviation"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert {"scaled", "swapped", "shape"} <= kinds
    for kind in kinds:
        assert codes.of_tensor("TENSOR", str(kind)) in LISTED


def test_every_listed_code_can_be_given() -> None:
    """Nothing in the table is left from code that is gone."""
    said = "\n".join(ast.unparse(tree) for tree in trees())
    for code in LISTED - {"BUFFER", "OPERATOR-SETTING", "running-mean", "running-var"}:
        end = code.rpartition("-")[2] if re.search("[A-Z]|-different", code) else code
        assert re.search(rf"['\"}}-]{end}['\"]", said), code


@pytest.mark.parametrize("code", sorted({code for fault in FAULTS.values() for code in fault.causes}))
def test_what_planted_faults_are_told_by_is_listed(code: str) -> None:
    assert covered(code)


def test_examples_fit_their_patterns_and_no_code_is_listed_twice() -> None:
    assert len(LISTED) == len(ENTRIES)
    for each in ENTRIES:
        fits = re.compile(re.sub("[A-Z]+", "[a-z0-9-]+", each.code))
        assert all(fits.fullmatch(example) for example in each.examples), each.code
        assert (each.meaning, each.fix) != ("", "")


def test_the_page_is_made_from_the_table() -> None:
    written = (ROOT / "docs" / "causes.md").read_text(encoding="utf-8")
    assert written.endswith("\n" + codebook.page()), "python -m verifier.diagnose.codebook docs/causes.md"


def test_a_code_begins_with_a_word_where_an_operators_name_does_not() -> None:
    assert codes.of_region(["_weight_norm"], [], "conv_transpose1d") == "weight-norm-missing"
