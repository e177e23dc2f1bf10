"""Networks in torch are compared with what Flax has dumped: the right ones match, a fault is found where it is."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

import verifier
from tests.verifier.dumps.nets import HERE, Block, ConvNet, Recurrent, arrays, inputs
from verifier import Policy, verify
from verifier.judge import CRITERIA, judge_again

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from verifier import Verification


def turned(name: str) -> Tensor:
    """What went in with its first two dimensions exchanged: (time, batch)."""
    return inputs(name).transpose(0, 1).contiguous()


def first(found: Verification) -> tuple[str | None, str | None] | None:
    row = found.first_divergence
    return None if row is None else (row.baseline, row.candidate)


def compared(found: Verification) -> set[str]:
    return {row.baseline for row in found.layers if row.baseline is not None and row.total is not None}


def test_a_convnet_in_the_other_order_of_dimensions_matches_at_every_tensor() -> None:
    found = verify(HERE / "convnet.npz", ConvNet(), inputs("convnet"))
    assert found.verdict == "match"
    assert [cell.name for cell in found.cells] == ["cpu/float32"]
    dumped = [name for name in arrays("convnet") if name.startswith("intermediates")]
    assert compared(found) == {"inputs", *dumped} - {"intermediates/__call__"}  # which is Dense_0 once more
    assert {row.layout for row in found.layers} == {"permute(0, 3, 1, 2)", ""}
    assert found.weights.parameter_map["body.weight"] == "params/Conv_1/kernel.permute(3, 2, 0, 1)"
    assert found.weights.parameter_map["head.weight"] == "params/Dense_0/kernel.permute(1, 0)"
    assert len(found.weights.parameter_map) == len([n for n in arrays("convnet") if n.startswith(("p", "b"))])
    assert found.static == ()
    assert found.output is not None
    assert found.output.top1_agreement == 1


@pytest.mark.parametrize(
    ("fault", "dumped", "site"),
    [
        ("eps", "BatchNorm_1/__call__", "bn2"),
        ("activation", "gelu_0", "gelu"),
        ("padding", "Conv_1/__call__", "body"),
        ("swapped axes", "Conv_1/__call__", "body"),
        ("weight", "Conv_1/__call__", "body"),
        ("flipped", "Conv_1/__call__", "body"),
    ],
)
@pytest.mark.parametrize("dump", ["convnet", "convnet64"])
def test_a_fault_of_a_convnet_is_the_only_culprit(dump: str, fault: str, dumped: str, site: str) -> None:
    found = verify(HERE / f"{dump}.npz", ConvNet(fault), inputs("convnet"))
    assert first(found) == (f"intermediates/{dumped}", site)
    assert [row.candidate for row in found.culprits] == [site]


def test_a_weight_that_differs_is_named_as_the_likely_cause() -> None:
    found = verify(HERE / "convnet.npz", ConvNet("weight"), inputs("convnet"))
    (cause,) = (row.cause for row in found.culprits)
    assert cause is not None
    assert cause.code == "weight-perturbed"
    assert not cause.confirmed
    kernel = arrays("convnet")["params/Conv_1/kernel"]
    error = 0.5 / np.sqrt((kernel.astype(np.float64) ** 2).sum())
    assert f"body.weight differs by a relative error of {error:.1e}" in cause.summary
    assert "params/Conv_1/kernel" in cause.summary
    assert [(each.baseline, each.candidate) for each in found.static] == [
        ("params/Conv_1/kernel", "body.weight")
    ]


def test_float64_is_judged_as_semantics() -> None:
    found = verify(HERE / "convnet64.npz", ConvNet(), inputs("convnet"))
    assert found.verdict == "match"
    assert [(cell.name, cell.role) for cell in found.cells] == [("cpu/float64", "semantics")]
    assert max(row.total.nrmse for row in found.layers if row.total is not None) < 1e-14


def test_a_difference_that_float32_hides_shows_in_float64() -> None:
    model = ConvNet()
    model.bn2.eps *= 1 + 1e-3
    assert verify(HERE / "convnet.npz", model, inputs("convnet")).verdict == "match"
    assert first(verify(HERE / "convnet64.npz", model, inputs("convnet"))) == (
        "intermediates/BatchNorm_1/__call__",
        "bn2",
    )


@pytest.mark.parametrize("seq_first", [False, True])
def test_a_transformer_block_matches_whichever_of_batch_and_time_comes_first(seq_first: bool) -> None:
    given = turned("block") if seq_first else inputs("block")
    found = verify(HERE / "block.npz", Block(seq_first=seq_first), given)
    assert found.verdict == "match"
    inside = {
        f"intermediates/MultiHeadDotProductAttention_0/{part}/__call__" for part in ("query", "key", "value")
    }
    assert {each.name for each in found.coverage.unmatched if each.side == "baseline"} == inside
    ends = {row.baseline: row.layout for row in found.layers}
    assert ends["intermediates/Dense_2/__call__"] == ("permute(1, 0, 2)" if seq_first else "")
    (note,) = (note for note in found.notes if "dumped parameters are" in note)
    assert note.startswith("19 of the 19")  # query, key and value among them, which torch keeps in one


@pytest.mark.parametrize(
    ("fault", "dumped", "site"),
    [
        ("eps", "LayerNorm_1/__call__", "ln2"),
        ("activation", "gelu_0", "relu"),
        ("post-norm", "add_1", "add_1"),
        ("no residual", "Dense_2/__call__", "head"),
        ("swapped axes", "Dense_2/__call__", "output"),
        (
            "transposed weight",
            "MultiHeadDotProductAttention_0/out/__call__",
            "attn.multi_head_attention_forward",
        ),
    ],
)
def test_a_fault_of_a_block_is_the_only_culprit(fault: str, dumped: str, site: str) -> None:
    found = verify(HERE / "block.npz", Block(fault), inputs("block"))
    assert first(found) == (f"intermediates/{dumped}", site)
    assert [row.candidate for row in found.culprits] == [site]
    if fault == "transposed weight":  # square, so that its shape tells nothing
        (cause,) = (row.cause for row in found.culprits)
        assert cause is not None
        assert cause.code == "weight-transposed"
        assert "attn.out_proj.weight" in cause.summary
    if fault == "no residual":
        assert "without a partner: intermediates/add_1" in found.culprits[0].reason


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("", None),
        ("gates", ("intermediates/RNN_0/__call__", "lstm")),
        ("reversed", ("intermediates/Dense_0/__call__", "up")),
        ("activation", ("intermediates/relu_0", "leaky_relu")),
    ],
)
def test_an_lstm_over_time_and_batch_is_held_against_batch_and_time(
    fault: str, where: tuple[str, str] | None
) -> None:
    found = verify(HERE / "lstm.npz", Recurrent(fault), turned("lstm"))
    assert first(found) == where
    assert found.verdict == ("match" if where is None else "diverged")


@pytest.mark.parametrize("kind", ["folder", "zip", "safetensors", "npz in a folder"])
def test_a_dump_may_come_in_any_form_and_order(kind: str, tmp_path: Path) -> None:
    found = dict(sorted(arrays("convnet").items(), reverse=True))
    path = tmp_path / {"zip": "dump.zip", "safetensors": "dump.safetensors"}.get(kind, "dump")
    if kind == "safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, path)
    elif kind == "npz in a folder":
        path.mkdir()
        np.savez(path / "all.npz", allow_pickle=False, **found)
    elif kind == "folder":
        for name, array in found.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(path / f"{name}.npy", array)
        (path / "README").write_text("no array", encoding="utf-8")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in found.items():
                data = io.BytesIO()
                np.save(data, array)
                archive.writestr(f"{name}.npy", data.getvalue())
    assert verify(path, ConvNet(), inputs("convnet")).verdict == "match"
    assert [row.candidate for row in verify(path, ConvNet("eps"), inputs("convnet")).culprits] == ["bn2"]


def saved(path: Path, keep: Any, **more: np.ndarray[Any, Any]) -> Path:
    """A dump of the convnet's tensors whose names `keep` accepts, and more."""
    np.savez(path, allow_pickle=False, **{k: v for k, v in arrays("convnet").items() if keep(k)}, **more)
    return path


