"""Ways to spread the small models over processes, by hand and by torch, and what goes wrong on the way."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tests.mutants.shards.networks import LAYERS, Experts, Norm, _fault, hidden, rank, world

AT = 1  # the layer in which faults are


def summed(x: Tensor) -> Tensor:
    """The sum over all ranks."""
    x = x.contiguous().clone()
    dist.all_reduce(x)
    return x


def gathered(x: Tensor, axis: int, *, backwards: bool = False) -> Tensor:
    """The parts of all ranks, put together."""
    parts = [torch.empty_like(x.contiguous()) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts[::-1] if backwards else parts, axis)


class Column(nn.Module):
    """A part of a linear layer's outputs; `last` drops what is over."""

    def __init__(
        self, whole: nn.Linear, *, uneven: bool = False, gather: str = "", other: bool = False
    ) -> None:
        super().__init__()
        place = world() - 1 - rank() if other else rank()
        size = whole.out_features // world()
        cut = slice(place * size, (place + 1) * size)
        if not uneven and whole.out_features % world():
            cut = slice(*[whole.out_features * k // world() for k in (place, place + 1)])
        self.weight = nn.Parameter(whole.weight.detach()[cut].clone())
        self.bias = nn.Parameter(whole.bias.detach()[cut].clone())
        self.gather = gather

    def forward(self, x: Tensor) -> Any:
        y = F.linear(x, self.weight, self.bias)
        if not self.gather:
            return y
        if self.gather == "axis":
            return gathered(y, 1).reshape(*y.shape[:2], -1)
        return gathered(y, -1, backwards=self.gather == "backwards")


class Row(nn.Module):
    """A part of a linear layer's inputs; its result is summed over all ranks."""

    def __init__(
        self,
        whole: nn.Linear,
        *,
        reduced: int = 1,
        everywhere: bool = False,
        other: bool = False,
        scatter: str = "",
    ) -> None:
        super().__init__()
        place = world() - 1 - rank() if other else rank()
        cut = slice(*[whole.in_features * k // world() for k in (place, place + 1)])
        self.weight = nn.Parameter(whole.weight.detach()[:, cut].clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())
        self.reduced, self.everywhere, self.scatter = reduced, everywhere, scatter

    def forward(self, x: Tensor) -> Any:
        y = F.linear(x, self.weight, self.bias if self.everywhere else None)
        for _ in range(self.reduced):
            y = summed(y)
        if self.scatter:
            y = chunk(y)
        return y if self.everywhere else y + (self.bias if self.reduced or self.scatter or not rank() else 0)


class WideNorm(Norm):
    """A norm of what lies in parts on all ranks."""

    def __init__(self, whole: Norm) -> None:
        super().__init__(1)
        self.weight = nn.Parameter(whole.weight.detach().chunk(world())[rank()].clone())

    def forward(self, x: Tensor) -> Any:
        total = summed(x.pow(2).sum(-1, keepdim=True))
        return x * torch.rsqrt(total / (x.shape[-1] * world()) + 1e-6) * self.weight


class Own(nn.Module):
    """A dropout whose draws are each rank's own, or shared."""

    def __init__(self, share: float, *, alike: bool) -> None:
        super().__init__()
        self.share, self.alike = share, alike

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            return x
        with torch.random.fork_rng():
            torch.manual_seed(7 if self.alike else 7 + rank())
            return F.dropout(x, self.share)


def chunk(x: Tensor, axis: int = 1) -> Tensor:
    """This rank's part of a tensor."""
    return x.tensor_split(world(), axis)[rank()].contiguous()


def hand(model: Any) -> Any:
    """Columns and rows by hand, as Megatron has them."""
    for number, layer in enumerate(model.layers):
        here = number == AT
        attn, mlp = layer.attn, layer.mlp
        norm = attn.norm
        local = Norm(1)
        local.weight = nn.Parameter(norm.weight.detach().chunk(world())[rank()].clone())
        attn.norm = local if here and _fault("norm-local") else WideNorm(norm)
        attn.q, attn.k, attn.v = (Column(each) for each in (attn.q, attn.k, attn.v))
        attn.o = Row(attn.o, reduced=0 if here and _fault("unreduced") else 1, other=here and _fault("order"))
        for name in ("gate", "up"):
            if hasattr(mlp, name):
                setattr(mlp, name, Column(getattr(mlp, name), uneven=here and _fault("uneven")))
        if here and _fault("uneven"):
            size = hidden() // world()
            mlp.down.in_features = size * world()
        mlp.down = Row(
            mlp.down,
            reduced=2 if here and _fault("twice") else 1,
            everywhere=here and _fault("bias"),
        )
        if here and _fault("uneven"):
            mlp.down.weight = nn.Parameter(mlp.down.weight.detach()[:, : hidden() // world()])
        layer.drop, mlp.drop = (
            Own(0.3, alike=not (here and _fault("seed-differs"))),
            Own(0.3, alike=here and _fault("seed-shared")),
        )
        if here and _fault("replicas") and rank():
            with torch.no_grad():
                layer.n2.weight[3] += 0.1
    how = "axis" if _fault("axis") else "backwards" if _fault("gather-order") else "cat"
    model.head = Column(model.head, gather=how)
    return model


class InSequence(nn.Module):
    """A block of which norms and residuals are of a part of the sequence each."""

    def __init__(self, layer: Any, here: bool) -> None:
        super().__init__()
        self.n1, self.n2, self.attn, self.mlp = layer.n1, layer.n2, layer.attn, layer.mlp
        self.drop = nn.Identity()
        self.here = here

    def forward(self, x: Tensor) -> Any:
        x = x + self.attn(gathered(self.n1(x), 1, backwards=self.here and _fault("gather-order")))
        y = self.n2(x)
        y = (
            gathered(y, 0, backwards=False).reshape(y.shape[0], -1, y.shape[2])
            if self.here and _fault("axis")
            else gathered(y, 1)
        )
        return x + self.mlp(y)


def sequence(model: Any) -> Any:
    """Columns and rows, and the sequence in parts between them."""
    for number, layer in enumerate(model.layers):
        here = number == AT
        attn, mlp = layer.attn, layer.mlp
        attn.norm = WideNorm(attn.norm)
        attn.q, attn.k, attn.v = (Column(each) for each in (attn.q, attn.k, attn.v))
        attn.o = Row(
            attn.o,
            scatter="1",
            reduced=0 if here and _fault("unreduced") else 1,
            other=here and _fault("order"),
        )
        for name in ("gate", "up"):
            if hasattr(mlp, name):
                setattr(mlp, name, Column(getattr(mlp, name)))
        mlp.down = Row(
            mlp.down,
            scatter="1",
            reduced=2 if here and _fault("twice") else 1,
            everywhere=here and _fault("bias"),
        )
        if here and _fault("replicas") and rank():
            with torch.no_grad():
                layer.n2.weight[3] += 0.1
        model.layers[number] = InSequence(layer, here)
    return Parted(model)


class Parted(nn.Module):
    """A model that takes its part of the sequence, and gives all of it."""

    emb: Any
    patch: Any
    layers: Any
    norm: Any
    head: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name, module in model.named_children():
            setattr(self, name, module)
        if hasattr(model, "place"):
            self.place = model.place

    def forward(self, x: Tensor) -> Any:
        embedded = (
            self.emb(x) if hasattr(self, "emb") else self.patch(x).flatten(2).transpose(1, 2) + self.place
        )
        x = chunk(embedded)
        if _fault("last-dropped") and rank() == world() - 1:
            x = torch.cat([x[:, :-1], torch.zeros_like(x[:, :1])], 1)
        for layer in self.layers:
            x = layer(x)
        return self.head(gathered(self.norm(x), 1))


def tensor(model: Any) -> Any:
    """By `parallelize_module`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (world(),))
    for number, layer in enumerate(model.layers):
        here = number == AT
        norm = layer.attn.norm
        layer.attn.norm = WideNorm(norm)
        if here and _fault("norm-local"):
            local = Norm(1)
            local.weight = nn.Parameter(norm.weight.detach().chunk(world())[rank()].clone())
            layer.attn.norm = local
        plan: dict[str, Any] = {f"attn.{name}": ColwiseParallel() for name in "qkv"}
        plan["attn.o"] = RowwiseParallel()
        plan |= {f"mlp.{name}": ColwiseParallel() for name in ("gate", "up") if hasattr(layer.mlp, name)}
        plan["mlp.down"] = RowwiseParallel()
        if here and _fault("unreduced"):
            plan["attn.o"] = RowwiseParallel(output_layouts=None, use_local_output=False)
        parallelize_module(layer, mesh, plan)
        if here and _fault("unreduced"):
            _partial(layer.attn.o)
        if here and _fault("order"):
            with torch.no_grad():
                held = layer.attn.o.weight._local_tensor
                held.copy_(gathered(held, 1).chunk(world(), 1)[world() - 1 - rank()])
        if here and _fault("bias"):
            _bias_everywhere(layer.mlp.down)
        if here and _fault("twice"):
            layer.mlp.down.register_forward_hook(lambda m, a, y: summed(y))
        if here and _fault("replicas") and rank():
            with torch.no_grad():
                layer.n2.weight[3] += 0.1
    model.head = Column(
        model.head, gather="backwards" if _fault("gather-order") else "axis" if _fault("axis") else "cat"
    )
    return model


def _partial(module: Any) -> None:
    """Hand on this rank's own term, as a wrong output layout does."""

    def own(module: Any, args: Any, y: Any) -> Tensor:
        x = args[0]
        x = getattr(x, "_local_tensor", x)
        weight, bias = module.weight._local_tensor, module.bias._local_tensor
        return F.linear(x, weight, bias if not rank() else None)

    module._forward_hooks.clear()
    module._forward_pre_hooks.clear()
    module.forward = lambda x: own(module, (x,), None)


def _bias_everywhere(module: Any) -> None:
    module._forward_hooks.clear()
    module._forward_pre_hooks.clear()
    module.forward = lambda x: summed(F.linear(x, module.weight._local_tensor, module.bias._local_tensor))


def fsdp(model: Any) -> Any:
    """By `fully_shard`."""
    from torch.distributed.fsdp import fully_shard

    here = model.layers[AT]
    with torch.no_grad():
        if _fault("replicas") and rank():
            here.n2.weight.mul_(1.1)
        if _fault("down") and rank():
            here.mlp.down.weight.mul_(1.1)
        if _fault("bias-other") and rank():
            here.attn.o.bias.add_(0.1)
        if _fault("head") and rank():
            model.head.weight.mul_(0.9)
        if _fault("query") and rank():
            here.attn.q.weight.copy_(here.attn.k.weight)
        if _fault("norm") and rank():
            model.norm.weight.add_(0.05)
    for layer in model.layers:
        fully_shard(layer)
    if _fault("batch-order"):
        return fully_shard(Own_(model, "order"))
    if _fault("reduced"):
        here.mlp.register_forward_hook(lambda m, a, y: summed(y))
    return fully_shard(model)


class Own_(nn.Module):
    """Each rank a part of the batch, put together again."""

    def __init__(self, model: Any, how: str) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, x: Tensor) -> Any:
        return gathered(self.model(chunk(x, 0)), 0, backwards=self.how == "order")


def batch(model: Any) -> Any:
    """Each rank a part of the batch, parameters spread."""
    from torch.distributed.fsdp import fully_shard

    return fully_shard(Own_(model, ""))


class Stage(nn.Module):
    """A part of the layers; the batch goes through in parts."""

    emb: Any
    patch: Any
    norm: Any
    head: Any

    def __init__(self, model: Any, parts: int = 2) -> None:
        super().__init__()
        self.parts = parts
        first, last = LAYERS * rank() // world(), LAYERS * (rank() + 1) // world()
        for name, module in model.named_children():
            early = name in ("emb", "patch")
            if name != "layers" and ((early and not rank()) or (not early and rank() == world() - 1)):
                setattr(self, name, module)
        if hasattr(model, "place") and not rank():
            self.place = model.place
        self.layers = model.layers[first:last]

    def forward(self, x: Tensor) -> Any:
        made = []
        parts = list(x.chunk(self.parts))
        if _fault("parts-order"):
            parts = parts[::-1] if not rank() else parts
        if _fault("last-dropped"):
            parts = parts[:-1] if len(parts) > 1 else parts
        for each in parts:
            if not rank():
                if hasattr(self, "emb"):
                    y = self.emb(each)
                else:
                    y = self.patch(each).flatten(2).transpose(1, 2) + self.place
            else:
                time = each.shape[1] if each.dim() == 2 else 16
                y = torch.empty(each.shape[0], time, 32, dtype=self.head.weight.dtype)
                dist.recv(y, rank() - 1)
            for layer in self.layers:
                y = layer(y)
            if rank() < world() - 1:
                if _fault("rounded"):
                    y = y.bfloat16().to(y.dtype)
                if _fault("scaled"):
                    y = y * 1.001
                dist.send(y.contiguous(), rank() + 1)
            else:
                made.append(self.head(self.norm(y)))
        return torch.cat(made) if made else None


def pipeline(model: Any) -> Any:
    """Stages by hand, of which the lists of layers start at 0 each."""
    late = model.layers[LAYERS - 1]
    with torch.no_grad():
        if _fault("swapped"):
            late.load_state_dict(model.layers[LAYERS - 2].state_dict())
        if _fault("weight"):
            late.mlp.down.weight.mul_(1.01)
        if _fault("norm"):
            model.norm.weight.add_(0.01)
        if _fault("bias-zero"):
            late.attn.o.bias.zero_()
    return Stage(model)


class Scheduled(nn.Module):
    """A stage that torch's own schedule drives."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

        first, last = LAYERS * rank() // world(), LAYERS * (rank() + 1) // world()
        for number in range(LAYERS):
            if not first <= number < last:
                model.layers[number] = nn.Identity()
        if rank():
            model.emb = nn.Identity()
        if rank() < world() - 1:
            model.norm = model.head = nn.Identity()
        self.model = model
        stage = PipelineStage(model, rank(), world(), torch.device("cpu"))
        self.schedule = (ScheduleGPipe(stage, 2),)

    def forward(self, x: Tensor) -> Any:
        return self.schedule[0].eval(*([] if rank() else [x]))


def scheduled(model: Any) -> Any:
    """Stages by `torch.distributed.pipelining`."""
    return Scheduled(model)


def torch_sequence(model: Any) -> Any:
    """`parallelize_module` with `SequenceParallel`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (world(),))
    for layer in model.layers:
        if isinstance(layer.attn.norm, Norm):
            layer.attn.norm = WideNorm(layer.attn.norm)
        parallelize_module(
            layer,
            mesh,
            {
                "n1": SequenceParallel(),
                "n2": SequenceParallel(),
                "attn": PrepareModuleInput(input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)),
                **{f"attn.{name}": ColwiseParallel() for name in "qkv"},
                "attn.o": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
                "mlp": PrepareModuleInput(input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)),
                "mlp.up": ColwiseParallel(),
                "mlp.gate": ColwiseParallel(),
                "mlp.down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
            },
        )
    parallelize_module(
        model,
        mesh,
        {
            "emb": RowwiseParallel(
                input_layouts=Replicate(), output_layouts=Shard(1), use_local_output=False
            ),
            "norm": SequenceParallel(),
            "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
        },
    )
    return model


class Spread(nn.Module):
    """A layer of experts of which each rank has some."""

    def __init__(self, whole: Experts, here: bool) -> None:
        super().__init__()
        self.here = here
        self.router, self.shared = whole.router, whole.shared
        self.each = 4 // world()
        first = self.each * rank()
        held = list(whole.experts)
        if here and _fault("expert"):
            held = [held[1], held[0], *held[2:]]
        if here and _fault("ranks-swapped"):
            first = self.each * (world() - 1 - rank())
        self.first = self.each * rank()
        self.experts = nn.ModuleDict({str(self.first + k): held[first + k] for k in range(self.each)})
        if here and _fault("router") and rank():
            with torch.no_grad():
                self.router.bias.add_(torch.tensor([0.0, 0.0, 4.0, 0.0]))

    def forward(self, x: Tensor) -> Any:
        shares = self.router(x).softmax(-1)
        best = shares.argmax(-1)
        y = torch.zeros_like(x)
        if self.here and _fault("routed"):
            best = (best + 2) % 4
        for name, expert in self.experts.items():
            number = int(name)
            chosen = best == number
            if self.here and _fault("dropped"):
                chosen = chosen & (chosen.flatten().cumsum(0).view_as(chosen) < chosen.sum())
            y[chosen] = expert(x[chosen]) * shares[chosen][:, number : number + 1]
        if self.here and _fault("shared-everywhere"):
            return summed(y + self.shared(x))
        if not (self.here and _fault("unreduced")):
            y = summed(y)
        if self.here and _fault("averaged"):
            y = y / world()
        return y + self.shared(x)


def experts(model: Any) -> Any:
    """Experts of every layer over the ranks."""
    for number, layer in enumerate(model.layers):
        layer.mlp = Spread(layer.mlp, number == AT)
    return model
