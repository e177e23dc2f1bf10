"""Every command in the README and in `docs/` runs, on small models of ours in the place of the reader's."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command

from tests.documents import DOCUMENTS, blocks
from tests.e2e.nets import net
from tests.verifier.quantised.quantising import quantised
from verifier import recording
from verifier.cli.commands import app

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
SESSION = "pip install uv && uvx nox -s verify -- "

# What stands for the reader's own files.
FILES = {
    "mynet.py": "from nets import net as build, net as vit\n",
    "old.py": "from nets import net, net as load\n",
    "net.py": """
import torch
from nets import net as build

def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 3, 64, 64)
""",
    "fused.py": "from nets import other_eps as load\n",
    "new.py": "from nets import net, net as load\nfrom loop import train\n",
    "baseline.toml": "lr = 0.05\n",
    "candidate.toml": "lr = 0.05\n",
    "prep.py": """
from torchvision import transforms as T

LAST = [T.CenterCrop(64), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]

def prepare(image):
    return T.Compose([T.Resize(73), *LAST])(image)

def build():
    return T.Compose([T.Resize(73), *LAST])
""",
}

TOKENS = "def tokens():\n    return {'x': torch.randn(2, 3, 64, 64)}\n"

NETS = "--baseline nets.py:net --candidate nets.py:net"

# Small models, images and trainings in the place of large ones; then commands that were different are the same.
SMALLER = (
    (r"^run (.*--arch) all --image-size small", r"run \1 cifar_resnet20,small_resnet18"),
    (
        r"^(run|train|train-parity) --arch \S+ (?=--(device|dtype|cells|probe|images|data|recipe))",
        rf"\1 {NETS} ",
    ),
    (r"^train --arch \S+", f"train {NETS}"),
    (r"^(run|init) (.*--arch) resnet\d+", r"\1 \2 cifar_resnet20"),
    (r"torchvision:\w+", "nets.py:net"),
    (r"^run (.*)", r"run \1 --image-size small --batch-size 2"),
    (r"--images samples", "--images photos"),
    (r"^preprocess (?!.*--images)", "preprocess --images photos "),
    (r"^preprocess (.*--candidate-preprocessing)", r"preprocess --image-size 64 \1"),
    (r"^train (.*)--data cifar10 --epochs 164 --device cuda", r"train \1--data digits --device cpu"),
    (r"^train (.*)", r"train \1 --epochs 1"),
    (r"^train-parity (.*?)( --steps 50)?$", r"train-parity \1 --steps 2 --batch-size 8"),
    (r"last-week", "photos-report"),  # a result beside itself
)

# The commands of one process, which imports torch once, and the code that each ends with.
DRIVER = """
import json, shlex, sys
from verifier.cli import commands
codes = {}
for line in json.load(open("commands.json")):
    arguments = shlex.split(line)
    sys.argv = ["verifier", *arguments]
    codes[line] = commands.app(arguments, standalone_mode=False) or 0
    json.dump(codes, open("codes.json", "w"))
