"""Families of timm and transformers, built small: each against a copy of itself, and against one with a fault.

With `attention` the copy has its attention written out where the family's is fused.

    python -m tests.zoo.families timm --count 60 --json timm.json
    python -m tests.zoo.families transformers --count 60 --every 3 --json transformers.json
    python -m tests.zoo.families attention --count 10

A copy must match and none be refused; a planted fault must be found, and its module be the only culprit.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import re
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from verifier import VerifierError, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LARGEST = 30_000_000  # parameters of what still counts as small
_PATIENCE = 4.0  # seconds that one bare forward may take


class Family(NamedTuple):
    """A family by name, with one of its networks and what it takes; `other` is it with attention written out."""

    name: str
    model: nn.Module
    inputs: dict[str, Any] | tuple[Tensor, ...]
    other: nn.Module | None = None

    def copied(self) -> nn.Module:
        """A candidate of its own."""
        return copy.deepcopy(self.other or self.model)


def of_timm() -> Iterator[Family]:
    """One network of each of timm's modules, the smallest by name, at the smallest size it takes."""
    import timm

    listed: dict[str, list[str]] = {}
    for name in timm.list_models():
        listed.setdefault(timm.models.model_entrypoint(name).__module__.rpartition(".")[2], []).append(name)
    for module, names in sorted(listed.items()):
        name = min(
            names,
            key=lambda each: (not re.search("tiny|nano|pico|atto|femto|test|xxs|18|_s$|b0", each), each),
        )
        for size in (64, 96, 224):
            with contextlib.suppress(Exception):
                options: dict[str, Any] = {"num_classes": 7} | ({"img_size": size} if "vit" in name else {})
                with torch.device("meta"):
                    if _parameters(timm.create_model(name, **options)) > _LARGEST:
                        break
                torch.manual_seed(0)
                model = _filled(timm.create_model(name, **options))
                found = Family(module, model.eval(), (torch.randn(2, 3, size, size),))
                if _runs(found):
                    yield found
                    break


def _filled(model: nn.Module) -> nn.Module:
    """The model without weights of 0, as constructors leave heads and last gains, which hide what is before them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any() and name.rpartition(".")[2] != "bias":
                parameter.normal_(0.5 if parameter.dim() < 2 else 0.0, 0.05)
    return model


# What makes a configuration small, by the names that families give it.
_SMALL: Mapping[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "decoder_hidden_size", "hidden_dim"), 32
    ),
    **dict.fromkeys(
        ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"), 48
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers", "n_layers"), 2
    ),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "decoder_num_hidden_layers", "mlp_dim"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "decoder_num_attention_heads"), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    "vocab_size": 99,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "embedding_size": 16,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "image_size": 32,
    "patch_size": 8,
    "decoder_intermediate_size": 48,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def _shrink(config: Any) -> None:
    for name, value in _SMALL.items():
        held = getattr(config, name, None)
        if isinstance(held, int) and (not isinstance(value, int) or isinstance(value, bool) or held > value):
            with contextlib.suppress(Exception):
                setattr(config, name, value)
    for name, held in list(vars(config).items()):
        if name.endswith("_config") and hasattr(held, "to_dict"):
            _shrink(held)
        if name == "layer_types" and isinstance(held, list):
            config.layer_types = held[-getattr(config, "num_hidden_layers", 2) :]


def of_attention() -> Iterator[Family]:
    """Those of transformers' families whose attention is fused, and can be had operator by operator."""
    from transformers import AutoModel

    build: Any = AutoModel.from_config
    for family in of_transformers():
        model: Any = family.model
        with contextlib.suppress(Exception):
            if model.config._attn_implementation == "sdpa":
                other = build(copy.deepcopy(model.config), attn_implementation="eager").eval()
                other.load_state_dict(model.state_dict())
                yield family._replace(other=other)


def of_transformers() -> Iterator[Family]:
    """Each of transformers' families whose small configuration builds and runs."""
    import transformers

    build: Any = transformers.AutoModel.from_config
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    for kind in sorted(transformers.models.auto.modeling_auto.MODEL_MAPPING_NAMES):
        with contextlib.suppress(Exception):
            torch.manual_seed(0)
            config = transformers.CONFIG_MAPPING[kind]()
            _shrink(config)
            with torch.device("meta"):
                if _parameters(build(config)) > _LARGEST:
                    continue
            model = build(config).eval()
            for inputs in _given(model, config):
                found = Family(kind, model, inputs)
                if _runs(found):
                    yield found
                    break


def _given(model: nn.Module, config: Any) -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 60, (2, 9), generator=generator)
    size = getattr(config, "image_size", None) or 32
    size = size if isinstance(size, int) else 32
    pictures = torch.randn(2, getattr(config, "num_channels", 3), size, size, generator=generator)
    name = getattr(model, "main_input_name", "input_ids")
    if name == "pixel_values":
        yield {"pixel_values": pictures}
        yield {"pixel_values": pictures, "input_ids": ids}
        yield {"pixel_values": torch.randn(2, 3, 64, 64, generator=generator)}
    elif name == "input_values":
        yield {"input_values": torch.randn(2, 4000, generator=generator)}
    elif name == "input_features":
        bins = getattr(config, "num_mel_bins", 80)
        yield {"input_features": torch.randn(2, bins, 32, generator=generator), "decoder_input_ids": ids}
        yield {"input_features": torch.randn(2, 32, bins, generator=generator)}
    else:
        yield {"input_ids": ids}
        yield {"input_ids": ids, "decoder_input_ids": ids}
        yield {"input_ids": ids, "pixel_values": pictures}


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _runs(family: Family) -> bool:
    started = time.perf_counter()
    with torch.no_grad():
        _called(family.model, family.inputs)
    return time.perf_counter() - started < _PATIENCE


