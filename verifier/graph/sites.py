"""The graph of sites: structure only, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.graph.conditions import Conditions
    from verifier.records import Source


UNTRACED = -(1 << 30)
"""In the place of a site: something a model returns whose origin cannot be seen, as a number Python computed."""


@dataclass(frozen=True, slots=True)
class TensorUse:
    """A parameter or buffer a site reads: the operator's argument name and the tensor's qualified name."""

    role: str
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the forward pass where a tensor is produced.

    Attributes:
        index: Position in `Graph.sites`, which is the order of execution.
        name: Qualified name with call number, as torchvision's feature extraction names nodes:
            `layer1.0.relu`, `layer1.0.relu_1`, `layer1.0.add`.
        op: Canonical operator name, the same for module, functional, method and in-place forms.
        scope: Qualified name of the innermost module that was running.
        output: Which of the call's tensors this is, 0 for the first.
        shape: Shape in the recorded run.
        dtype: Dtype in the recorded run, without the `torch.` prefix.
        inputs: Where the call's tensor arguments came from, in argument order: a site's index, or
            -1 - k for the k-th input tensor of the model. Constants and parameters are left out.
        operands: For each tensor argument that is no parameter or buffer, in argument order, the site (or
            -1 - k, as above) that wrote it last; None where it came from neither.
        tensors: The parameters and buffers among the arguments, in argument order.
        attributes: The other arguments by name (stride, eps, ...), as readable values.
        inplace: Whether the call wrote into its own argument.
        identity: Whether the call returned its own argument untouched (dropout in eval mode, say), or a tensor
            that depends on no value (`zeros_like`).
        live: Whether an output of the model depends on it.
        aliases_state: Whether the tensor shares memory with a parameter or buffer of the model.
        source: The line of the model's program that made the call; None where it has none (see `lines`).
    """

    index: int
    name: str
    op: str
    scope: str
    output: int
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[int, ...] = ()
    operands: tuple[int | None, ...] = ()
    tensors: tuple[TensorUse, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)
    inplace: bool = False
    identity: bool = False
    live: bool = True
    aliases_state: bool = False
    source: Source | None = field(default=None, compare=False)

    @property
    def comparable(self) -> bool:
        """Whether the site takes part in alignment and coverage."""
        return self.live and not self.identity


@dataclass(frozen=True, slots=True)
class Call:
    """One tensor-producing call of the forward pass, as the live run must repeat it.

    `first` is the index of its first site; `count` how many tensors it returned.
    """

    scope: str
    op: str
    first: int
    count: int


@dataclass(frozen=True)
class Graph:
    """Everything one forward pass did.

    Attributes:
        sites: All sites in order of execution.
        calls: All tensor-producing calls in order of execution; each owns one or more sites.
        outputs: Where each output tensor of the model came from: a site's index, or -1 - k for the
            k-th input handed through, or `UNTRACED`.
        output_names: Where each output stands in what the model returns: `logits`, `0`; empty for a bare tensor.
        output_labels: What the file of a program of nodes calls them in order, where it returns several; else empty.
        output_order: The outputs by position in what the model returns, where they were put into another order.
        inputs: How many input tensors the model was given.
        tensors: Names of all parameters and buffers of the model, with their shapes.
        suspendable: Whether the pass left the state of its thread alone (grad mode, autocast, dispatch modes)
            and made no call through a C++ frame that must be left in the order it was entered.
        writes_inputs: Whether the model wrote into the tensors it was given.
        draws: Whether it drew random numbers.
        writes_state: Names of the parameters and buffers it wrote into, as batch norms in train mode do.
        conditions: What it was given; None where that was not noted.
    """

    sites: tuple[Site, ...]
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    inputs: int
    tensors: Mapping[str, tuple[int, ...]]
    suspendable: bool = True
    writes_inputs: bool = False
    writes_state: frozenset[str] = frozenset()
    draws: bool = False
    output_names: tuple[str, ...] = ()
    output_labels: tuple[str, ...] = ()
    output_order: tuple[int, ...] | None = None
    conditions: Conditions | None = None

    def with_outputs_like(self, other: Graph) -> Graph:
        """This graph, with its outputs in the other's order if both return the same names."""
        names, wanted = self.output_labels or self.output_names, other.output_labels or other.output_names
        if self.output_names == other.output_names and names == wanted:
            return self
        said = not self.output_labels or not all(name.isdigit() for name in wanted)  # else it is a position
        if not said or sorted(names) != sorted(wanted) or len(set(names)) < len(names):
            return self
        order = tuple(names.index(name) for name in wanted)
        return replace(
            self,
            outputs=tuple(self.outputs[k] for k in order),
            output_names=other.output_names,
            output_labels=wanted,
            output_order=order,
        )

    @cached_property
    def comparable(self) -> tuple[Site, ...]:
        """The sites that take part in alignment and coverage, in order of execution."""
        return tuple(site for site in self.sites if site.comparable)

    @cached_property
    def reads_inputs(self) -> tuple[bool, ...]:
        """For each site, whether its tensor depends on the model's inputs, not on parameters and constants alone."""
        found: list[bool] = []
        for site in self.sites:
            found.append(any(source < 0 or found[source] for source in site.inputs))
        return tuple(found)

    @cached_property
    def call_of(self) -> tuple[int, ...]:
        """For each site, the position in `calls` of the call that made it."""
        return tuple(k for k, call in enumerate(self.calls) for _ in range(call.count))

    def call_at(self, position: int, op: str, scope: str, count: int) -> Call | None:
        """The recorded call at `position`, if it is one of `op` in the module `scope` that gave `count` tensors."""
        call = self.calls[position] if position < len(self.calls) else None
        alike = call is not None and (call.op, call.scope, call.count) == (op, scope, count)
        return call if alike else None

    @cached_property
    def by_name(self) -> dict[str, Site]:
        """Every site by its name."""
        return {site.name: site for site in self.sites}

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each site, the indices of the live sites that read it, in order of execution."""
        found: list[list[int]] = [[] for _ in self.sites]
        for site in self.comparable:
            for producer in dict.fromkeys(site.inputs):
                if producer >= 0:
                    found[producer].append(site.index)
        return tuple(tuple(consumers) for consumers in found)
