"""Ways to train the small models between processes, by hand and by torch, and what goes wrong between them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.mutants.shards import trained
from tests.mutants.shards.differentiable import (
    Column,
    Row,
    WideNorm,
    added,
    copied,
    gathered,
    reduced,
    split,
)
from tests.mutants.shards.networks import Experts
from tests.mutants.shards.trained import AT, fault, last, loss_of

_GROUPS: dict[str, Any] = {}


def inner(style: str) -> Any:
    """The ranks that hold a model between them; of a mesh two neighbours."""
    return _group("inner") if style == "mesh" else None


def outer() -> Any:
    """The ranks that have the same part of it."""
    return _group("outer")


def _group(which: str) -> Any:
    if not _GROUPS:
        for name, sets in (("inner", ((0, 1), (2, 3))), ("outer", ((0, 2), (1, 3)))):
            for ranks in sets:
                made = dist.new_group(list(ranks))
                if dist.get_rank() in ranks:
                    _GROUPS[name] = made
    return _GROUPS[which]


def spoilt(model: nn.Module) -> None:
    """Faults of gradients that any style may have."""
    for name, parameter in model.named_parameters():
        if fault("gradient-other") and last() and trained._is(name) and parameter.grad is not None:
            parameter.grad.mul_(1.5)


def hand(model: Any, group: Any = None) -> Any:
    """Columns and rows by hand."""
    for number, layer in enumerate(model.layers):
        here = number == AT
        attn, mlp = layer.attn, layer.mlp
        attn.norm = WideNorm(attn.norm, group, back=not (here and fault("norm-back")))
        attn.q = Column(attn.q, group, back=not (here and fault("copy-query")))
        attn.k, attn.v = (Column(each, group) for each in (attn.k, attn.v))
        attn.o = Row(attn.o, group, both=here and fault("both-attention"))
        for name in ("gate", "up"):
            if hasattr(mlp, name):
                setattr(mlp, name, Column(getattr(mlp, name), group, back=not (here and fault("copy"))))
        mlp.down = Row(mlp.down, group, both=here and fault("both"))
    model.head = Column(model.head, group, back=not fault("copy-head"), gather=True)
    return model


def hand_sync(model: Any) -> None:
    """Nothing is to be done; faults do it."""
    if fault("bias-added"):
        model.layers[AT].mlp.down.bias.grad = added(model.layers[AT].mlp.down.bias.grad)
    if fault("norm-added"):
        model.layers[AT].n2.weight.grad = added(model.layers[AT].n2.weight.grad)
    if fault("copies-added"):
        for parameter in model.parameters():
            parameter.grad = added(parameter.grad)


def mesh(model: Any) -> Any:
    """Two groups of two, each with other samples."""
    return hand(model, inner("mesh"))


def mesh_sync(model: Any) -> None:
    """Average over the groups."""
    for name, parameter in model.named_parameters():
        if fault("missing") or (fault("missing-one") and trained._is(name)):
            continue
        other = fault("wrong-group") and name == "layers.1.attn.o.weight"
        group = inner("mesh") if other else outer()
        parameter.grad = added(parameter.grad, group)
        if not fault("sum"):
            parameter.grad /= 2
        if fault("world"):
            parameter.grad /= 2


class InSequence(nn.Module):
    """A block of which norms and residuals are of a part of the sequence each."""

    def __init__(self, layer: Any, here: bool) -> None:
        super().__init__()
        self.n1, self.n2, self.attn, self.mlp = layer.n1, layer.n2, layer.attn, layer.mlp
        self.drop, self.here = layer.drop, here

    def forward(self, x: Tensor) -> Any:
        x = x + self.attn(gathered(self.n1(x), 1, apart=not (self.here and fault("scatter-attention"))))
        return x + self.mlp(gathered(self.n2(x), 1, apart=not (self.here and fault("scatter"))))


class Parted(nn.Module):
    """A model of which norms have a part of the sequence each."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name, module in model.named_children():
            setattr(self, name, module)
        if hasattr(model, "place"):
            self.place = model.place

    def forward(self, x: Any) -> Any:
        made: Any = self
        y = made.emb(x) if hasattr(self, "emb") else made.patch(x).flatten(2).transpose(1, 2) + self.place
        y = split(y, 1)
        for layer in made.layers:
            y = layer(y)
        return made.head(gathered(made.norm(y), 1, apart=fault("apart")))


