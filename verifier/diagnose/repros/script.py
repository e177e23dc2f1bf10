"""The text of a script that needs torch alone, and what its functions give."""

from __future__ import annotations

import textwrap
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

LONGEST = 60  # lines
TRUTH = "truth"
_WIDTH = 108
_TOLD = 3  # lines of a paragraph at the top

_READ = '''

def read():
    """The tensors of a .safetensors file: the length of a header, the header in JSON, the numbers."""
    data = bytearray(FILE.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    numbers, found = torch.frombuffer(data, dtype=torch.uint8)[start:], {}
    for name, each in json.loads(data[8:start]).items():
        if name != "__metadata__":
            part = numbers[slice(*each["data_offsets"])].clone()
            found[name] = part.view(DTYPES[each["dtype"]]).reshape(each["shape"])
    return found
'''

_ERROR = '''

def error(made, truth):
    """The relative error: the norm of the difference, over that of the truth."""
    if made.shape != truth.shape:
        return float("inf")
    made, truth = made.double(), truth.double()
    same = (made == truth) | (made.isnan() & truth.isnan())
    wrong = (made - truth).masked_fill(same, 0).norm() / truth.nan_to_num(0, 0, 0).norm()
    return 0.0 if same.all() else float(wrong.nan_to_num(float("inf")))
'''


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
        dtypes = {DTYPES[tensor.dtype]: tensor.dtype for tensor in tensors.values()}
        table = ", ".join(f'"{name}": {dtypes[name]}' for name in sorted(dtypes))
        both = not isinstance(self.baseline, str)
        calls = [line for lines in (self.candidate, self.baseline) if lines for line in lines]
        functional = ["import torch.nn.functional as F"] if any("F." in line for line in calls) else []
        lines = [
            *self._docstring(),
            *("import json", "import sys", "from pathlib import Path", "", "import torch", *functional, ""),
            'FILE = Path(__file__).with_suffix(".safetensors")',
            f"ALLOWED = {self.allowed!r}  # {self.rule}",
            f"DTYPES = {{{table}}}",
            *([] if self.dtype is None else [f"torch.set_default_dtype({self.dtype})"]),
            *_READ.splitlines(),
            *self._function("candidate", self.candidate),
            *(self._function("baseline", self.baseline) if both else ["", "", f"# {self.baseline}"]),
            *_ERROR.splitlines(),
            *("", "", 'if __name__ == "__main__":', "    with torch.no_grad():"),
            f'        wrong = error(candidate(read()), read()["{TRUTH}"])',
            *([f'        right = error(baseline(read()), read()["{TRUTH}"])'] if both else []),
            *(['    print(f"baseline: relative error {right:.3g}")'] if both else []),
            '    print(f"candidate: relative error {wrong:.3g}, allowed {ALLOWED:.3g}")',
            "    sys.exit(0 if wrong <= ALLOWED else 1)",
        ]
        if len(lines) > LONGEST:
            raise UnwritableError(
                f"its calls make a script of {len(lines)} lines, and one may have {LONGEST}: the region is too large"
            )
        return "\n".join(lines) + "\n"

    def _docstring(self) -> list[str]:
        found = [line for each in (self.title, *self.paragraphs) for line in _wrapped(each)]
        return [f'"""{found[0]}', "", *found[1:], '"""', ""]

    def _function(self, name: str, lines: Sequence[str] | str) -> list[str]:
        assert not isinstance(lines, str)  # noqa: S101 - the caller has asked
        if self.complex:
            returned = lines[-1].removeprefix("return ")
            lines = [*lines[:-1], f"return torch.view_as_real(({returned}).resolve_conj())"]
        decorator = [f"@{self.around}"] if self.around else []
        return ["", "", *decorator, f"def {name}(t):", *(f"    {line}" for line in lines)]


def _wrapped(text: str) -> list[str]:
    """A paragraph of a docstring."""
    plain = text.replace("\\", "/").replace('"""', "'''").strip().strip('"')
    return textwrap.wrap(plain, _WIDTH, max_lines=_TOLD, placeholder=" ...") or [""]


@dataclass(frozen=True)
class Functions:
    """The functions of a script, to be tried before anybody is given it."""

    _found: Mapping[str, Any]

    @classmethod
    def of(cls, text: str) -> Functions:
        """What a script defines."""
        found: dict[str, Any] = {"__name__": "repro", "__file__": "repro.py"}
        with default_dtype(torch.get_default_dtype()):  # which the script may set
            exec(compile(text, "<repro>", "exec"), found)  # noqa: S102 - this very package's own text
        return cls(found)

    def gives(self, side: str, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> Tensor | None:
        """What one side gives on tensors, which stay as they are; None where it raises."""
        try:
            with torch.no_grad(), same_chance(), default_dtype(dtype):
                made = self._found[side]({name: tensor.clone() for name, tensor in tensors.items()})
        except Exception:  # each operator refuses in a way of its own
            return None
        return made if isinstance(made, torch.Tensor) else None

    def error(self, made: Tensor | None, truth: Tensor) -> float:
        """The relative error as the script tells it, infinite where there is nothing to compare."""
        return float("inf") if made is None else float(self._found["error"](made, truth))
