"""Passes of a model that something else drives: recorded, and nothing of it left or changed."""

from __future__ import annotations

import copy
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import verifier
from tests.verifier.certificates.nets import Net, images
from tests.verifier.certificates.test_file import put_together, taken_apart
from verifier import CertificateError, Status, UsageError, verify
from verifier.certificates.live import KEY, Live, is_live
from verifier.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def traces(model: nn.Module) -> dict[str, Any]:
    """All that is on a model's modules but tensors."""
    return {
        name: (
            sorted(vars(module)),
            module.training,
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            vars(module).get("_compiled_call_impl"),
        )
        for name, module in model.named_modules()
    }


def recorded(path: Path, model: nn.Module, *args: Any, **options: Any) -> Live:
    with verifier.recording(path, model, **options):
        model(*args)
    return Live.load(path)


def test_a_recorded_pass_gives_the_same_bits_and_leaves_nothing_behind(tmp_path: Path) -> None:
    net = Net()
    before, bare = traces(net), net(images())
    with verifier.recording(tmp_path / "a.safetensors", net):
        assert torch.equal(net(images()), bare)
        assert (tmp_path / "a.safetensors").exists()  # written when the pass ended, not the block
        assert traces(net) == before
        assert torch.equal(net(images()), bare)
    assert traces(net) == before
    live = Live.load(tmp_path / "a.safetensors")
    assert live.encoded() == (tmp_path / "a.safetensors").read_bytes()
    assert live.content.unseen == ()
    assert [site.name for site in live.content.graphs[0].sites][:3] == ["first", "norm", "relu"]
    (only,) = live.content.passes
    assert (only.training, only.gradients, only.recording.cell) == (False, False, "cpu/float32")


def test_what_raises_leaves_nothing_behind_and_is_no_pass(tmp_path: Path) -> None:
    net = Net()
    before = traces(net)
    with verifier.recording(tmp_path / "a.safetensors", net):
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 5, 8, 8))
        net(images())
    live = Live.load(tmp_path / "a.safetensors")
    assert [each.given[0].shape for each in live.content.passes] == [(4, 3, 24, 24)]
    assert "raised RuntimeError" in live.content.unseen[0]
    with pytest.raises(KeyError), verifier.recording(tmp_path / "b.safetensors", net):
        raise KeyError
    assert traces(net) == before
    assert not (tmp_path / "b.safetensors").exists()


class Interrupted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        raise KeyboardInterrupt


def test_an_interrupt_inside_the_pass_leaves_no_mode_on(tmp_path: Path) -> None:
    model = Interrupted()
    before = traces(model)
    with pytest.raises(KeyboardInterrupt), verifier.recording(tmp_path / "a.safetensors", model):
        model(torch.ones(3))
    assert torch._C._len_torch_function_stack() == 0
    assert traces(model) == before


def test_a_block_in_which_the_model_is_not_called_says_so(tmp_path: Path) -> None:
    net = Net()
    with (
        pytest.raises(UsageError, match="never called as model"),
        verifier.recording(tmp_path / "a.safetensors", net),
    ):
        net.forward(images())


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.pt", {}, UsageError),
        ("a.safetensors", {"passes": 0}, UsageError),
        ("no/a.safetensors", {}, OutputError),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_runs(
    tmp_path: Path, name: str, options: dict[str, int], kind: type[Exception]
) -> None:
    (tmp_path / "no").write_text("a file")
    with pytest.raises(kind), verifier.recording(tmp_path / name, Net(), **options):
        pytest.fail("it began")


def test_several_passes_share_a_graph_where_they_do_the_same(tmp_path: Path) -> None:
    net = Net()
    with verifier.recording(tmp_path / "a.safetensors", net, passes=3):
        net(images())
        net(images())
        assert not (tmp_path / "a.safetensors").exists()
        net(images(2))
        net(images())
    content = Live.load(tmp_path / "a.safetensors").content
    assert [each.graph for each in content.passes] == [0, 0, 1]


def test_fewer_passes_than_asked_for_are_written_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = recorded(tmp_path / "a.safetensors", Net(), images(), passes=3)
    assert len(live.content.passes) == 1
    assert live.content.unseen == ("1 of 3 passes were made while this was watched",)
    assert "1 of 3 passes" in caplog.text


