"""Exit codes of bad input of all kinds: never one that a verdict gives, and one sentence that names what is wrong.

The commands run in this process, as the console script runs them: importing torch forty times would take minutes.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from verifier.cli import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tests.e2e.conftest import Ended

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)
    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net()

def raising():
    raise ValueError("no such width")

def nothing():
    return None

def needing(width):
    return net()

class Recursing(Net):
    def forward(self, x):
        return self(x)

class Stubborn(Net):
    def __deepcopy__(self, memo):
        raise ValueError("not me")

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.LazyLinear(4)

class Meta(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 10, device="meta")

class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.fc.register_forward_hook(lambda *_: 1 / 0)

class Property(Net):
    def named_parameters(self, *args, **kwargs):
        raise KeyError("mine")

class Bare(Exception):
    def __str__(self):
        raise ValueError("no words")

class Wordless(Net):
    def forward(self, x):
        raise Bare

class Branching(Net):
    def forward(self, x):
        return super().forward(x) if x.dtype == torch.float32 else super().forward(x) + 1

class Endless(Net):
    def forward(self, x):
        found = [super().forward(x)]
        found.append(found)
        return found
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files the cases name."""
    home = tmp_path_factory.mktemp("home")
    (home / "nets.py").write_text(NETS, encoding="utf-8")
    (home / "broken.py").write_text("def net(:\n", encoding="utf-8")
    (home / "text.npy").write_text("1.0 2.0\n", encoding="utf-8")
    np.save(home / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(home / "flat.npy", np.zeros((2, 7), np.float32))
    np.save(home / "empty.npy", np.zeros((0, 3, 32, 32), np.float32))
    (home / "empty.pt").write_bytes(b"")
    torch.save({"x": "text"}, home / "words.pt")
    torch.save({"fc.weight": torch.zeros(3, 7)}, home / "other.pt")
    (home / "torn.safetensors").write_bytes(b"\xff" * 64)
    (home / "nothing-in-it").mkdir()
    (home / "vast").mkdir()
    _bitmap(home / "vast" / "vast.png", 12_000, 9_000)
    for name, content in {
        "nan": b"factor = nan\n",
        "negative": b"semantics = -1.0\n",
        "infinite": b"layer_mse = inf\n",
        "unknown": b"factr = 2.0\n",
        "words": b'floor = "8"\n',
        "latin": b'name = "\xe9"\n',
        "deep": b"factor = " + b"[" * 20_000,
        "huge": b'"fc.weight" = "fc.weight[0:1%s]"\n' % (b"0" * 30),
        "digits": b'"fc.weight" = "fc.weight[0:1%s]"\n' % (b"0" * 6000),
        "stars": b'"%s" = "fc.weight"\n' % (b"*a" * 100),
        "strange": b'"fc.weight" = 3\n',
        "nobody": b'"fc.wieght" = "fc.weight"\n',
    }.items():
        (home / f"{name}.toml").write_bytes(content)
    (home / "other-size.toml").write_bytes(b'"fc.weight" = "conv.weight"\n')
    return home


def _bitmap(file: Path, width: int, height: int) -> None:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def in_process(home: Path, *arguments: str) -> Result:
    """Run a command in `home`, with nothing left of what it changed."""
    before = Path.cwd()
    os.chdir(home)
    try:
        return CliRunner().invoke(commands.app, list(arguments))
    finally:
        os.chdir(before)


def refused(home: Path, code: int, says: tuple[str, ...], *arguments: str) -> None:
    """See that a command ends with a code and a message, and leaves no result."""
    ended = in_process(home, *arguments)

    assert ended.exit_code == code, ended.output
    assert "Traceback" not in ended.output
    assert ended.stdout == ""
    message = ended.stderr
    assert message.count("\n") == 1 or message.startswith("Usage:"), message
    assert len(message) < 700
    for part in says:
        assert part in message
    assert "defect" not in message
    assert not (home / "verifier-report").exists()


def case(title: str, *given: str, code: int = 2, says: tuple[str, ...] = ()) -> object:
    return pytest.param(given, code, says, id=title)


def of(model: str) -> tuple[str, ...]:
    return ("--candidate", f"nets.py:{model}")


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        # what is compared
        case("an unknown architecture", "--arch", "resnet51", says=("resnet51", "did you mean")),
        case("a file that is not there", "--candidate", "gone.py:net", says=("gone.py",)),
        case("a file that is no Python", "--candidate", "broken.py:net", says=("SyntaxError", "line 1")),
        case("a name that is not there", *of("nett"), says=("did you mean 'net'",)),
        case("a function that raises", *of("raising"), says=("no such width", "nets.py, line")),
        case("a function that returns nothing", *of("nothing"), says=("NoneType",)),
        case("a function that needs more", *of("needing"), says=("width",)),
        case("lazy parameters", *of("Lazy"), says=("lazy",)),
        case("parameters without values", *of("Meta"), says=("fc.weight", "meta")),
        case("a model that calls itself", *of("Recursing"), code=3, says=("deeper than Python allows",)),
        case("a model that cannot be copied", *of("Stubborn"), code=3, says=("not me", "nets.py, line")),
        case("a hook that raises", *of("Hooked"), code=3, says=("ZeroDivisionError", "nets.py, line")),
        case("a method that raises", *of("Property"), code=3, says=("mine", "nets.py, line")),
        case("an error without words", *of("Wordless"), code=3, says=("Bare", "nets.py, line")),
        case("a branch on the dtype", *of("Branching"), code=3, says=("depends on the dtype",)),
        case("a result in itself", *of("Endless"), code=3, says=("contains itself",)),
        # on what
        case("text named .npy", "--input", "text.npy", says=("text.npy", "no .npy file")),
        case("objects in .npy", "--input", "objects.npy", says=("Python objects",)),
        case("another shape", "--input", "flat.npy", says=("2, 7",)),
        case("no samples", "--input", "empty.npy", says=("no elements",)),
        case("an empty .pt file", "--input", "empty.pt", says=("empty.pt",)),
        case("words for tensors", "--input", "words.pt", says=("str",)),
        case("a torn file", "--input", "torn.safetensors", says=("torn.safetensors",)),
        case("no images", "--images", "nothing-in-it", says=("no image",)),
        case("vast images", "--images", "vast", says=("vast.png (108)", "50 megapixels")),
        case("an image size that is none", "--image-size", "wide", says=("wide",)),
        case("an image size that overflows", "--image-size", "99999999999", says=("address",)),
        case("a batch size that overflows", "--batch-size", str(10**30), says=("address",)),
        case("a batch beyond memory", "--batch-size", str(10**11), code=3, says=("out of memory",)),
        case("a batch of none", "--batch-size", "0", says=("--batch-size",)),
        # with which weights
        case("weights of another network", "--weights", "other.pt", says=("other.pt",)),
        case("a mode that is none", "--weights", "calibratd", says=("calibratd",)),
        case("a map that is not there", "--map", "gone.toml", says=("gone.toml", "No such file")),
        case("a map without names", "--map", "strange.toml", says=("fc.weight", "3")),
        case("a map for nobody", "--map", "nobody.toml", says=("did you mean 'fc.weight'",)),
        case("a map of another size", "--map", "other-size.toml", says=("cannot be made of",)),
        case("rows beyond the tensor", "--map", "huge.toml", says=("rows",)),
        case("rows of too many digits", "--map", "digits.toml", says=("rows",)),
        case("a hundred stars", "--map", "stars.toml", says=("no tensor",)),
        case("a map nested too deep", "--map", "deep.toml", says=("nested",)),
        # where and by which rules
        case("a device that is none", "--device", "gpu", says=("gpu",)),
        case("a dtype that is none", "--dtype", "float31", says=("float31",)),
        case("a tolerance that is no number", "--policy", "nan.toml", says=("factor is nan",)),
        case("a negative tolerance", "--policy", "negative.toml", says=("semantics is -1.0",)),
        case("an infinite tolerance", "--policy", "infinite.toml", says=("layer_mse is inf",)),
        case("an unknown tolerance", "--policy", "unknown.toml", says=("factr",)),
        case("a word for a tolerance", "--policy", "words.toml", says=("`floor`",)),
        case("a policy in Latin-1", "--policy", "latin.toml", says=("latin.toml", "utf-8")),
        case("a policy nested too deep", "--policy", "deep.toml", says=("nested",)),
        case("a file for results", "--out", "nets.py", says=("nets.py is a file",)),
    ],
)
def test_run_on_bad_input(home: Path, given: tuple[str, ...], code: int, says: tuple[str, ...]) -> None:
    models = () if "--arch" in given else ("--baseline", "nets.py:net")
    other = () if {"--arch", "--candidate"} & {*given} else ("--candidate", "nets.py:net")
    small = () if "--image-size" in given else ("--image-size", "32")
    one = () if "--batch-size" in given else ("--batch-size", "2")

    refused(home, code, says, "run", *models, *other, *small, *one, *given)