"""

# What other tests run: in processes of its own, after a kill, and between commits.
ELSEWHERE = {
    "--isolate": "tests/e2e/test_ends.py",
    "--resume": "tests/e2e/test_training.py",
    "--data figures": "tests/e2e/test_training.py",
    "bisect ": "tests/e2e/test_bisect.py",
}


def commands() -> list[str]:
    """What stands in console blocks, a command a line."""
    return [
        line
        for document in DOCUMENTS
        for block in blocks(document, "console")
        for line in block.strip().splitlines()
    ]


def arguments_of(line: str) -> str | None:
    """What the verifier is given; None for a line that does not call it. The nox session passes everything on."""
    for before in ("python -m verifier ", SESSION, SESSION.removeprefix("pip install uv && ")):
        if line.startswith(before):
            return ("" if before.startswith("python") else "run ") + line.removeprefix(before)
    return None


def smaller(arguments: str) -> str:
    for pattern, replacement in SMALLER:
        arguments = re.sub(pattern, replacement, arguments)
    return arguments


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_is_one_that_exists(line: str) -> None:
    arguments = arguments_of(line)
    if arguments is not None:
        name, *rest = shlex.split(arguments)
        with get_command(app).commands[name].make_context(name, rest):  # type: ignore[attr-defined]
            return  # its options and values are understood
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if extras := re.fullmatch(r'pip install "\.\[(.*)\]"', line):
        assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    else:
        session = re.fullmatch(r"(?:pip install uv && )?uvx nox -s (\w+)(?: -- .*)?", line)
        assert session, f"{line}: nothing here knows how to try this"
        assert f"\ndef {session[1]}(session" in (ROOT / "noxfile.py").read_text(encoding="utf-8")


@pytest.fixture
def readers_place(place: Path) -> Path:
    """A directory with what stands for the reader's own files, and photographs."""
    (loop,) = blocks(ROOT / "docs" / "training.md", "py")
    first, policy = blocks(ROOT / "docs" / "gate.md", "toml")
    assert tomllib.loads(first)["models"] == tomllib.loads(policy)["models"][:1]  # the command is the same
    (inputs,) = blocks(ROOT / "docs" / "gate.md", "py")
    own = {"loop.py": loop, "parity.toml": policy, "inputs.py": f"{inputs}\n\n{TOKENS}"}
    for name, content in (FILES | own).items():
        (place / name).write_text(content, encoding="utf-8")
    (place / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(2):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 120)).save(place / "photos" / f"{number}.png")
    pictures = generator.normal(size=(5, 3, 32, 32)).round(2).tolist()
    (place / "tokens.jsonl").write_text(
        "".join(f"{json.dumps(each)}\n" for each in pictures), encoding="utf-8"
    )
    recorded_elsewhere(place)
    deployed(place)
    return place


def deployed(place: Path) -> None:
    """Write what a reader's model was exported to."""
    torch.manual_seed(0)
    model, x = net().eval(), torch.randn(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        torch.export.save(torch.export.export(model, (x,)), place / "net.pt2")
        torch.onnx.export(model, (x,), place / "net.onnx", dynamo=True, verbose=False)
        quantised(place / "net.onnx", place / "int8.onnx", x)


def recorded_elsewhere(place: Path) -> None:
    """Write what a reader's other processes have left: passes of two of them, and tensors of a third."""
    torch.manual_seed(0)
    model = net().eval()
    x = torch.randn(2, 3, 64, 64)
    for name in ("trainer", "engine"):
        with recording(place / f"{name}.safetensors", model), torch.no_grad():
            y = model(x)
    (place / "dump").mkdir()
    for name, tensor in {"x.npy": x, "dump/y.npy": y}.items():
        np.save(place / name, tensor.numpy())


def test_every_command_runs(readers_place: Path, clean_environment: Mapping[str, str]) -> None:
    given = [arguments for line in commands() if (arguments := arguments_of(line)) is not None]
    elsewhere = {each for each in given for option in ELSEWHERE if option in each}
    assert len(elsewhere) == len(ELSEWHERE)
    assert all(option in (ROOT / file).read_text(encoding="utf-8") for option, file in ELSEWHERE.items())
    wanted = dict.fromkeys(smaller(each) for each in given if each not in elsewhere)
    # What is recorded is read by runs, and what runs write by others.
    lines = sorted(wanted, key=lambda line: (not line.startswith("record "), not line.startswith("run ")))
    (readers_place / "commands.json").write_text(json.dumps(lines), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=readers_place,
        env={**clean_environment, "VERIFIER_HISTORY": "history.sqlite"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    codes = json.loads((readers_place / "codes.json").read_text(encoding="utf-8"))
    open_ = 0 if torch.cuda.is_available() else 4  # cells that were asked for by name
    assert codes == {line: open_ if "cuda/" in line else 0 for line in lines}, done.stderr
