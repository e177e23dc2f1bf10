"""Recordings made under other releases of torch and transformers, compared under these: `nox -s releases`.

`python -m tests.releases record PLACE` under the others, then `python -m tests.releases compare PLACE`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from verifier import record, recording, verify

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = ("torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:vit_b_32")
SIZES = {"vit_b_32": 224}
WIDTHS: dict[str, Any] = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDTHS |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
WIDTHS |= {"num_attention_heads": 4, "num_key_value_heads": 2}


class Logits(nn.Module):
    """A language model of transformers that returns its logits alone."""

    def __init__(self, kind: str, **changes: Any) -> None:
        import transformers

        super().__init__()
        config = getattr(transformers, f"{kind}Config")(**WIDTHS, use_cache=False, **changes)
        self.model = getattr(transformers, f"{kind}ForCausalLM")(config)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids).logits
        return logits


def language(kind: str, **changes: Any) -> nn.Module:
    """A model of numbers that no release of torch draws."""
    model, draws = Logits(kind, **changes).eval(), np.random.default_rng(0)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.from_numpy(0.1 * draws.normal(size=tuple(parameter.shape))))
    return model


LANGUAGE: dict[str, Callable[..., nn.Module]] = {
    kind: partial(language, kind) for kind in ("Llama", "Qwen2", "Phi3")
}


def ids(seed: int = 1) -> Tensor:
    """Two sequences of sixteen tokens."""
    return torch.from_numpy(np.random.default_rng(seed).integers(3, 97, (2, 16)))


def images(spec: str) -> Tensor:
    """Four pictures of the size that a network takes."""
    size = SIZES.get(spec.partition(":")[2], 64)
    return torch.from_numpy(np.random.default_rng(2).normal(size=(4, 3, size, size))).float()


def served(kind: str, path: Path, **changes: Any) -> None:
    """Passes of a model that its own process drives."""
    model = language(kind, **changes)
    with torch.inference_mode(), recording(path, model):
        for seed in range(2):
            model(ids(seed))


def record_all(place: Path) -> None:
    """Everything that is compared later."""
    for spec in IMAGES:
        record(spec, images(spec), weights="calibrated").save(place / f"{spec.partition(':')[2]}.safetensors")
    for kind, make in LANGUAGE.items():
        record(make(), ids()).save(place / f"{kind}.safetensors")
        served(kind, place / f"{kind}.passes.safetensors")


def compare_all(place: Path) -> int:
    """How many verdicts are not what they should be."""
    said: dict[str, tuple[str, str]] = {}
    for spec in IMAGES:
        found = verify(place / f"{spec.partition(':')[2]}.safetensors", spec, images(spec))
        said[spec] = str(found.verdict), "match"
    for kind, make in LANGUAGE.items():
        here = place / f"{kind}.here.safetensors"
        for changes, wanted in (({}, "match"), ({"rms_norm_eps": 1e-3}, "diverged")):
            name = f"{kind} {changes or ''}".strip()
            found = verify(place / f"{kind}.safetensors", make(**changes), ids())
            said[f"{name}, certificate"] = str(found.verdict), wanted
            served(kind, here, **changes)
            found = verify(place / f"{kind}.passes.safetensors", here)
            said[f"{name}, passes"] = str(found.verdict), wanted
    for name, (verdict, wanted) in said.items():
        print(f"{name:<45}{verdict:<14}{'' if verdict == wanted else f'not {wanted}'}".rstrip())
    return sum(verdict != wanted for verdict, wanted in said.values())


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "record":
        record_all(where)
    elif compare_all(where):
        sys.exit(1)
