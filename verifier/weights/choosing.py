"""Which tensors both models compute with: drawn, loaded, taken over or left as they are.

Whatever the mode, the outcome is two sets of master tensors in the models' own dtypes. The candidate's share
memory with the baseline's wherever the parameter map says so; neither model is written to.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from verifier.align import Assembly
from verifier.errors import WeightsError
from verifier.models.copying import state_of
from verifier.records import WeightsInfo
from verifier.weights import pruned
from verifier.weights.calibration import branch_ends, calibrated, varies
from verifier.weights.copies import is_copy, is_edit, is_part, looks_drawn, related, stored, wide
from verifier.weights.files import counts_batches, fitted, overlap, published, read_state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from verifier.align import Alignment


@dataclass(frozen=True)
class Masters:
    """Master tensors by qualified name for each model, how they belong together, and what to say about them.

    `decided` names the candidate's tensors whose own values tell how they were made from the baseline's, `resized`
    those of each that stand in each other's place in another shape, and keep their own values.
    """

    baseline: Mapping[str, Tensor]
    candidate: Mapping[str, Tensor]
    info: WeightsInfo
    assemblies: Mapping[str, Assembly]
    decided: frozenset[str] = frozenset()
    resized: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    def remade(self, assemblies: Iterable[Mapping[str, Assembly]]) -> Masters:
        """The same baseline, with some of the candidate's tensors made otherwise from its own, but what it kept."""
        changed = {
            name: assembly
            for each in assemblies
            for name, assembly in each.items()
            if name not in self.info.kept
        }
        merged = {**self.assemblies, **changed}
        made = {
            name: assembly.make(self.baseline, self.candidate[name].shape)
            for name, assembly in changed.items()
        }
        return Masters(
            self.baseline,
            {**self.candidate, **made},
            msgspec.structs.replace(self.info, parameter_map=_as_text(merged)),
            merged,
            self.decided,
            self.resized,
        )

    @property
    def hiding(self) -> tuple[str, ...]:
        """The baseline's parameters that are all 0, so that what they multiply does not show; a 1 hides nothing."""
        return tuple(name for name in self.info.unexercised if not bool(self.baseline[name].any()))

    @property
    def whole(self) -> dict[str, str]:
        """The baseline's tensor for each of the candidate's that is that one as a whole."""
        return {
            name: assembly.whole for name, assembly in self.assemblies.items() if assembly.whole is not None
        }


def choose(
    mode: str,
    baseline: nn.Module,
    candidate: nn.Module,
    alignment: Alignment,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    given: Mapping[str, Assembly | None] | None = None,
    baseline_spec: str = "",
    seed: int = 0,
) -> Masters:
    """Master tensors for both models.

    Args:
        mode: `calibrated` (seeded draws that excite every parameter, batch-norm statistics measured on the
            input), `init` (as the constructors left them, the baseline's for both), `imagenet` (torchvision's
            published weights), `transfer` (the baseline's for both), `as-is` (each model's own), or the path
            of a `.safetensors`, `.pt` or `.pth` file with a state dict of either model.
        baseline: The baseline, untouched.
        candidate: The candidate, untouched.
        alignment: Tells which tensor of one is which of the other.
        inputs: Positional and keyword inputs to calibrate on, in the models' own dtype.
        given: What is known of the candidate's tensors, which comes before anything found here; None for a tensor
            that keeps its own value.
        baseline_spec: The baseline's specification; `imagenet` needs a `torchvision:` one.
        seed: For the draws.

    Raises:
        WeightsError: A file cannot be read, or fits neither model.
        UsageError: `imagenet` was asked for a model that has no published weights.
        DownloadError: Published weights are neither cached nor to be had.
    """
    b_state, c_state = state_of(baseline), state_of(candidate)
    mapping = _by_name(b_state, c_state) or alignment.parameters
    decided: dict[str, Assembly] = {}
    for choice in alignment.choices:
        decided |= _told_by_values(choice, b_state, c_state)
    mapping = {**mapping, **decided}
    masks = pruned.masks(baseline), pruned.masks(candidate)
    mapping = {
        name: assembly
        for name, assembly in mapping.items()
        if name not in masks[1] and masks[0].isdisjoint(assembly.names)
    }
    mapping |= pruned.whole(candidate, c_state, b_state, mapping)
    if given:
        merged = {**mapping, **given}
        mapping = {name: assembly for name, assembly in merged.items() if assembly is not None}
    source = ""
    constants = program_constants(candidate)
    others = _of_other_shape(alignment)
    parts = sum(is_part(b_state[b], c_state[c]) for b, c in others)
    copied = is_copy(stored(b_state, c_state, mapping, constants), c_state) or 2 * parts > len(others)
    resized = _resized(others, mapping) if copied else (frozenset[str](), frozenset[str]())
    if mode == "calibrated":
        quiet = branch_ends(alignment.baseline)
        masters = calibrated(baseline, b_state, inputs, seed, quiet=quiet, own=resized[0])
    elif mode in {"init", "transfer", "as-is"}:
        masters = b_state
    elif mode == "imagenet":
        masters, source = published(baseline_spec, b_state)
    else:
        source = mode
        masters, mode = _from_file(Path(mode), b_state, c_state, mapping), "file"
    if mode == "as-is":
        candidates, kept = c_state, tuple(c_state)
    else:
        buffers = {name for name, _ in candidate.named_buffers()}
        live = mode == "transfer"
        candidates, kept = _carry_over(
            b_state,
            c_state,
            masters,
            mapping,
            buffers,
            constants,
            {*(given or {}), *_drawn_elsewhere(alignment, mapping, b_state, c_state)},
            live=live,
            copied=copied,
        )
    info = WeightsInfo(
        mode=mode,
        source=source,
        parameter_map=_as_text(mapping),
        unmapped_baseline=without_partner(
            baseline, b_state, (name for assembly in mapping.values() for name in assembly.names)
        ),
        unmapped_candidate=without_partner(candidate, c_state, mapping),
        unexercised=tuple(_unexercised(baseline, masters)),
        kept=kept,
    )
    return Masters(masters, candidates, info, mapping, frozenset(decided), resized)