def test_logits_alone_are_enough(tmp_path: Path) -> None:
    path = saved(tmp_path / "logits.npz", lambda name: name == "intermediates/__call__")
    assert verify(path, ConvNet(), inputs("convnet")).verdict == "match"
    found = verify(path, ConvNet("eps"), inputs("convnet"))
    assert first(found) == ("intermediates/__call__", "head")


def test_numbered_tensors_without_names_are_aligned_by_order(tmp_path: Path) -> None:
    dumped = [
        v for k, v in arrays("convnet").items() if k.startswith("inter") and k != "intermediates/__call__"
    ]
    for k, array in enumerate(dumped):
        np.save(tmp_path / f"t{k}.npy", array)
    sites = ["stem", "bn1", "relu", "max_pool2d", "body", "bn2", "gelu", "head"]
    for fault in ("", "eps", "activation"):
        found = verify(tmp_path, ConvNet(fault), inputs("convnet"))
        assert [(row.baseline, row.candidate) for row in found.layers] == [
            (f"t{k}", site) for k, site in enumerate(sites)
        ]


@pytest.mark.parametrize("policy", [Policy(), CRITERIA, Policy(minimum_coverage=0.0)])
@pytest.mark.parametrize("fault", ["softmax", "no head", ""])
def test_without_the_outputs_there_is_no_match(fault: str, policy: Policy, tmp_path: Path) -> None:
    """What comes behind, or is not in the dump, has not been compared: by no policy, then or later."""
    path = HERE / "convnet.npz"
    if not fault:
        path = saved(tmp_path / "inner.npz", lambda name: "Conv" in name or "Batch" in name)
    found = verify(path, ConvNet(fault), inputs("convnet"), policy=policy)
    assert found.verdict == "inconclusive"
    assert "was not compared" in found.reason
    assert judge_again(found, policy).verdict == "inconclusive"


