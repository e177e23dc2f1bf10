"""The text of a script that needs torch alone, and what its functions give."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from verifier.diagnose.repros.lines import DTYPES
from verifier.diagnose.repros.spelling import UnwritableError
from verifier.graph.chance import same_chance
from verifier.graph.widening import default_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_NARROW = ("float32", "float16", "bfloat16")
LONGEST = 60  # lines
TRUTH = "truth"
_WIDTH = 108
_TOLD = 3  # lines of a paragraph at the top

_READ = """
def read():
    data = bytearray(FILE.read_bytes())  # the length of a header, the header in JSON, the numbers
    start = 8 + int.from_bytes(data[:8], "little")
    numbers = torch.frombuffer(data, dtype=torch.uint8)[start:]
    return {
        name: numbers[slice(*each["data_offsets"])].clone().view(DTYPES[each["dtype"]]).reshape(each["shape"])
        for name, each in json.loads(data[8:start]).items()
    }
"""

_ERROR = """
def error(made, truth):
    if made.shape != truth.shape:
        return float("inf")
    made, truth = made.double(), truth.double()
    same = (made == truth) | (made.isnan() & truth.isnan())
    wrong = (made - truth).masked_fill(same, 0).norm() / truth.nan_to_num(0, 0, 0).norm()
    return 0.0 if same.all() else float(wrong.nan_to_num(float("inf"), float("inf")))
"""


@dataclass(frozen=True)
class Script:
    """What a script says, before it is text.

    Attributes:
        title: Which fault it shows.
        paragraphs: What is said of it at the top.
        candidate: The lines of the candidate's calls.
        baseline: The lines of the baseline's, or why there are none.
        allowed: The largest relative error that is none.
        rule: What allows it.
        dtype: What factories make that are not told a dtype; None for torch's own.
        around: A decorator of both functions, as the text of an expression; empty for none.
        complex: Whether numbers come out whose two parts are compared.
    """

    title: str
    paragraphs: Sequence[str]
    candidate: Sequence[str]
    baseline: Sequence[str] | str
    allowed: float
    rule: str
    dtype: torch.dtype | None
    around: str = ""
    complex: bool = False

    def text(self, tensors: Mapping[str, Tensor]) -> str:
        """The script that reads `tensors` from the file of its own name.

        Raises:
            UnwritableError: It would be longer than a script may be.
        """
        for apart in (2, 1):  # blank lines between functions: where room is short, one has to do
            lines = self._lines(tensors, [""] * apart)
            if len(lines) <= LONGEST:
                return "\n".join(lines) + "\n"
        raise UnwritableError(
            f"its calls make a script of {len(lines)} lines, and {LONGEST} are allowed: the region is too large"
        )

    def _lines(self, tensors: Mapping[str, Tensor], apart: Sequence[str]) -> list[str]:
        dtypes = {DTYPES[tensor.dtype]: tensor.dtype for tensor in tensors.values()}
        table = ", ".join(f'"{name}": {dtypes[name]}' for name in sorted(dtypes))
        right = [self.baseline] if isinstance(self.baseline, str) else self.baseline
        functional = any("F." in line for line in (*self.candidate, *right))
        return [
            *self._docstring(),
            *("import json", "import sys", "from pathlib import Path", "", "import torch"),
            *(["import torch.nn.functional as F"] if functional else []),
            "",
            'FILE = Path(__file__).with_suffix(".safetensors")',
            f"ALLOWED = {self.allowed!r}  # {self.rule}",
            f"DTYPES = {{{table}}}",
            *([] if self.dtype is None else [f"torch.set_default_dtype({self.dtype})"]),
            *apart,
            *self._function("candidate", self.candidate),
            *apart,
            *(
                [f"# {self.baseline}"]
                if isinstance(self.baseline, str)
                else self._function("baseline", right)
            ),
            *apart,
            *_READ.strip().splitlines(),
            *apart,
            *_ERROR.strip().splitlines(),
            *apart,
            *self._main(),
        ]

    def _main(self) -> list[str]:
        alone = isinstance(self.baseline, str)
        calls, names = ("(candidate,)", "wrong,") if alone else ("(candidate, baseline)", "wrong, right")
        told = "" if alone else ", baseline {right:.3g}"
        return [
            'if __name__ == "__main__":',
            "    with torch.no_grad():",
            f'        {names} = (error(call(read()), read()["{TRUTH}"]) for call in {calls})',
            f'    print(f"relative error: candidate {{wrong:.3g}}{told}, allowed {{ALLOWED:.3g}}")',
            "    sys.exit(0 if wrong <= ALLOWED else 1)",
        ]

    def _docstring(self) -> list[str]:
        found = [line for each in (self.title, *self.paragraphs) for line in _wrapped(each)]
        return [f'"""{found[0]}', "", *found[1:], '"""', ""]

    def _function(self, name: str, lines: Sequence[str]) -> list[str]:
        if self.complex:
            returned = lines[-1].removeprefix("return ")
            lines = [*lines[:-1], f"return torch.view_as_real(({returned}).resolve_conj())"]
        decorator = [f"@{self.around}"] if self.around else []
        return [*decorator, f"def {name}(t):", *(f"    {line}" for line in lines)]


def _wrapped(text: str) -> list[str]:
    """A paragraph of a docstring."""
    plain = text.replace("\\", "/").replace('"""', "'''").strip().strip('"')
    return textwrap.wrap(plain, _WIDTH, max_lines=_TOLD, placeholder=" ...") or [""]


@dataclass(frozen=True)
class Functions:
    """The functions of a script, to be tried before anybody is given it."""

    _text: str
    _found: Mapping[str, Any]

    @classmethod
    def of(cls, text: str) -> Functions:
        """What a script defines."""
        found: dict[str, Any] = {"__name__": "repro", "__file__": "repro.py"}
        with default_dtype(torch.get_default_dtype()):  # which the script may set
            exec(compile(text, "<repro>", "exec"), found)  # noqa: S102 - this very package's own text
        return cls(text, found)

    def gives(self, side: str, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> Tensor | None:
        """What one side gives on tensors, which stay as they are; None where it raises."""
        try:
            with torch.no_grad(), same_chance(), default_dtype(dtype), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an operator's, which the models have caused before
                made = self._found[side]({name: tensor.clone() for name, tensor in tensors.items()})
        except Exception:  # each operator refuses in a way of its own
            return None
        return made if isinstance(made, torch.Tensor) else None

    def exact(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """What the baseline's side gives in float64 on the same numbers: its casts widen, too. None if it cannot."""
        text = self._text
        for narrow in _NARROW:
            text = text.replace(f"torch.{narrow}", "torch.float64")
        text = (
            text.replace(".float()", ".double()")
            .replace(".half()", ".double()")
            .replace(".bfloat16()", ".double()")
        )
        double = {name: each.double() if each.is_floating_point() else each for name, each in tensors.items()}
        made = Functions.of(text).gives("baseline", double, torch.float64)
        return made if made is not None and made.dtype == torch.float64 else None

    def error(self, made: Tensor | None, truth: Tensor) -> float:
        """The relative error as the script tells it, infinite where there is nothing to compare."""
        return float("inf") if made is None else float(self._found["error"](made, truth))
