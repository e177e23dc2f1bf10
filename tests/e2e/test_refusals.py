"""What a user does wrong: the exit code, one or two sentences that help, and nothing left behind."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

TWINS = ("--baseline", "nets.py:net", "--candidate")


def case(title: str, *given: str, code: int = 2, says: tuple[str, ...]) -> object:
    return pytest.param(given, code, says, id=title)


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        case("an unknown arch", "--arch", "resnet51", says=("'resnet51'", "did you mean", "'resnet50'")),
        case("an arch without twin", "--arch", "resnet50_v1", says=("--candidate reference:resnet50_v1",)),
        case(
            "an arch beside two models",
            *("--arch", "resnet18", *TWINS, "nets.py:net"),
            says=("--arch resnet18 names two models", "leave --arch out"),
        ),
        case("no candidate", "--baseline", "nets.py:net", says=("two models", "--candidate is missing")),
        case("a bare name", "--baseline", "resnet18", "--candidate", "x:y", says=("torchvision:resnet18",)),
        case(
            "a candidate's file that is not there", *TWINS, "gone.py:net", says=("gone.py", "does not exist")
        ),
        case("a broken candidate file", *TWINS, "broken.py:net", says=("broken.py", "SyntaxError", "line 2")),
        case("an attribute misspelt", *TWINS, "nets.py:other_epps", says=("did you mean 'other_eps'",)),
        case(
            "a candidate that is weights",
            *TWINS,
            "nets.py:a_state_dict",
            says=("an object of type OrderedDict",),
        ),
        case("a raising candidate", *TWINS, "nets.py:raising", says=("ValueError: no such width", "nets.py")),
        case("no CUDA", "--device", "cuda", code=3, says=("no CUDA device", "--device cpu")),
        case("a CUDA device too many", "--device", "cuda:9", code=3, says=("cuda:9",)),
        case("an unknown device", "--device", "gpu", says=("unknown device 'gpu'", "cuda")),
        case("an unsupported device", "--device", "mps", says=("'mps' is not supported",)),
        case("no device", "--device", "", says=("--device",)),
        case(
            "a dump that is not there",
            *("--baseline", "gone.npz", "--candidate", "nets.py:net"),
            says=("gone.npz: there is no such file",),
        ),
        case(
            "a folder that is not there",
            *("--baseline", "gone/", "--candidate", "nets.py:net"),
            says=("gone/: there is no such folder",),
        ),
        case("a word misspelt", "--localise", "alwyas", says=("--localise alwyas", "did you mean 'always'?")),
        case("a word that is none", "--outputs", "7", says=("--outputs 7", "by-name, by-order")),
        case("an unknown dtype", "--dtype", "floaat32", says=("'floaat32'", "did you mean 'float32'")),
        case("no dtype", "--dtype", ",", says=("--dtype",)),
        case("scales and a size", "--test-scales", "32,64", says=("--test-scales and --image-size exclude",)),
        case("an image size too small", "--image-size", "8", says=("at least 32", "8")),
        case(
            "more than fits into memory", "--image-size", "1000000", code=3, says=("memory", "--image-size")
        ),
        case("images that are not there", "--images", "gone", says=("gone does not exist",)),
        case("a directory without images", "--images", "empty", says=("empty holds no image", ".jpg")),
        case("an unreadable image", "--images", "spoilt", says=("1 of 1", "photograph.jpg")),
        case("a function that is not there", "--input", "nets.py:tokenz", says=("there is no 'tokenz'",)),
        case("a file without a function", "--input", "nets.py", says=("as nets.py:inputs",)),
        case("two kinds of input", "--images", "empty", "--input", "x.npy", says=("exclude each other",)),
        case("an input that is not there", "--input", "gone.npy", says=("gone.npy does not exist",)),
        case("a truncated .npy input", "--input", "truncated.npy", says=("truncated.npy",)),
        case("a truncated input", "--input", "truncated.safetensors", says=("truncated.safetensors",)),
        case("an input of the wrong shape", "--input", "flat.npy", says=("nets.py:net", "2, 7")),
        case("an unknown weights mode", "--weights", "calibratd", says=("calibratd", "calibrated")),
        case("weights that are not there", "--weights", "gone.pt", says=("gone.pt", "no such file")),
        case("truncated safetensors", "--weights", "truncated.safetensors", says=("truncated.safetensors",)),
        case("a truncated .pt file", "--weights", "truncated.pt", says=("truncated.pt",)),
        case(
            "another network's weights", "--weights", "other.pt", says=("fc.weight is (3, 7)", "conv1.weight")
        ),
        case("published weights of a user's network", "--weights", "imagenet", says=("torchvision:NAME",)),
        case("a file where results should go", "--out", "nets.py", says=("nets.py is a file",)),
        case("results below a file", "--out", "nets.py/below", says=("nets.py/below",)),
        case(
            "an unknown policy",
            "--policy",
            "strickt",
            says=("strickt", "did you mean 'strict'?", "task, pruned"),
        ),
        case(
            "a policy with an unknown key",
            "--policy",
            "key.toml",
            says=("key.toml", "did you mean 'factor'?"),
        ),
        case("a policy with a word for a number", "--policy", "type.toml", says=("type.toml", "factor")),
        case("a policy that is no TOML", "--policy", "syntax.toml", says=("syntax.toml", "line 1")),
        case("a policy that is a directory", "--policy", ".", says=("--policy .", "TOML")),
    ],
)
def test_a_run_is_refused_with(
    spoilt_files: None,
    compare: Callable[..., Ended],
    given: tuple[str, ...],
    code: int,
    says: tuple[str, ...],
) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": ""} if given == ("--device", "cuda") else {}

    message = compare(*given, env=environment).refusal(code)

    for part in says:
        assert part in message


@pytest.fixture
def spoilt_files(place: Path) -> None:
    """Files of every kind that cannot be used."""
    (place / "broken.py").write_text("import torch\ndef net(:\n", encoding="utf-8")
    (place / "empty").mkdir()
    (place / "spoilt").mkdir()
    (place / "spoilt" / "photograph.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    np.save(place / "flat.npy", np.zeros((2, 7), np.float32))
    save_file({"x": torch.zeros(2, 3, 64, 64)}, place / "truncated.safetensors")
    torch.save(torch.nn.Linear(30, 30).state_dict(), place / "truncated.pt")
    np.save(place / "truncated.npy", np.zeros((2, 3, 64, 64), np.float32))
    for kind in ("safetensors", "pt", "npy"):
        file = place / f"truncated.{kind}"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    other = {"fc.weight": torch.zeros(3, 7), "fc.bias": torch.zeros(3), "head.weight": torch.zeros(3)}
    torch.save(other, place / "other.pt")
    (place / "key.toml").write_text("factr = 2.0\n", encoding="utf-8")
    (place / "type.toml").write_text('factor = "large"\n', encoding="utf-8")
    (place / "syntax.toml").write_text("factor is 2\n", encoding="utf-8")


class Trap:
    """Runs code where it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("option", ["--weights", "--input"])
