"""A model is compared with its recording: what is the same matches, what is other is found where a live run does."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import verifier
from tests.mutants.benign import BENIGN, applies, variant
from tests.mutants.catalogue import FAULTS
from tests.mutants.drawing import Effect, Mutant, single
from tests.mutants.networks import BUILDERS, build
from tests.mutants.networks import images as mutant_images
from tests.mutants.ports.catalogue import PORTS
from tests.mutants.ports.hosts import Host, bodies
from tests.sweeps import swept
from tests.verifier.certificates.nets import Net, Renamed, images
from verifier import Certificate, CertificateError, record, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from verifier import Verification
    from verifier.records import Comparison


@pytest.fixture(scope="module")
def as_is(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates") / "net.safetensors"
    record(Net(), images()).save(path)
    return path


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates") / "net.safetensors"
    record(Net(), images(), weights="calibrated").save(path)
    return path


def first(found: Verification) -> str | None:
    row = found.cells[0].first_divergence
    return None if row is None else row.baseline or row.candidate


def errors(found: Verification) -> Iterator[Comparison]:
    for cell in found.cells:
        for row in cell.layers:
            if row.total is not None:
                yield row.total


def test_an_unchanged_model_is_a_match_in_which_every_bit_agrees(as_is: Path) -> None:
    found = verify(as_is, Net())
    assert found.verdict == "match"
    assert [cell.name for cell in found.cells] == ["cpu/float64", "cpu/float32"]
    assert all(error.max_abs == 0 for error in errors(found))
    assert found.certificate is not None
    assert found.certificate.digest == Certificate.load(as_is).digest


def test_a_recording_that_nothing_will_match_says_so(as_is: Path) -> None:
    class Nothing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.nan

    assert (
        "not one number of an output is finite in cpu/float32"
        in record(Nothing(2, 2), torch.ones(3, 2)).blind
    )
    assert Certificate.load(as_is).blind == ""


def test_a_result_with_estimates_is_saved_and_read_back(as_is: Path, tmp_path: Path) -> None:
    found = verify(as_is, Net(eps=1e-3))
    found.save(tmp_path)
    assert repr(verifier.load(tmp_path)) == repr(found)  # where NaN is like NaN
    assert "95 %" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("threads", [1, 2])
def test_neither_threads_nor_layout_raise_an_alarm(as_is: Path, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = verify(as_is, Net().to(memory_format=torch.channels_last))
    finally:
        torch.set_num_threads(before)
    assert found.verdict == "match", found.reason


def test_another_implementation_computes_with_the_recorded_weights(calibrated: Path) -> None:
    found = verify(calibrated, Renamed())
    assert found.verdict == "match", found.reason
    assert found.coverage.baseline_share == found.coverage.candidate_share == 1


def test_a_fault_in_another_implementation_is_found(calibrated: Path) -> None:
    wrong = Renamed()
    wrong.b[1] = nn.BatchNorm2d(16, eps=1e-3).eval()
    found = verify(calibrated, wrong)
    assert found.verdict == "diverged"
    assert first(found) == "end"
    (culprit,) = found.culprits
    assert "eps 0.001, baseline 1e-05" in culprit.reason


def test_the_first_divergent_site_is_the_culprit_and_what_lies_behind_is_not_judged(as_is: Path) -> None:
    wrong = Net(eps=1e-3)
    wrong.end.eps = 1e-3
    found = verify(as_is, wrong)
    live = verify(Net(), wrong, images())
    assert [row.baseline for row in found.cells[0].culprits] == ["norm"]
    assert [row.baseline for row in live.cells[0].culprits] == ["norm", "end"]
    assert any("live baseline" in note for cell in found.cells for note in cell.notes)


def test_tensors_kept_in_full_tell_every_culprit_as_a_live_baseline_does(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    record(Net(), images(2), full=["**"], beside=path).save(path)
    wrong = Net(eps=1e-3)
    wrong.end.eps = 1e-3
    (found, live) = (verify(each, wrong, images(2)).cells[0] for each in (path, Net()))
    assert (
        [row.baseline for row in found.culprits] == [row.baseline for row in live.culprits] == ["norm", "end"]
    )
    assert found.notes == ()
    for one, other in zip(found.layers, live.layers, strict=True):
        assert one.status == other.status, one
        assert other.total is not None
        assert one.total == other.total or (
            one.total is not None and other.total.max_abs == one.total.max_abs == 0
        )
    for row in (row for row in live.layers if row.status == "culprit"):
        assert found.layers[row.index].intrinsic == row.intrinsic


def test_what_lies_behind_tensors_that_are_kept_is_told_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    record(Net(), images(), full=["second"], beside=path).save(path)
    assert [each.name for each in (tmp_path / "net.full").iterdir()] == ["00003.safetensors"]
    wrong = Net(eps=1e-3)
    wrong.end.eps = 1e-3
    found = verify(path, wrong)
    assert [row.baseline for row in found.cells[0].culprits] == ["norm", "end"]
    assert any("live baseline" in note for note in found.cells[0].notes)  # of the sum behind both
    for file in (tmp_path / "net.full").iterdir():  # what is not what was recorded counts for nothing
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert [row.baseline for row in verify(path, wrong).cells[0].culprits] == ["norm"]


def test_what_a_killed_process_has_kept_is_not_written_again(tmp_path: Path) -> None:
    path, folder = tmp_path / "net.safetensors", tmp_path / "net.full"
    record(Net(), images(), full=["**"], beside=path)
    files = sorted(folder.iterdir())
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    files[0].unlink()
    files[1].write_bytes(b"torn")
    record(Net(), images(), full=["**"], beside=path)
    assert {file: file.read_bytes() for file in sorted(folder.iterdir())} == {
        f: b for f, (b, _) in before.items()
    }
    assert all(file.stat().st_mtime_ns == before[file][1] for file in files[2:])


def test_sites_to_keep_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="no site is called layer9"):
        record(Net(), images(), full=["layer9.*"], beside=tmp_path / "net.safetensors")
    with pytest.raises(verifier.UsageError, match="beside"):
        record(Net(), images(), full=["**"])


def test_estimates_hold_what_a_live_run_measures(as_is: Path) -> None:
    wrong = Net(eps=1e-3)
    told = {row.baseline: row.total for row in verify(as_is, wrong).cells[0].layers}
    known = {row.baseline: row.total for row in verify(Net(), wrong, images()).cells[0].layers}
    estimated = [name for name, error in told.items() if error is not None and error.interval is not None]
    assert len(estimated) >= 5
    held = 0
    for name in estimated:
        error, exact = told[name], known[name]
        assert error is not None
        assert exact is not None
        assert error.interval is not None
        low, high = error.interval.nrmse
        assert 0.5 * low <= exact.nrmse <= 2 * high
        held += low <= exact.nrmse <= high
    assert held >= len(estimated) - 2


def test_weights_that_were_changed_are_told_and_diverge(as_is: Path) -> None:
    edited = Net()
    with torch.no_grad():
        edited.second.weight[3] *= 1.01
    found = verify(as_is, edited)
    assert found.verdict == "diverged"
    assert first(found) == "second"
    assert [each.candidate for each in found.static if each.kind == "tensor"] == ["second.weight"]


def test_a_culprits_own_tensors_are_its_reason_and_are_named_first() -> None:
    drawn_apart = Renamed(2)
    drawn_apart.a.load_state_dict(Renamed().a.state_dict())
    found = verify(record(Renamed(), images(2)), drawn_apart, images(2))
    said = "b.0.weight holds other values than the recorded one"
    assert [(each.candidate, each.differences) for each in found.culprits] == [("b.0", (said,))]
    assert found.first_divergence is not None
    assert found.first_divergence.differences == (said,)
    (note,) = (each for each in found.notes if "other values" in each)
    assert note.endswith(": b.0.weight, out.weight, out.bias")


def test_an_edited_copy_keeps_its_edit_where_weights_are_drawn(calibrated: Path) -> None:
    edited = Net()
    with torch.no_grad():
        edited.second.weight[3] *= 1.01
    found = verify(calibrated, edited)
    assert found.verdict == "diverged"
    assert first(found) == "second"
    assert any("second.weight" in note for note in found.notes)


def test_drawn_weights_excite_what_a_constructor_hides(calibrated: Path) -> None:
    wrong = Net()
    wrong.norm.weight = None  # type: ignore[assignment] # a gain of 1, as constructed
    assert verify(calibrated, wrong).verdict == "diverged"


@pytest.mark.parametrize("count", [1, 3])
def test_few_samples_and_many_match(count: int) -> None:
    certificate = record(Net(), images(count))
    assert verify(certificate, Net()).verdict == "match"


class Counting(nn.Module):
    """Writes into its own state, in training mode; reads tokens and a mask."""

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 8)
        self.norm = nn.BatchNorm1d(8, momentum=momentum)
        self.train()

    def forward(self, ids: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> dict[str, Any]:
        x = self.embed(ids) * scale
        if mask is not None:
            x = x.masked_fill(mask[..., None], torch.finfo(x.dtype).min).clamp(min=-10)
        return {"out": self.norm(x.flatten(0, 1)), "name": "counting"}


def test_states_that_a_run_writes_are_compared() -> None:
    ids = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    given = {"ids": ids, "mask": ids > 40, "scale": 2.0}
    certificate = record(Counting(), given)
    assert verify(certificate, Counting()).verdict == "match"
    found = verify(certificate, Counting(momentum=0.2))
    assert found.verdict == "diverged"
    assert {row.baseline for row in found.culprits} == {"norm.running_mean", "norm.running_var"}


class Hashing(nn.Module):
    """Whole numbers that float64 does not hold, more of them than are kept in full."""

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        ids = (x * 1000).long() + (1 << 60)
        return (ids + self.more).repeat(1, 100)


def test_whole_numbers_beyond_float64_are_told_apart() -> None:
    x = torch.rand(4, 50, generator=torch.Generator().manual_seed(0))
    certificate = record(Hashing(), x)
    assert verify(certificate, Hashing()).verdict == "match"
    assert verify(certificate, Hashing(1)).verdict == "diverged"


def test_inputs_are_kept_where_small_and_asked_for_where_not(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    large = images(4, 100)
    record(Net(), large).save(path)
    assert path.stat().st_size < 300_000
    with pytest.raises(CertificateError, match="does not hold its inputs"):
        verify(path, Net())
    assert verify(path, Net(), large).verdict == "match"
    with pytest.raises(CertificateError, match="other numbers of the same shapes"):
        verify(path, Net(), large + 1)
    with pytest.raises(CertificateError, match="recorded on other inputs"):
        verify(path, Net(), images())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cells": ["cpu/bfloat16"]}, "not cpu/bfloat16"),
        ({"weights": "imagenet"}, "recorded with weights as-is"),
        ({"repeat": 2}, "needs a live baseline"),
        ({"localise": "always"}, "needs a live baseline"),
        ({"granularity": "block"}, "needs a live baseline"),
    ],
)
def test_what_does_not_fit_is_refused(as_is: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(CertificateError, match=said):
        verify(as_is, Net(), **options)


def test_another_network_is_refused(calibrated: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.randn(7))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :7] * self.gain

    with pytest.raises(CertificateError, match="another network"):
        verify(calibrated, Other())


def test_the_model_that_is_recorded_stays_as_it_was() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    record(model, images(), weights="calibrated")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_whose_modules_are_not_what_runs_is_not_recorded() -> None:
    def twice(_module: Any, _example: Any) -> Any:
        return lambda *args: tuple(2 * out for out in _module(*args))

    model: Any = torch.compile(Net(), backend=twice)
    with pytest.raises(verifier.ModelError, match="no certificate can speak for it"):
        record(model, images())


def test_half_precision_is_recorded_beside_float64() -> None:
    certificate = record(Net(), images(), cells=["cpu/bfloat16", "cpu/float32"])
    cells = ["cpu/bfloat16", "cpu/float32"]
    assert verify(certificate, Net(), cells=cells).verdict == "match"
    assert verify(certificate, Renamed(), cells=cells, weights="as-is").verdict == "diverged"


def planted(kind: str) -> Mutant:
    rng = random.Random(kind)
    for _ in range(20):
        mutant = single(kind, 0, rng)
        if mutant is not None and mutant.effect is Effect.VISIBLE:
            return mutant
    raise AssertionError(f"{kind} shows nowhere")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Certificate]:
    return {}


def beyond_rounding(live: Verification) -> bool:
    """Whether the two are further apart in float32 than rounding makes the baseline from float64."""
    (cell,) = (each for each in live.cells if each.name == "cpu/float32")
    return any(
        row.total is not None and row.budget is not None and not row.total.within(row.budget.total)
        for row in cell.layers
    )


def verdict(found: Verification, cell: str) -> str:
    (result,) = (each for each in found.cells if each.name == cell)
    return str(result.verdict)


@pytest.mark.parametrize("kind", swept(sorted(FAULTS), sorted(FAULTS)[1::9]))
def test_a_fault_is_found_where_a_live_run_first_finds_it(
    kind: str, recorded: dict[str, Certificate]
) -> None:
    mutant = planted(kind)
    if mutant.network not in recorded:
        recorded[mutant.network] = record(mutant.baseline, mutant.inputs)
    found = verify(recorded[mutant.network], mutant.candidate, mutant.inputs)
    live = verify(mutant.baseline, mutant.candidate, mutant.inputs, weights="as-is")
    assert found.verdict == verdict(found, "cpu/float64") == "diverged"
    assert first(found) == first(live)
    assert (verdict(found, "cpu/float32") == "diverged") >= beyond_rounding(live)


@pytest.mark.parametrize("network", swept(sorted(BUILDERS), ["basic"]))
def test_an_unchanged_model_raises_no_alarm_on_other_threads_and_in_another_layout(network: str) -> None:
    x = mutant_images(network, 4, 1)
    certificate = record(build(network, 0), x)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for layout in (torch.contiguous_format, torch.channels_last):
                again = copy.deepcopy(build(network, 0)).to(memory_format=layout)
                found = verify(certificate, again, x.contiguous(memory_format=layout))
                assert found.verdict == "match", (threads, layout, found.reason)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", swept(sorted(BENIGN), sorted(BENIGN)[::3]))
def test_a_benign_rewrite_raises_no_alarm(name: str) -> None:
    rng = random.Random(name)
    network = rng.choice([each for each in sorted(BUILDERS) if applies(name, build(each, 0))])
    x = mutant_images(network, 2, 1)
    made = variant(build(network, 0), x, [name], rng)
    cells = made.options.get("cells", ("cpu/float32",))
    certificate = record(build(network, 0), x, cells=cells)
    with made.around():
        found = verify(certificate, made.candidate, made.inputs, **made.options)
    assert found.verdict == "match", found.reason


class Gated(nn.Module):
    """A branch behind a gain, written by hand or by a library."""

    def __init__(self, gelu: Any, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.out = nn.Linear(8, 8), nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.full((8,), gain))
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.gain * self.gelu(self.up(x)))  # type: ignore[no-any-return]


def test_what_gains_of_0_hide_is_no_match() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Any] = {
        "right": lambda h: 0.5 * h * (1 + torch.erf(h / 2**0.5)),
        "wrong": lambda h: h * torch.sigmoid(1.702 * h),
    }
    library = nn.functional.gelu
    said = {
        (gain, weights, name): verify(
            record(Gated(library, gain), x, weights=weights), Gated(way, gain)
        ).verdict
        for gain, weights in ((0.0, "as-is"), (0.0, "calibrated"), (0.5, "as-is"))
        for name, way in ways.items()
    }
    assert said == {
        (0.0, "as-is", "right"): "inconclusive",
        (0.0, "as-is", "wrong"): "inconclusive",
        (0.0, "calibrated", "right"): "match",
        (0.0, "calibrated", "wrong"): "diverged",
        (0.5, "as-is", "right"): "match",
        (0.5, "as-is", "wrong"): "diverged",
    }


class Split(nn.Module):
    """A layer and a ReLU that never lets one channel through; `late`: a bias by hand, wrong in that channel."""

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.first.bias[3] = -60.0
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        if not self.late:
            return self.second(torch.relu(self.first(x)))  # type: ignore[no-any-return]
        h = nn.functional.linear(x, self.first.weight) + (self.first.bias + (torch.arange(16) == 3))
        return self.second(torch.relu(h))  # type: ignore[no-any-return]


def test_a_difference_that_the_recorded_inputs_do_not_reach_is_no_match() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert verify(record(Split(late=False), x), Split(late=True)).verdict == "inconclusive"


SHOWN = (
    "constants exchanged",  # a table that is divided by, and one of reciprocals
    "gate behind the norm",  # operators that are the other's under other names
    "order of an lstm's gates",  # one operator for many
)


@pytest.mark.parametrize("name", swept(sorted(PORTS), SHOWN))
def test_a_correct_port_matches_and_its_fault_does_not(name: str) -> None:
    port = PORTS[name]
    body = bodies(port.inputs)[0]
    x = torch.randn(port.inputs, generator=torch.Generator().manual_seed(1))
    baseline, right, wrong = (
        Host(region, body, 0).eval() for region in (port.baseline, port.right, port.wrong)
    )
    certificate = record(baseline, x)
    said = verify(certificate, right).verdict
    assert said == ("match" if gap(baseline, right, x) < 1e-12 else "inconclusive")
    assert verify(certificate, wrong).verdict == "diverged"


def gap(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """How far apart two models are in float64, where weights that are stored rounded show."""
    with torch.no_grad():
        a, b = (copy.deepcopy(model).double()(x.double()) for model in (one, other))
    return float((a - b).norm() / a.norm())


DRAWN = """
import torch
from torch import nn