def _damaged(**fields: Any) -> str:
    return json.dumps({"schema_version": 1} | fields)


@pytest.mark.parametrize("command", [("report",), ("judge", "--policy", "strict")], ids=lambda each: each[0])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "no saved result", id="none"),
        pytest.param(b"", "is damaged", id="empty"),
        pytest.param(b"\xff\xfe\x00", "is damaged", id="no UTF-8"),
        pytest.param(b"[" * 100_000, "nested deeper", id="nested too deep"),
        pytest.param(b"{}", "has no schema_version", id="of something else"),
        pytest.param(_damaged(schema_version=0), "schema_version is 0", id="schema 0"),
        pytest.param(_damaged(schema_version=-5), "schema_version is -5", id="schema -5"),
        pytest.param(_damaged(schema_version=True), "schema_version is true", id="schema true"),
        pytest.param(_damaged(schema_version=99), "newer version", id="schema 99"),
        pytest.param(_damaged(verdict="match"), "missing required field", id="half"),
    ],
)
def test_a_result_that_is_none(
    home: Path, tmp_path: Path, command: tuple[str, ...], content: str | bytes | None, says: str
) -> None:
    if content is not None:
        plain = content.encode() if isinstance(content, str) else content
        (tmp_path / "result.json").write_bytes(plain)

    refused(home, 2, (str(tmp_path / "result.json"), says), command[0], str(tmp_path), *command[1:])