@pytest.mark.parametrize("saved_by", ["pickle", "torch"])
def test_code_in_a_pickle_is_refused_and_not_run(
    compare: Callable[..., Ended], place: Path, option: str, saved_by: str
) -> None:
    mark = place / "the trap was sprung"
    save: Callable[..., object] = torch.save if saved_by == "torch" else _pickle
    save({"conv1.weight": Trap(mark)}, place / "trap.pt")
    with contextlib.suppress(RuntimeError):  # a bare pickle is not what torch saves, which it sees too late
        torch.load(place / "trap.pt", weights_only=False)
    assert mark.exists()  # so there is something to be afraid of
    mark.unlink()

    message = compare(option, "trap.pt").refusal(2)

    assert not mark.exists()
    assert "trap.pt" in message
    assert "could run code" in message


def _pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def test_an_array_of_objects_as_input_is_refused_and_not_run(
    compare: Callable[..., Ended], place: Path
) -> None:
    mark = place / "the trap was sprung"
    np.save(place / "trap.npy", np.array([Trap(mark)], dtype=object), allow_pickle=True)

    message = compare("--input", "trap.npy").refusal(2)

    assert not mark.exists()
    assert "trap.npy" in message


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Ended]) -> Ended:
    """A run that needs published weights where they are neither cached nor to be had."""
    place = tmp_path_factory.mktemp("offline")
    environment = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
    )
    environment |= {"no_proxy": "", "NO_PROXY": "", "TORCH_HOME": str(place / "cache")}
    return command(
        place, "run", "--arch", "resnet18", "--image-size", "small", "--weights", "imagenet", env=environment
    )