class First(nn.Linear):
    pass

def net(change=lambda weight: weight, kind=First):
    net = nn.Sequential(kind(64, 80), nn.ReLU(), nn.Linear(80, 70), nn.ReLU(), nn.Linear(70, 5), nn.Tanh())
    state = torch.get_rng_state()
    with torch.no_grad():
        net[0].weight.copy_(change(net[0].weight.clone()))
    torch.set_rng_state(state)
    return net.eval()

def redrawn():
    return net(lambda weight: weight.uniform_(-0.125, 0.125))

def scaled():
    return net(lambda weight: 1.05 * weight)

def zeroed():
    return net(lambda weight: weight.index_fill(0, torch.tensor(3), 0))

def negated():
    return net(lambda weight: -weight, nn.Linear)

def one_of_its_kind():
    return net(lambda weight: weight.uniform_(-0.125, 0.125), nn.Linear)

def permuted():
    return net(lambda weight: weight.flip(0))

def loaded():
    return net(lambda weight: weight.uniform_(-0.125, 0.125, generator=torch.Generator().manual_seed(3)))
"""


@pytest.fixture(scope="module")
def drawn_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, str]:
    """A certificate of a model that a release of torch drew which is not this one, and where to find variants."""
    file = tmp_path_factory.mktemp("drawn") / "nets.py"
    file.write_text(DRAWN, encoding="utf-8")
    made = record(f"{file}:net", torch.randn(4, 64), weights="calibrated")
    environment = made.content.environment
    other = msgspec.structs.replace(environment, packages={**environment.packages, "torch": "1.13"})
    return replace(made, content=msgspec.structs.replace(made.content, environment=other)), str(file)


def test_what_another_release_draws_otherwise_is_no_edit(drawn_elsewhere: tuple[Certificate, str]) -> None:
    certificate, file = drawn_elsewhere
    found = verify(certificate, f"{file}:redrawn")
    assert found.verdict == "match"
    assert "1 of the candidate's tensors start from other random numbers" in " ".join(found.notes)
    assert "0.weight" in " ".join(found.notes)


@pytest.mark.parametrize("name", ["scaled", "permuted", "loaded", "zeroed", "negated", "one_of_its_kind"])
def test_what_is_no_other_draw_is_an_edit(drawn_elsewhere: tuple[Certificate, str], name: str) -> None:
    certificate, file = drawn_elsewhere
    found = verify(certificate, f"{file}:{name}")
    assert (found.verdict, first(found)) == ("diverged", "0")


def test_under_the_same_release_another_draw_is_an_edit(drawn_elsewhere: tuple[Certificate, str]) -> None:
    _, file = drawn_elsewhere
    certificate = record(f"{file}:net", torch.randn(4, 64), weights="calibrated")
    assert verify(certificate, f"{file}:redrawn").verdict == "diverged"


class Written(nn.Module):
    """Two layers with something between that is written as `between` says."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.last, self.between = nn.Linear(8, 8), nn.Linear(8, 4), between

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.between(self.first(x)))
        return found