def sequence(model: Any) -> Any:
    """Columns and rows, and the sequence in parts between them."""
    for number, layer in enumerate(model.layers):
        attn, mlp = layer.attn, layer.mlp
        attn.norm = WideNorm(attn.norm)
        attn.q, attn.k, attn.v = (Column(each, back=False) for each in (attn.q, attn.k, attn.v))
        attn.o = Row(attn.o, scatter=True)
        for name in ("gate", "up"):
            if hasattr(mlp, name):
                setattr(mlp, name, Column(getattr(mlp, name), back=False))
        mlp.down = Row(mlp.down, scatter=True)
        model.layers[number] = InSequence(layer, number == AT)
    return Parted(model)


def sequence_sync(model: Any) -> None:
    """Add up the gradients of what has seen a part of the sequence."""
    for name, parameter in model.named_parameters():
        norms = name.startswith("norm.") or any(each in name for each in (".n1.", ".n2."))
        biases = name.endswith((".o.bias", ".down.bias"))
        if (fault("norms") and norms) or (fault("biases") and biases):
            continue
        if fault("norm-one") and name == "layers.1.n2.weight":
            continue
        if norms or biases or (fault("embedded") and name in ("emb.weight", "patch.weight")):
            parameter.grad = added(parameter.grad)
            if fault("mean") and norms:
                parameter.grad /= dist.get_world_size()


def tensor(model: Any) -> Any:
    """By `parallelize_module`."""
    from torch.distributed.device_mesh import init_device_mesh

    return _planned(model, init_device_mesh("cpu", (dist.get_world_size(),)))


def _planned(model: Any, mesh: Any) -> Any:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for layer in model.layers:
        plan: dict[str, Any] = {f"attn.{name}": ColwiseParallel() for name in "qkv"}
        plan["attn.o"] = RowwiseParallel()
        plan |= {f"mlp.{name}": ColwiseParallel() for name in ("gate", "up") if hasattr(layer.mlp, name)}
        plan["mlp.down"] = RowwiseParallel()
        parallelize_module(layer, mesh, plan)
    return model


def tensor_sync(model: Any) -> None:
    """Nothing is to be done; faults do it."""
    if fault("norm-added"):
        model.layers[AT].n2.weight.grad = added(model.layers[AT].n2.weight.grad)
    if fault("copies-added"):
        for parameter in model.parameters():
            if not hasattr(parameter, "placements"):
                parameter.grad = added(parameter.grad)


def torch_sequence(model: Any) -> Any:
    """`parallelize_module` with `SequenceParallel`."""
    from tests.mutants.shards.styles import torch_sequence as spread

    return spread(model)


def torch_mesh(model: Any) -> Any:
    """`parallelize_module` along one dimension of a mesh, `fully_shard` along the other."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    _planned(model, mesh["tp"])
    for layer in model.layers:
        fully_shard(layer, mesh=mesh["dp"])
    return _divided(fully_shard(model, mesh=mesh["dp"]))


def fsdp(model: Any) -> Any:
    """By `fully_shard`."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:
        fully_shard(layer)
    return _divided(fully_shard(model))


fsdp_alike = fsdp


def _divided(model: Any) -> Any:
    from torch.distributed.fsdp import FSDPModule

    for number, each in enumerate([model, *model.layers]):
        if isinstance(each, FSDPModule) and (fault("sum") or (fault("sum-layer") and number == 1 + AT)):
            each.set_gradient_divide_factor(1.0)
    return model


def ddp(model: Any) -> Any:
    """By `DistributedDataParallel`, which is what is given."""
    return inside(model)


def ddp_inside(model: Any) -> Any:
    """The same, wrapped within the loop."""
    return model


def inside(model: Any) -> Any:
    """Wrap it."""
    made = nn.parallel.DistributedDataParallel(model)
    if fault("hook-sum"):
        made.register_comm_hook(None, _sum_hook)
    return made


def _sum_hook(_, bucket):  # type: ignore[no-untyped-def]
    # No annotations: torch wants its own class there, which it declares nowhere.
    work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return work.then(lambda future: future.value()[0])


def ddp_backward(model: Any, inputs: Tensor, labels: Tensor, every: int) -> None:
    """The loop's step; past the wrapper, or scaled, by mistake."""
    loss = loss_of((model.module if fault("past") else model)(inputs), labels)
    if fault("sum"):
        loss = loss * dist.get_world_size()
    if fault("loss-sum"):
        loss = loss * len(labels)
    torch.autograd.backward(loss / every)


ddp_inside_backward = ddp_backward


def average(model: Any) -> Any:
    """Data parallel by hand."""
    return model