def test_what_criteria_excuse_is_no_match_without_the_outputs(tmp_path: Path) -> None:
    whole = verify(HERE / "convnet.npz", ConvNet("eps"), inputs("convnet"))
    assert judge_again(whole, CRITERIA).verdict == "match"  # as the published criteria have it
    path = saved(tmp_path / "inner.npz", lambda name: "Conv" in name or "Batch" in name)
    inner = verify(path, ConvNet("eps"), inputs("convnet"))
    assert inner.verdict == "diverged"
    assert judge_again(inner, CRITERIA).verdict == "inconclusive"
    assert verify(path, ConvNet("eps"), inputs("convnet"), policy=CRITERIA).verdict == "inconclusive"


def test_a_dump_that_goes_on_behind_the_output_is_no_match(tmp_path: Path) -> None:
    logits = arrays("convnet")["intermediates/__call__"]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    path = saved(tmp_path / "more.npz", lambda name: name.startswith("inter"), probabilities=scores)
    found = verify(path, ConvNet(), inputs("convnet"))
    assert found.verdict == "inconclusive"
    assert "probabilities of the dump" in found.reason
    assert verify(path, ConvNet("softmax"), inputs("convnet")).verdict == "match"


def test_what_is_of_another_network_is_told_in_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.ones((3, 7)), b=np.arange(24.0).reshape(4, 6))
    found = verify(tmp_path / "other.npz", ConvNet(), inputs("convnet"))
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("none of the 2 dumped tensors could be aligned with the candidate")


def test_other_inputs_are_the_first_divergence() -> None:
    other = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = verify(HERE / "convnet.npz", ConvNet(), other)
    assert first(found) == ("inputs", "[0]")


def test_an_output_in_another_layout_that_nothing_bears_out_is_left_open(tmp_path: Path) -> None:
    """Nobody knows then whether all of the candidate is turned, or its output alone is."""
    logits = arrays("block")["intermediates/__call__"]
    np.savez(tmp_path / "logits.npz", logits=logits)
    np.savez(tmp_path / "both.npz", logits=logits, inputs=arrays("block")["inputs"])
    model, given = Block(seq_first=True), turned("block")
    found = verify(tmp_path / "logits.npz", model, given)
    assert found.verdict == "inconclusive"
    assert "permute(1, 0, 2)" in found.reason
    assert verify(tmp_path / "both.npz", model, given).verdict == "match"
    for name in ("logits", "both"):
        swapped = verify(tmp_path / f"{name}.npz", Block("swapped axes"), inputs("block"))
        assert first(swapped) == ("logits", "output")


def test_an_output_whose_dimensions_are_joined_is_left_open() -> None:
    class Joined(Block):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens).flatten(0, 1)

    found = verify(HERE / "block.npz", Joined(), inputs("block"))
    assert found.verdict == "inconclusive"
    assert "(reshape)" in found.reason


@pytest.mark.parametrize("seq_first", [False, True])
def test_as_many_samples_as_steps_are_told_apart(seq_first: bool, tmp_path: Path) -> None:
    tokens = torch.randint(0, 11, (5, 5), generator=torch.Generator().manual_seed(6))
    model, kept = Block(), {"inputs": tokens}
    for name, module in model.named_children():
        if not isinstance(module, nn.MultiheadAttention):
            module.register_forward_hook(lambda _, __, y, name=name: kept.update({name: y.detach()}))
    model(tokens)
    np.savez(tmp_path / "a.npz", allow_pickle=False, **{k: v.numpy() for k, v in kept.items()})
    given = tokens.T.contiguous() if seq_first else tokens
    assert verify(tmp_path / "a.npz", Block(seq_first=seq_first), given).verdict == "match"
    swapped = verify(tmp_path / "a.npz", Block("swapped axes", seq_first=seq_first), given)
    assert first(swapped) == ("head", "output")
    assert [row.candidate for row in verify(tmp_path / "a.npz", Block("eps"), tokens).culprits] == ["ln2"]