@pytest.fixture(scope="module")
def rectified() -> Certificate:
    return record(Written(nn.functional.relu).eval(), torch.randn(4, 8).clamp(-2, 2))


@pytest.mark.parametrize(
    "between",
    [
        nn.functional.relu6,
        lambda x: x.clamp(0, 50),
        lambda x: nn.functional.hardtanh(x, 0, 9),
        lambda x: nn.functional.threshold(x, -1e-9, 0.5) if x.min() > 0 else x.clamp(0, 1e3),
    ],
)
def test_what_the_recorded_inputs_do_not_reach_is_run_alone(
    rectified: Certificate, between: Callable[[Tensor], Tensor]
) -> None:
    found = verify(rectified, Written(between).eval())
    (culprit,) = found.culprits
    assert (found.verdict, culprit.baseline) == ("diverged", "relu")
    assert culprit.excited is not None
    assert culprit.cause is not None
    assert culprit.cause.confirmed


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.clamp(min=0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        nn.ReLU(),
        lambda x: torch.where(x > 0, x, 0),
        lambda x: x * (x > 0),
    ],
)
def test_the_same_function_written_otherwise_matches_a_recording(
    rectified: Certificate, between: Callable[[Tensor], Tensor]
) -> None:
    assert verify(rectified, Written(between).eval()).verdict == "match"