def test_of_calls_in_several_threads_one_is_recorded(tmp_path: Path) -> None:
    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 4)
            self.inside, self.go = threading.Event(), threading.Event()

        def forward(self, x: Tensor) -> Tensor:
            x = self.line(x)
            if not self.inside.is_set():
                self.inside.set()
                assert self.go.wait(30)
            return x.relu()

    model, x = Slow(), torch.ones(2, 4)
    found: list[Tensor] = []
    with verifier.recording(tmp_path / "a.safetensors", model):
        other = threading.Thread(target=lambda: found.append(model(x)))
        other.start()
        assert model.inside.wait(30)
        found.append(model(x))  # while the other thread is in the pass that is recorded
        model.go.set()
        other.join()
    assert torch.equal(*found)
    live = Live.load(tmp_path / "a.safetensors")
    assert [site.name for site in live.content.graphs[0].sites] == ["line", "relu"]
    assert "1 calls began while another was recorded" in live.content.unseen[0]


class Blocks(nn.Module):
    """A block of which somebody may compile a part, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.second = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) + x).tanh()  # type: ignore[no-any-return]


def in_place(model: Blocks) -> nn.Module:
    model.compile(backend="eager")
    return model


def part(model: Blocks) -> nn.Module:
    model.first = torch.compile(model.first, backend="eager")  # type: ignore[assignment]
    return model


def part_in_place(model: Blocks) -> nn.Module:
    model.first.compile(backend="eager")
    return model


def scripted_part(model: Blocks) -> nn.Module:
    model.first = torch.jit.script(model.first)  # type: ignore[assignment]
    return model


def compiled_function(model: Blocks) -> nn.Module:
    model.first.forward = torch.compile(model.first.forward, backend="eager", fullgraph=True)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda model: torch.compile(model, backend="eager"), "the model is compiled"),
        (in_place, "the model is compiled"),
        (part, "first: compiled"),
        (part_in_place, "first: compiled"),
        (compiled_function, "first: compiled"),
        (scripted_part, "first: scripted"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_what_is_compiled_stays_what_runs_and_the_file_says_what_was_not_seen(
    tmp_path: Path, form: Callable[[Blocks], nn.Module], said: str
) -> None:
    torch._dynamo.reset()
    x = torch.randn(3, 8)
    model = form(Blocks())
    bare, before = model(x), traces(model)
    programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with verifier.recording(tmp_path / "a.safetensors", model):
        assert torch.equal(model(x), bare)
    assert traces(model) == before
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == programs  # nothing was compiled anew
    live = Live.load(tmp_path / "a.safetensors")
    assert said in " ".join(live.content.unseen)
    ops = [site.op for site in live.content.graphs[0].sites]
    whole = said.startswith("the model")
    assert [op for op in ops if op.startswith("opaque:")] == [
        "opaque:Blocks" if whole else "opaque:Sequential"
    ]
    assert whole or ops[-1] == "tanh"
    assert all(site.live for site in live.content.graphs[0].sites)
    recorded(tmp_path / "b.safetensors", Blocks(), x)
    result = verify(tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    assert result.verdict == "match", result.reason
    assert any(said in note for note in result.notes)


def test_a_fused_path_is_not_left_for_being_watched(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 4)).eval()
    x = torch.randn(2, 5, 16)
    bare = model(x)
    with verifier.recording(tmp_path / "a.safetensors", model):
        assert torch.equal(model(x), bare)
    live = Live.load(tmp_path / "a.safetensors")
    assert [site.op for site in live.content.graphs[0].sites] == ["opaque:TransformerEncoderLayer", "linear"]
    assert live.content.unseen[0].startswith("0: has a fused path")


def test_a_model_in_training_by_an_outside_loop_is_recorded_with_what_it_computes_with(
    tmp_path: Path,
) -> None:
    net = Net().train()
    net.requires_grad_()
    twin = copy.deepcopy(net)

    def train(model: nn.Module, steps: int) -> list[float]:
        rule = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        losses = []
        with torch.enable_grad():
            for _ in range(steps):
                rule.zero_grad()
                loss = model(images()).square().mean()
                loss.backward()
                rule.step()
                losses.append(float(loss.detach()))
        return losses

    with verifier.recording(tmp_path / "a.safetensors", net, passes=2):
        losses = train(net, 3)
    assert losses == train(twin, 3)
    content = Live.load(tmp_path / "a.safetensors").content
    first, second = content.passes
    assert (first.training, first.gradients) == (True, True)
    assert first.changed == {}
    assert {"first.weight", "norm.running_mean"} <= set(second.changed)
    assert first.recording.states[0].name == "end.num_batches_tracked"
    other = Net().train()
    with verifier.recording(tmp_path / "b.safetensors", other, passes=2):
        train(other, 3)
    assert verify(tmp_path / "a.safetensors", tmp_path / "b.safetensors").verdict == "match"


def test_a_failure_of_the_recording_is_no_failure_of_the_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError("in here")

    monkeypatch.setattr("verifier.certificates.watching.Part", failing)
    net = Net()
    bare, before = net(images()), traces(net)
    with (
        pytest.raises(UsageError, match=r"could be recorded: .*ZeroDivisionError: in here"),
        verifier.recording(tmp_path / "a.safetensors", net),
    ):
        assert torch.equal(net(images()), bare)
    assert traces(net) == before


def test_a_file_that_cannot_be_written_is_told_when_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("no space is left.")

    monkeypatch.setattr("verifier.certificates.file.write", full)
    net = Net()
    with pytest.raises(OutputError, match="no space"), verifier.recording(tmp_path / "a.safetensors", net):
        assert net(images()).shape == (4, 10)


def test_what_was_logged_names_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        recorded(tmp_path / "a.safetensors", Net(), images())
    assert "a.safetensors: Net: 1 passes, 9 sites in cpu/float32" in caplog.text


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.safetensors"
    recorded(path, Net(), images())
    return path.read_bytes()


def changed(whole: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    header, rest = taken_apart(whole)
    content = json.loads(header["__metadata__"][KEY])
    change(content)
    header["__metadata__"][KEY] = json.dumps(content)
    return put_together(header, rest)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no passes": lambda content: content.update(passes=[]),
    "a graph that is not there": lambda content: content["passes"][0].update(graph=1),
    "rows that are not there": lambda content: content["passes"][0]["recording"]["sites"].pop(),
    "a digest that is none": lambda content: content["passes"][0]["given"][0].update(digest="../../x"),
    "inputs of another shape": lambda content: content["passes"][0]["given"][0].update(shape=[1 << 60]),
    "a negative sample": lambda content: content.update(sample=-1),
    "an unknown field": lambda content: content.update(code="import os"),
    "a later version": lambda content: content.update(schema_version=99),
    "a weight that nobody kept": lambda content: content["tensors"][0].update(stored=True),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_contradicts_itself_is_refused_in_a_sentence(
    tmp_path: Path, whole: bytes, what: str
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(changed(whole, HOSTILE[what]))
    assert is_live(path)
    with pytest.raises(CertificateError) as caught:
        verify(path, path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", [4, 9, 200, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, whole: bytes, cut: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(whole[:cut])
    with pytest.raises(CertificateError):
        verify(path, path)


def test_a_status_is_given_to_every_site(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(whole)
    result = verify(path, path)
    assert result.verdict == "match"
    assert {row.status for row in result.layers} == {Status.OK}
    assert result.cells[0].name == "cpu/float32"
    assert "neither was run in float64" in result.notes[0]


def test_what_vmap_makes_of_samples_is_not_recorded_and_what_comes_of_it_is(tmp_path: Path) -> None:
    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            scaled: Tensor = torch.vmap(lambda one, other: torch.tanh(one) * other.sum())(x, self.layer(x))
            return torch.relu(scaled)

    model = Each().eval()
    with torch.inference_mode(), verifier.recording(tmp_path / "a.safetensors", model):
        model(torch.randn(4, 6))
    found = verifier.verify(tmp_path / "a.safetensors", tmp_path / "a.safetensors")
    assert found.verdict == "match"
    assert "relu" in {row.baseline for row in found.layers}