def test_a_directory_in_place_of_a_result(home: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()

    refused(home, 2, ("result.json", "directory"), "report", str(tmp_path))


SURROGATE = """
import torch
from torch import nn

class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.add_module("=cmd|\\ud800", nn.Conv2d(3, 4, 3))

    def forward(self, x):
        return self._modules["=cmd|\\ud800"](x).mean((2, 3))
"""


def test_names_and_paths_that_are_no_unicode_are_saved_shown_and_read_again(
    call: Callable[..., Ended], place: Path
) -> None:
    (place / "nets\udcff.py").write_text(SURROGATE, encoding="utf-8")
    model = "nets\udcff.py:Strange"

    ended = call(
        "run",
        "--baseline",
        model,
        "--candidate",
        model,
        "--image-size",
        "32",
        "--batch-size",
        "2",
        "--out",
        "R\udcff",
    )

    assert (ended.code, ended.err) == (0, "")
    assert "R\\udcff/report.html" in ended.out
    saved = json.loads((place / "R\udcff" / "result.json").read_text(encoding="utf-8"))
    assert saved["cells"][0]["layers"][0]["baseline"] == "=cmd|\ud800"
    assert "'=cmd|\\ud800" in (place / "R\udcff" / "layers.csv").read_text(encoding="utf-8")
    assert call("report", "R\udcff").code == 0