def loaded(mode: str, baseline: nn.Module) -> dict[str, Tensor]:
    """The baseline's tensors, from a file where `mode` names one that fits; what does not fit `choose` refuses."""
    state = state_of(baseline)
    if mode not in _MODES:
        with contextlib.suppress(WeightsError):
            return fitted(read_state(Path(mode)), state, mode)
    return state


_MODES = frozenset({"as-is", "calibrated", "imagenet", "init", "transfer"})  # what names no file


def _as_text(assemblies: Mapping[str, Assembly]) -> dict[str, str | tuple[str, ...]]:
    return {name: assembly.text for name, assembly in assemblies.items()}


def _by_name(baseline: Mapping[str, Tensor], candidate: Mapping[str, Tensor]) -> dict[str, Assembly] | None:
    """Each tensor's own name, if the candidate is a copy of the baseline by name and by value.

    A copy that uses two tensors in each other's place looks like a renaming to the dataflow, which would put
    them back; but then the names say what was meant.
    """
    if {n: t.shape for n, t in baseline.items()} != {n: t.shape for n, t in candidate.items()}:
        return None
    return {name: Assembly.of(name) for name in baseline} if is_copy(baseline, candidate) else None


def _drawn_elsewhere(
    alignment: Alignment,
    mapping: Mapping[str, Assembly],
    baseline: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
) -> set[str]:
    """Tensors that other operators use than the baseline's, and that were drawn, not taken over, as most show.

    Layers of two kinds draw from one stream in other ranges and another order: under one seed their weights are
    alike, and are no edits of each other.
    """
    operators: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
    for graph, found in zip((alignment.baseline, alignment.candidate), operators, strict=True):
        for site in graph.sites:
            for use in site.tensors:
                found.setdefault(use.name, set()).add(site.op)
    shapes = {name: tuple(tensor.shape) for name, tensor in baseline.items()}
    foreign = {
        name: assembly.stored(baseline, candidate[name])
        for name, assembly in mapping.items()
        if assembly.fits(shapes, candidate[name].shape)
        and name in operators[1]
        and all(operators[1][name].isdisjoint(operators[0].get(each, ())) for each in assembly.names)
    }
    telling = [name for name in foreign if varies(candidate[name])]
    drawn = sum(looks_drawn(name, candidate) for name in telling)
    return set(foreign) if drawn > len(telling) / 2 else set()