def test_published_weights_that_cannot_be_downloaded_are_named_with_the_place_to_put_them(
    offline: Ended,
) -> None:
    assert offline.code == 3
    assert offline.err.count("\n") == 1
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in offline.err
    assert "Place resnet18-f37072fd.pth from" in offline.err
    assert str(offline.directory / "cache" / "hub" / "checkpoints") in offline.err
    assert offline.new == frozenset()


def test_a_download_that_fails_says_nothing_on_stdout(offline: Ended) -> None:
    assert offline.out == ""


def test_a_run_that_fails_leaves_no_empty_directory(offline: Ended) -> None:
    assert not (offline.directory / "verifier-report").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["run", *TWINS, "nets.py:net", "--batch-size", "0"], ("--batch-size", "1")),
        (["run", *TWINS, "nets.py:net", "--batch-size", "two"], ("--batch-size", "integer")),
        (["run", *TWINS, "nets.py:net", "--seed", "-1"], ("--seed", "0")),
        (["run", *TWINS, "nets.py:net", "--seed", "9" * 24], ("--seed",)),
        (["run", "--arhc", "resnet18"], ("--arhc", "--arch")),
        (["run", "resnet18"], ("resnet18",)),
        (["runn"], ("runn", "run")),
        (["judge", "DIR"], ("--policy",)),
        (["report"], ("DIR",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_command_ends_with_2_and_points_at_the_mistake(
    call: Callable[..., Ended], given: list[str], says: tuple[str, ...]
) -> None:
    ended = call(*given)

    assert (ended.code, ended.out, ended.new) == (2, "", frozenset())
    assert "Traceback" not in ended.err
    for part in says:
        assert part in ended.err.splitlines()[-1]


@pytest.mark.parametrize("given", [["report"], ["judge", "--policy", "criteria"]], ids=["report", "judge"])
@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (None, "there is no saved result"),
        ("", "is damaged"),
        ('{"schema_version": 1, "verdict": ', "is damaged"),
        ('{"schema_version": 1, "verdict": "match"}', "is damaged"),
        ('{"schema_version": 2}', "newer version"),
        ("[]", "is not a saved result"),
    ],
    ids=["no result", "an empty file", "half a result", "a result without cells", "a newer result", "a list"],
)
def test_a_result_that_cannot_be_read_is_refused_by_name(
    call: Callable[..., Ended], place: Path, given: list[str], kept: str | None, says: str
) -> None:
    (place / "DIR").mkdir()
    if kept is not None:
        (place / "DIR" / "result.json").write_text(kept, encoding="utf-8")

    message = call(*given, "DIR").refusal(2)

    assert "DIR/result.json" in message
    assert says in message


def test_with_debug_a_refusal_shows_its_traceback_and_the_same_message(compare: Callable[..., Ended]) -> None:
    ended = compare("--input", "gone.npy", "--debug")

    assert ended.code == 2
    assert "Traceback (most recent call last)" in ended.err
    assert ended.err.endswith("verifier: gone.npy does not exist\n")


def test_what_was_saved_before_survives_a_run_that_fails(compare: Callable[..., Ended], place: Path) -> None:
    (place / "DIR").mkdir()
    (place / "DIR" / "result.json").write_text("precious", encoding="utf-8")

    ended = compare("--candidate", "nets.py:losing_its_nerve", "--baseline", "nets.py:net", "--out", "DIR")

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.endswith(" An earlier result was set aside in DIR/earlier.\n")
    assert ended.new == {"DIR/earlier/result.json"}
    assert [file.name for file in (place / "DIR").iterdir()] == ["earlier"]
    assert (place / "DIR" / "earlier" / "result.json").read_text(encoding="utf-8") == "precious"
