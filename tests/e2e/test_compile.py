"""A candidate that goes through torch.compile, from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

COMPILED = ("--baseline", "nets.py:net", "--candidate", "compile:nets.py:net")


def test_what_is_compiled_is_compared_with_the_weights_and_in_the_cells_of_the_run(
    compare: Callable[..., Ended],
) -> None:
    how = ("--compile", "backend=aot_eager,dynamic=true", "--dtype", "float32,bfloat16")
    ended = compare(*COMPILED, *how)
    assert ended.code == 0, (ended.out, ended.err)
    found = ended.result()
    assert found["candidate"]["spec"] == "compile,backend=aot_eager,dynamic=true:nets.py:net"
    assert found["weights"]["mode"] == "calibrated"
    assert [(each["name"], each["cell"], each["verdict"]) for each in found["stages"]] == [
        ("aot_eager", "cpu/float32", "match"),
        ("aot_eager", "cpu/bfloat16", "match"),
    ]
    for cell in ("cpu/float32", "cpu/bfloat16"):
        assert f"the candidate was compiled by aot_eager in {cell}, to one graph" in ended.out


def test_options_of_the_compiler_need_something_that_is_compiled(compare: Callable[..., Ended]) -> None:
    ended = compare("--baseline", "nets.py:net", "--candidate", "nets.py:net", "--compile", "dynamic=true")
    assert "write --candidate compile:SPEC" in ended.refusal(2)


def test_an_option_that_torch_does_not_have_is_refused(compare: Callable[..., Ended]) -> None:
    assert "did you mean 'backend'?" in compare(*COMPILED, "--compile", "backends=eager").refusal(2)


def test_what_is_compiled_is_found_where_imports_are_told_to_start(compare: Callable[..., Ended]) -> None:
    ended = compare(*COMPILED, "--candidate-path", ".", "--compile", "backend=eager")
    assert ended.code == 0, (ended.out, ended.err)
    assert ended.result()["candidate"]["spec"].startswith("compile,backend=eager:")
