"""Small models that processes train between them, right or with a fault, as `TRAINED` in the environment says.

`TRAINED` is `MODEL/STYLE/RECIPE/FAULT`, such as `llama/hand/adamw-clip/copy`; `whole` builds the baseline, `part`
this process's part of the candidate, `alone` and `together` train them.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tests.mutants.shards.differentiable import added, of_parts
from tests.mutants.shards.networks import TIME, WORDS, Llama, ViT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

AT = 1  # the layer in which faults are
PLACE = "layers.1.mlp.down.weight"  # the parameter that they are about
SHARED = frozenset({"ddp", "ddp_inside", "average", "fsdp", "mesh", "torch_mesh"})
"""Styles of which two groups share the samples."""
BY_TORCH = frozenset({"tensor", "torch_sequence", "torch_mesh"})
"""Styles with `parallelize_module`, which takes no uneven parts."""


def case() -> tuple[str, str, str, str]:
    """Model, style, recipe, fault."""
    model, style, recipe, fault = os.environ["TRAINED"].split("/")
    return model, style, recipe, fault


def fault(name: str) -> bool:
    """Whether this one is planted."""
    return case()[3] == name


def last() -> bool:
    """Whether this is the last rank."""
    return dist.get_rank() == dist.get_world_size() - 1


def whole() -> nn.Module:
    """The baseline."""
    kind, style, _, _ = case()
    os.environ["SHARDS"] = f"{kind}/{'tensor' if style in BY_TORCH else 'hand'}/none"
    torch.manual_seed(0)
    model: Any = ViT() if kind == "vit" else Llama("llama" if kind == "tied" else kind)
    model.layers = model.layers[:2]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if style in BY_TORCH:
        for layer in model.layers:
            layer.attn.norm = nn.Identity()
    if kind == "tied":
        model.head.weight = model.emb.weight
    made: nn.Module = model
    return made


def part() -> nn.Module:
    """This process's part of the candidate."""
    from tests.mutants.shards import learners

    made: nn.Module = getattr(learners, case()[1])(whole())
    return made


def batches() -> list[tuple[Tensor, Tensor]]:
    """Four samples each."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(4):
        if case()[0] == "vit":
            images = torch.randn(4, 3, 16, 16, generator=generator)
            found.append((images, torch.randint(0, WORDS, (4,), generator=generator)))
        else:
            words = torch.randint(0, WORDS, (4, TIME + 1), generator=generator)
            found.append((words[:, :-1], words[:, 1:]))
    return found


def loss_of(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over all words, or pictures."""
    scores = scores.mean(1) if labels.dim() == 1 else scores
    return F.cross_entropy(scores.flatten(0, -2), labels.flatten())


def _every() -> int:
    return 2 if "accumulate" in case()[2] else 1


def alone(model: nn.Module, given: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Train the whole."""
    optimiser, every = made(model.parameters()), _every()
    optimiser.zero_grad()
    for number, (inputs, labels) in enumerate(given, 1):
        torch.autograd.backward(loss_of(model(inputs), labels) / every)
        if number % every == 0:
            if "clip" in case()[2]:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimiser.step()
            optimiser.zero_grad()


def made(parameters: Iterable[nn.Parameter], **otherwise: Any) -> torch.optim.Optimizer:
    """The recipe's optimiser."""
    given = list(parameters)
    if case()[2].startswith("adamw"):
        options = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1, "foreach": False, **otherwise}
        return torch.optim.AdamW(given, **options)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "foreach": False, **otherwise}
    return torch.optim.SGD(given, **options)