class Square(nn.Module):
    """As many channels as rows and columns: no shape tells how a tensor is laid out."""

    def __init__(self, *, swap: bool = False) -> None:
        super().__init__()
        self.swap = swap

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(x).transpose(2, 3) if self.swap else torch.tanh(x)
        return torch.relu(y) - 0.25


@pytest.mark.parametrize("last", [False, True])
def test_exchanged_axes_are_no_layout_where_all_sizes_are_one(last: bool, tmp_path: Path) -> None:
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    y = torch.tanh(x)
    tensors = {"t0": y, "t1": torch.relu(y), "t2": torch.relu(y) - 0.25}
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    for with_input in (True, False):
        shown = {**({"x": x} if with_input else {}), **tensors}
        path = tmp_path / f"{with_input}.npz"
        np.savez(path, allow_pickle=False, **{k: v.permute(order).numpy() for k, v in shown.items()})
        if with_input or not last:
            assert verify(path, Square(), x).verdict == "match"
        assert first(verify(path, Square(swap=True), x)) == ("t1", "relu")


def test_a_difference_that_the_next_operator_cuts_off_is_one(tmp_path: Path) -> None:
    """What comes out agrees on these inputs, and would not on others."""

    class Cut(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.slope = slope

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(nn.functional.leaky_relu(x, self.slope)) * 3

    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))
    y = nn.functional.leaky_relu(x, 0.1)
    tensors = {"leaky_relu": y, "relu": y.relu(), "mul": y.relu() * 3}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **{k: v.numpy() for k, v in tensors.items()})
    assert verify(tmp_path / "a.npz", Cut(0.1), x).verdict == "match"
    assert first(verify(tmp_path / "a.npz", Cut(0.2), x)) == ("leaky_relu", "leaky_relu")


def test_a_factor_that_a_norm_takes_out_again_is_no_match(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.normalize(torch.tanh(x) * self.factor, eps=0.0) + 1

    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(4))
    y = torch.tanh(x) * 3
    z = nn.functional.normalize(y)
    tensors = {"tanh": torch.tanh(x), "mul": y, "normalize": z, "add": z + 1}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **{k: v.numpy() for k, v in tensors.items()})
    assert verify(tmp_path / "a.npz", Scaled(3.0), x).verdict == "match"
    found = verify(tmp_path / "a.npz", Scaled(4.0), x)
    assert found.verdict == "inconclusive"
    assert "mul of the dump" in found.reason


def test_numbers_that_are_not_finite_are_compared_as_they_are(tmp_path: Path) -> None:
    x = torch.tensor([[-1.0, 4.0, 0.0], [2.0, -3.0, 9.0]])

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt() + 1

    np.savez(tmp_path / "nan.npz", sqrt=x.sqrt().numpy(), add=(x.sqrt() + 1).numpy())
    assert verify(tmp_path / "nan.npz", Root(), x).verdict == "match"
    np.savez(tmp_path / "finite.npz", sqrt=x.abs().sqrt().numpy(), add=(x.abs().sqrt() + 1).numpy())
    assert first(verify(tmp_path / "finite.npz", Root(), x)) == ("sqrt", "sqrt")


def test_half_precision_that_was_widened_is_judged_as_such(tmp_path: Path) -> None:
    model = ConvNet().bfloat16()
    x = inputs("convnet")
    with torch.no_grad():
        y = model(x.bfloat16()).float().numpy()
    np.savez(tmp_path / "half.npz", logits=y)
    found = verify(tmp_path / "half.npz", ConvNet(), x)
    assert [cell.name for cell in found.cells] == ["cpu/bfloat16"]
    assert found.verdict == "match"


def test_a_result_is_saved_and_read_back(tmp_path: Path) -> None:
    for fault in ("padding", "weight"):
        found = verify(HERE / "convnet.npz", ConvNet(fault), inputs("convnet"))
        found.save(tmp_path / fault)
        assert repr(verifier.load(tmp_path / fault)) == repr(found)
    page = (tmp_path / "weight" / "report.html").read_text(encoding="utf-8")
    assert "body.weight differs by a relative error" in page