def _called(model: nn.Module, inputs: dict[str, Any] | tuple[Tensor, ...]) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def _eps(module: nn.Module) -> None:
    name = next(name for name in ("eps", "variance_epsilon") if hasattr(module, name))
    setattr(module, name, 0.1)


def _scaled(module: nn.Module) -> None:
    with torch.no_grad():
        next(p for p in module.parameters(recurse=False) if p.dim() > 1)[1] *= 1.05


def _turned(module: nn.Module) -> None:
    with torch.no_grad():
        weight = next(p for p in module.parameters(recurse=False) if p.dim() > 1)
        weight.copy_(weight.roll(1, 0))


def _is_norm(module: nn.Module) -> bool:
    named = hasattr(module, "eps") or hasattr(module, "variance_epsilon")
    return named and not list(module.children()) and any(True for _ in module.parameters(recurse=False))


def _multiplies(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d) or type(module).__name__ == "Conv1D"


FAULTS: tuple[tuple[str, Callable[[nn.Module], bool], Callable[[nn.Module], None]], ...] = (
    ("eps", _is_norm, _eps),
    ("a row of a weight times 1.05", _multiplies, _scaled),
    ("rows of a weight one further", _multiplies, _turned),
)


def _called_modules(family: Family) -> list[tuple[str, nn.Module]]:
    """The modules that a forward pass calls, in that order, once each."""
    seen: dict[str, nn.Module] = {}

    def called(module: nn.Module, *_: object) -> None:
        seen.setdefault(names[module], module)

    names = {module: name for name, module in family.model.named_modules()}
    hooks = [module.register_forward_hook(called) for module in names]
    with torch.no_grad():
        _called(family.model, family.inputs)
    for hook in hooks:
        hook.remove()
    return list(seen.items())


def planted(family: Family, number: int) -> tuple[str, str, nn.Module] | None:
    """One of the faults in a module in the middle: what it is, where, and the model that has it."""
    called = _called_modules(family)
    hidden = None  # what shows in last bits alone, where a network has all but lost its signal
    for k in range(len(FAULTS)):
        what, fits, change = FAULTS[(number + k) % len(FAULTS)]
        places = [name for name, module in called if fits(module)]
        for place in [*places[len(places) // 2 :], *places[: len(places) // 2]]:
            faulty = family.copied()
            change(faulty.get_submodule(place))
            if _differ(family, faulty, 1e-4, 1e-6):
                return what, place, faulty
            if hidden is None and _differ(family, faulty, 0.0, 0.0):
                hidden = what, place, faulty
    return hidden


def _differ(family: Family, faulty: nn.Module, relative: float, absolute: float) -> bool:
    """Whether the fault shows in anything that is returned."""
    with torch.no_grad():
        results = [_called(model, family.inputs) for model in (family.model, faulty)]
    a, b = ([t for t in _leaves(each) if isinstance(t, Tensor)] for each in results)
    return any(
        x.shape != y.shape or not torch.allclose(x, y, rtol=relative, atol=absolute)
        for x, y in zip(a, b, strict=True)
    )


def _leaves(value: Any) -> Iterator[Any]:
    if hasattr(value, "to_tuple"):
        value = value.to_tuple()
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def examined(family: Family, number: int) -> dict[str, Any]:
    """What was said of the family against itself and against a fault."""
    found: dict[str, Any] = {"family": family.name}
    started = time.perf_counter()
    with contextlib.suppress(VerifierError):
        found["self"] = "refused"
        result = verify(family.model, family.copied(), family.inputs)
        found["self"] = result.verdict.value
        found["reason"] = result.reason
    fault = planted(family, number)
    if fault is not None:
        what, place, faulty = fault
        found |= {"fault": what, "place": place, "verdict": "refused", "culprits": []}
        with contextlib.suppress(VerifierError):
            result = verify(family.model, faulty, family.inputs)
            culprits = [row.baseline or "" for row in result.culprits]
            found |= {"verdict": result.verdict.value, "culprits": culprits}
    # The second call of a module that is called twice is named like the first, with a number.
    sites = [re.sub(r"_\d+$", "", each) for each in found.get("culprits", ())]
    places = {site == found["place"] or site.startswith(f"{found['place']}.") for site in sites}
    found["exact"] = places == {True}
    found["seconds"] = round(time.perf_counter() - started, 1)
    return found


KINDS = {"timm": of_timm, "transformers": of_transformers, "attention": of_attention}


def main() -> None:
    """Examine families of a library and count what is right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--every", type=int, default=1, help="take each so many of those there are")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows: list[dict[str, Any]] = []
    families = KINDS[given.kind]()
    for family in itertools.islice(families, 0, None, given.every):
        if len(rows) >= given.count:
            break
        if given.only and family.name not in given.only.split(","):
            continue
        rows.append(examined(family, len(rows)))
        print(json.dumps(rows[-1]), flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(rows, indent=1))
    faulty = [row for row in rows if "fault" in row]
    print(
        f"{len(rows)} families against themselves: {dict(Counter(row['self'] for row in rows))}; "
        f"{len(faulty)} faults: {dict(Counter(row['verdict'] for row in faulty))}, "
        f"exact {sum(row['exact'] for row in faulty)}"
    )


if __name__ == "__main__":
    main()