def average_sync(model: Any) -> None:
    """Average the gradients."""
    world = dist.get_world_size()
    for name, parameter in model.named_parameters():
        one = trained._is(name)
        if fault("missing") or (fault("missing-one") and one) or (fault("biases") and parameter.dim() == 1):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if fault("broadcast"):
            dist.broadcast(parameter.grad, 0)
            continue
        parameter.grad = added(parameter.grad)
        if not (fault("sum") or (fault("sum-one") and one)):
            parameter.grad /= world
        if fault("twice-divided"):
            parameter.grad /= world
        if fault("twice-one") and one:
            parameter.grad = added(parameter.grad)


class Stage(nn.Module):
    """A part of the layers that torch's own schedule drives."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

        early = not dist.get_rank()
        for number in range(len(model.layers)):
            if (number == 0) != early:
                model.layers[number] = nn.Identity()
        if early:
            model.norm = model.head = nn.Identity()
        else:
            for name in ("emb", "patch"):
                if hasattr(model, name):
                    setattr(model, name, nn.Identity())
        self.model = model
        stages = [
            PipelineStage(model, dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
            for _ in range(2)
        ]
        trains = ScheduleGPipe(stages[1], 2, loss_fn=_portion, scale_grads=not fault("unscaled"))
        self.schedules = ScheduleGPipe(stages[0], 2), trains

    def forward(self, x: Tensor) -> Any:
        return self.schedules[0].eval(*([x] if not dist.get_rank() else []))


def _portion(scores: Tensor, labels: Tensor) -> Tensor:
    loss = loss_of(scores, labels)
    loss = loss * len(labels) if fault("loss-sum") else loss
    return loss if fault("undivided") else loss / trained._every()


def scheduled(model: Any) -> Any:
    """Stages by `torch.distributed.pipelining`."""
    return Stage(model)


def scheduled_backward(model: Any, inputs: Tensor, labels: Tensor, _: int) -> None:
    """A step of the schedule."""
    if dist.get_rank():
        if fault("labels"):
            labels = labels.flip(0)
        model.schedules[1].step(target=labels)
    else:
        model.schedules[1].step(inputs)
    if fault("stage-scaled") and last():
        for parameter in model.parameters():
            parameter.grad *= 2


def scheduled_sync(model: Any) -> None:
    """Tied weights are on both stages."""
    if trained.case()[0] == "tied" and not fault("tied"):
        held = model.model.head.weight if dist.get_rank() else model.model.emb.weight
        held.grad = added(held.grad)


class Spread(nn.Module):
    """A layer of experts of which each rank has some."""

    def __init__(self, model: Experts, here: bool) -> None:
        super().__init__()
        self.here = here
        self.router, self.shared = model.router, model.shared
        each = 4 // dist.get_world_size()
        first = each * dist.get_rank()
        self.experts = nn.ModuleDict({str(k): model.experts[k] for k in range(first, first + each)})

    def forward(self, x: Tensor) -> Any:
        shares = self.router(x).softmax(-1)
        best = shares.argmax(-1)
        own = x if self.here and fault("copy") else copied(x)
        weights = shares if self.here and fault("shares") else copied(shares)
        if self.here and fault("shares-cut"):
            weights = shares.detach()
        y = torch.zeros_like(x)
        for name, expert in self.experts.items():
            chosen = best == int(name)
            y[chosen] = expert(own[chosen]) * weights[chosen][:, int(name) : int(name) + 1]
        total = reduced(y)
        if self.here and fault("both"):
            from tests.mutants.shards.differentiable import summed

            total = summed(y)
        return total + self.shared(x)


def experts(model: Any) -> Any:
    """Experts of every layer over the ranks."""
    for number, layer in enumerate(model.layers):
        layer.mlp = Spread(layer.mlp, number == AT)
    return model


def experts_sync(model: Any) -> None:
    """Faults alone: an expert has no gradient where no token is for it, on all."""
    mlp = model.layers[AT].mlp
    if fault("expert-scaled"):
        for parameter in mlp.experts.parameters():
            if parameter.grad is not None:
                parameter.grad *= 2
    if fault("expert-added"):
        for parameter in mlp.experts.parameters():
            parameter.grad = added(
                parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            )
    if fault("router-added"):
        for parameter in mlp.router.parameters():
            parameter.grad = added(parameter.grad)
    if fault("expert-divided"):
        for parameter in mlp.experts.parameters():
            if parameter.grad is not None:
                parameter.grad /= dist.get_world_size()