def test_a_setting_that_the_recorded_inputs_do_not_reach_is_found() -> None:
    recorded = record(Written(lambda x: x.clamp(-10, 10)).eval(), torch.randn(4, 8).clamp(-2, 2))
    assert verify(recorded, Written(lambda x: x.clamp(-10, 10)).eval()).verdict == "match"
    found = verify(recorded, Written(lambda x: x.clamp(-10, 11)).eval())
    assert found.verdict == "diverged"


def test_what_cannot_be_made_again_is_told_as_not_exercised() -> None:
    def summed(x: Tensor, floor: float) -> Tensor:
        return x + torch.einsum("...i->...", x).clamp(min=floor).unsqueeze(-1)

    recorded = record(Written(lambda x: summed(x, -1e6)).eval(), torch.randn(4, 8))
    found = verify(recorded, Written(lambda x: summed(x, -1e5)).eval())
    assert found.verdict == "diverged"


def test_a_candidate_that_goes_through_its_samples_one_by_one_matches_a_recording(
    rectified: Certificate,
) -> None:
    class OneByOne(Written):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super(OneByOne, self).forward(each[None]) for each in x])

    assert verify(rectified, OneByOne(nn.functional.relu).eval()).verdict == "match"
    assert verify(rectified, OneByOne(nn.functional.gelu).eval()).verdict == "diverged"


def test_a_half_precision_alone_does_not_vouch_for_a_way_that_float64_has_not_seen() -> None:
    class Wrong(Written):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = super().forward(x)
            return found * 1.002 if len(x) > 2 else found

    recorded = record(Written(nn.functional.relu).eval(), torch.randn(8, 8), cells=["cpu/bfloat16"])
    found = verify(recorded, Wrong(nn.functional.relu).eval(), cells=["cpu/bfloat16"])
    assert found.verdict == "inconclusive"
    assert "takes another way" in found.reason


def test_operators_that_stand_on_one_side_alone_are_told_as_not_exercised(rectified: Certificate) -> None:
    found = verify(rectified, Written(lambda x: x.relu().clamp(-1e3, 1e3)).eval())
    assert found.exercise is not None
    assert any("clamp" in each.summary for each in found.exercise.unexercised) or found.verdict == "diverged"