def _optimiser(model: nn.Module) -> torch.optim.Optimizer:
    """The candidate's, with what goes wrong in it."""
    adam = case()[2].startswith("adamw")
    otherwise: dict[str, Any] = {}
    if fault("rate") or (fault("rate-one") and last()):
        otherwise["lr"] = 0.02
    if fault("decay") or (fault("decay-one") and last()):
        otherwise["weight_decay"] = 0.0
    if fault("beta") or (fault("beta-one") and last()):
        otherwise |= {"betas": (0.9, 0.999)} if adam else {"momentum": 0.8}
    left_out = [p for n, p in model.named_parameters() if fault("left-out") and last() and _is(n)]
    taken = [p for p in model.parameters() if all(p is not each for each in left_out)]
    return made(taken, **otherwise)


def _is(name: str) -> bool:
    """Whether a parameter is the one that faults are about, whatever wraps it."""
    plain = name.replace("module.", "").removeprefix("model.")
    return plain == ("layers.1.mlp.experts.3.up.weight" if case()[0] == "moe" else PLACE)


def together(model: Any, given: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Train this process's part."""
    from tests.mutants.shards import learners

    style, every = case()[1], _every()
    optimiser = _optimiser(model)
    for name, parameter in model.named_parameters():
        if fault("frozen") and last() and _is(name):
            parameter.requires_grad_(False)
    backward: Callable[..., None] = getattr(learners, f"{style}_backward", _backward)
    trained = learners.inside(model) if style == "ddp_inside" else model
    optimiser.zero_grad()
    for number, (inputs, labels) in enumerate(given, 1):
        ends = number % every == 0
        with _waiting(trained, ends):
            backward(trained, inputs, labels, 1 if fault("undivided") else every)
        if not ends:
            continue
        if fault("clip-first"):
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        getattr(learners, f"{style}_sync", lambda _: None)(trained)
        learners.spoilt(trained)
        if "clip" in case()[2] and not fault("clip-first") and not fault("unclipped"):
            clipped(model, style)
        optimiser.step()
        if not (fault("uncleared") or (fault("uncleared-one") and last())):
            optimiser.zero_grad()
        if fault("reset") and number == 2 * every:
            optimiser.state.clear()
        if fault("reset-one") and number == 2 * every and last():
            optimiser.state.clear()


def _backward(model: nn.Module, inputs: Tensor, labels: Tensor, every: int) -> None:
    loss = loss_of(model(inputs), labels)
    if fault("loss-sum"):
        loss = loss * len(labels)
    torch.autograd.backward(loss / every)


@contextlib.contextmanager
def _waiting(model: Any, ends: bool) -> Iterator[None]:
    """Nothing is added up before the last portion, as is usual."""
    if hasattr(model, "no_sync"):
        with contextlib.nullcontext() if ends and not fault("no-sync") else model.no_sync():
            yield
    else:
        if hasattr(model, "set_requires_gradient_sync"):
            model.set_requires_gradient_sync(ends and not fault("no-sync"))
        yield


def clipped(model: nn.Module, style: str) -> None:
    """Clip by the norm of all gradients."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    if fault("clip-local"):
        squares = sum(_local(p.grad).square().sum() for p in parameters)
        scale = (0.5 / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    elif any(hasattr(p, "placements") for p in parameters) or style in ("ddp", "ddp_inside", "average"):
        nn.utils.clip_grad_norm_(parameters, 0.5)
        return
    else:
        from tests.mutants.shards import learners

        own, group = of_parts(model), learners.inner(style)
        everywhere = style in ("pipeline", "scheduled")
        parts = [_local(p.grad).square().sum() for p in parameters if everywhere or id(p) in own]
        copies = [_local(p.grad).square().sum() for p in parameters if not everywhere and id(p) not in own]
        zero = torch.zeros((), dtype=parameters[0].dtype)
        squares = added(sum(parts, zero), group) + sum(copies, zero)
        if fault("clip-copies"):  # what all have is counted on each
            squares = added(sum(parts, zero) + sum(copies, zero), group)
        scale = (0.5 / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        _local(parameter.grad).mul_(scale)


def _local(tensor: Any) -> Any:
    return getattr(tensor, "_local_tensor", tensor)