def _carry_over(
    baseline: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    masters: Mapping[str, Tensor],
    mapping: Mapping[str, Assembly],
    buffers: Collection[str],
    constants: Collection[str],
    given: Collection[str],
    *,
    live: bool,
    copied: bool,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The candidate's tensors: the baseline's by the parameter map, with the candidate's own edits kept.

    Two models whose random tensors mostly correlate come from the same draws: the candidate is a copy, and a
    tensor in which it differs was edited (pruned, rounded, shifted). Overwriting the edit would hide the very
    thing that is asked about, so the difference is carried over. With `live` the values were given, so every
    difference is one. Otherwise they are a constructor's: parameters that were drawn anew, and gains and shifts
    that only start from another constant, are initialisation and are replaced. What is made of which tensor is
    certain (`given`) is made of it.
    """
    before = stored(baseline, candidate, mapping, constants)
    chosen = dict(candidate)
    kept = [name for name in candidate if name not in before and name not in constants]
    for name, tensor in before.items():
        if name in given:
            chosen[name] = mapping[name].make(masters, tensor.shape)
            continue
        if not copied and name in buffers and _is_other_constant(name, tensor, candidate[name]):
            kept.append(name)
            continue
        chosen[name] = mapping[name].make(masters, tensor.shape)
        if not copied or torch.equal(tensor, candidate[name]):
            continue
        if live or name in buffers or is_edit(tensor, candidate[name]):
            difference = wide(candidate[name]) - wide(tensor)
            chosen[name] = (wide(chosen[name]) + difference).to(candidate[name].dtype)
            kept.append(name)
    return chosen, tuple(kept)


def _of_other_shape(alignment: Alignment) -> set[tuple[str, str]]:
    """Tensors of the two models that stand in each other's place in another shape, as where channels are cut out."""
    found = set()
    for b, c in alignment.pairs:
        roles = {use.role: use for use in alignment.baseline.sites[b].tensors}
        for use in alignment.candidate.sites[c].tensors:
            twin = roles.get(use.role)
            if twin is not None and use.shape != twin.shape:
                found.add((twin.name, use.name))
    return found


def _resized(
    others: Collection[tuple[str, str]], mapping: Mapping[str, Assembly]
) -> tuple[frozenset[str], frozenset[str]]:
    """Those of either model that go without a partner: what is drawn for one says nothing of the other."""
    taken = {name for assembly in mapping.values() for name in assembly.names}
    return (
        frozenset(name for name, _ in others) - taken,
        frozenset(name for _, name in others).difference(mapping),
    )


def _is_other_constant(name: str, baseline: Tensor, candidate: Tensor) -> bool:
    """Whether a buffer that is saved is a constant of the program which the candidate has otherwise.

    A mean to normalise with, a table of positions: to put the baseline's in its place would hide the difference.
    Running statistics are learnt, and so is what was drawn at random, which is large and unrelated.
    """
    if name.rpartition(".")[2] in LEARNT or torch.equal(baseline, candidate):
        return False
    return baseline.numel() <= _SMALL or related(baseline, candidate)


LEARNT = frozenset({"running_mean", "running_var", "num_batches_tracked"})
"""Names of buffers that hold what was learnt."""
_SMALL = 64  # elements


def _told_by_values(
    choice: Sequence[Mapping[str, Assembly]], baseline: Mapping[str, Tensor], candidate: Mapping[str, Tensor]
) -> Mapping[str, Assembly]:
    """The assemblies by which a candidate was made from the baseline, told by its own values, if they tell."""
    shapes = {name: tuple(tensor.shape) for name, tensor in baseline.items()}
    for assemblies in choice:
        if not all(assembly.fits(shapes, candidate[name].shape) for name, assembly in assemblies.items()):
            continue
        made = {name: assembly.make(baseline, candidate[name].shape) for name, assembly in assemblies.items()}
        telling = [name for name, tensor in made.items() if varies(tensor)]
        if telling and all(related(made[name], candidate[name]) for name in telling):
            return assemblies
    return {}


def without_partner(model: nn.Module, names: Iterable[str], mapped: Iterable[str]) -> tuple[str, ...]:
    """What a model has learnt and nothing of the other belongs to, sorted; what counts batches needs no partner."""
    left = set(names).difference(program_constants(model), pruned.masks(model), mapped)
    return tuple(sorted(name for name in left if not counts_batches(name)))


def program_constants(model: nn.Module) -> set[str]:
    """Buffers that belong to the program and not to what it has learnt: indices, masks, those never saved.

    A single integer counts steps, which is learnt.
    """
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
        and (
            name in module._non_persistent_buffers_set
            or not (buffer.is_floating_point() or buffer.is_complex() or buffer.dim() == 0)
        )
    }


def _unexercised(model: nn.Module, masters: Mapping[str, Tensor]) -> list[str]:
    found = []
    for name, _ in model.named_parameters():
        tensor = masters[name]
        if not tensor.numel():
            continue
        first = tensor[(0,) * tensor.dim()]
        if bool((first == 0) | (first == 1)) and bool((tensor == first).all()):
            found.append(name)
    return found


def _from_file(
    path: Path,
    baseline: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    mapping: Mapping[str, Assembly],
) -> dict[str, Tensor]:
    """The baseline's tensors from a state dict of either model."""
    state = read_state(path)
    if overlap(state, baseline) >= overlap(state, candidate):
        return fitted(state, baseline, str(path))
    loaded = fitted(state, candidate, str(path))
    masters = {name: tensor.clone() for name, tensor in baseline.items()}
    for name, assembly in mapping.items():
        assembly.unmake(loaded[name], masters)
    return masters
