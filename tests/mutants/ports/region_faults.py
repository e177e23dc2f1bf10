"""Faults in regions that are written with other operators than the baseline's, and what their causes must say."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH, Port
from tests.mutants.ports.picture_regions import (
    PICTURE,
    averaged,
    averaged_by_mean,
    enlarged,
    enlarged_by_repeat,
    enlarged_nearest,
    merging,
    merging_by_unfold,
    merging_by_view,
    padded,
    padded_by_cat,
    padding,
    pooled,
    pooled_by_sums,
    rolled,
    rolled_by_cat,
    shuffled,
    shuffled_by_view,
)
from tests.mutants.ports.regions import (
    attention,
    biased,
    biased_by_sdpa,
    chosen,
    chosen_by_sort,
    cosine,
    cosine_by_hand,
    expanded,
    first_norm,
    first_norm_by_hand,
    gelu,
    gelu_by_hand,
    glu,
    glu_by_hand,
    group,
    group_by_hand,
    grouped_queries,
    hardswish,
    hardswish_by_hand,
    layer,
    layer_by_hand,
    normalised,
    pooled_by_sum,
    pooled_tokens,
    rms,
    rms_by_hand,
    rotary,
    rotary_complex,
    sdpa,
    shares,
    shares_by_hand,
    silu,
    silu_by_hand,
    table,
    table_by_exp,
    windowed,
    windowed_by_band,
)

REGION_PORTS: dict[str, Port] = {
    "eps added to the root": Port(
        rms_by_hand(),
        lambda m, x: x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * m.weight,
        rms_by_hand(outside=True),
        "sqrt.*add|add.*sqrt",
    ),
    "eps of a norm by hand": Port(rms, rms_by_hand(), rms_by_hand(eps=1e-3), r"1e-05|1e-5"),
    "norm over all for groups": Port(
        rms_by_hand(groups=4),
        lambda m, x: F.rms_norm(x.unflatten(-1, (4, 4)), (4,), None, 1e-5).flatten(-2) * m.weight,
        rms_by_hand(),
        "group",
    ),
    "exponent of a norm": Port(rms, rms_by_hand(), rms_by_hand(exponent=4), r"exponent"),
    "unbiased variance": Port(layer, layer_by_hand(unbiased=False), layer_by_hand(), "unbiased|correction"),
    "mean along another axis": Port(
        layer, layer_by_hand(unbiased=False), layer_by_hand(unbiased=False, dim=1), "dim of mean"
    ),
    "eps of a layer norm by hand": Port(
        layer, layer_by_hand(unbiased=False), layer_by_hand(unbiased=False, eps=1e-2), "1e-05|1e-5"
    ),
    "groups of a group norm": Port(group, group_by_hand(4), group_by_hand(2), "2.*4|4.*2|group"),
    "unbiased group norm": Port(
        group, group_by_hand(4), group_by_hand(4, unbiased=True), "unbiased|correction"
    ),
    "scale by the whole width": Port(sdpa, attention(), attention(scale=0.25), r"0\.5"),
    "no scale": Port(sdpa, attention(), attention(scale=1.0), r"0\.5"),
    "softmax along another axis": Port(sdpa, attention(), attention(dim=-2), "dim of softmax"),
    "scale behind the softmax": Port(sdpa, attention(), attention(after=True), "mul.*softmax|softmax.*mul"),
    "mask off by one": Port(
        lambda m, x: sdpa(m, x, causal=True), attention(diagonal=1), attention(diagonal=2), "diagonal|triu"
    ),
    "query and key exchanged": Port(
        sdpa, attention(), attention(crossed=True), "matmul|operand|order|transpose|ax"
    ),
    "heads merged as they lie": Port(sdpa, attention(), attention(merged=False), "order|transpose|ax"),
    "keys repeated in another order": Port(
        grouped_queries(expanded),
        grouped_queries(lambda x: x.repeat_interleave(2, 1)),
        grouped_queries(lambda x: x.repeat(1, 2, 1, 1)),
        "order|ax",
    ),
    "halves of a gate exchanged": Port(
        glu, glu_by_hand(), glu_by_hand(swapped=True), "order|exchang|chunk|reads"
    ),
    "slope of a gate": Port(glu, glu_by_hand(), glu_by_hand(slope=1.702), r"1\.702|1\.0"),
    "slope of a silu": Port(silu, silu_by_hand(), silu_by_hand(1.702), r"1\.702|1\.0"),
    "root of a gelu": Port(gelu, gelu_by_hand(), gelu_by_hand(root=2.0), r"1\.41421"),
    "half of a gelu": Port(gelu, gelu_by_hand(), gelu_by_hand(half=1.0), r"0\.5"),
    "constants of a hard swish": Port(
        hardswish, hardswish_by_hand(), hardswish_by_hand(1.0, 2.0), r"3\.0.*6\.0"
    ),
    "one constant of a hard swish": Port(hardswish, hardswish_by_hand(), hardswish_by_hand(2.5), r"3\.0"),
    "base of a table": Port(table(), table_by_exp(), table_by_exp(base=1000.0), r"1\.15129|constant|10000"),
    "table from one": Port(
        table(), table_by_exp(), table_by_exp(start=1), "off|start|constant|reads|offset|is not added"
    ),
    "sine and cosine exchanged": Port(
        table(), table_by_exp(), table_by_exp(exchanged=True), "order|exchang|sin|cos"
    ),
    "table interleaved": Port(table(), table_by_exp(), table_by_exp(filled=False), "order|dim|interleav"),
    "sign of a rotation": Port(rotary_complex, rotary(), rotary(sign=-1.0), "sign|neg|-1|order|exchang|sub"),
    "rotation off by one": Port(rotary_complex, rotary(), rotary(shift=1), "0|constant|off"),
    "pads counted": Port(
        pooled,
        pooled_by_sums,
        lambda m, x: F.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1),
        "count_include_pad",
        PICTURE,
    ),
    "half the mean": Port(
        averaged, averaged_by_mean(), lambda m, x: x.mean(1).mean(1).mul(0.5), r"mul|0\.5|1\.0", PICTURE
    ),
    "maximum for mean": Port(averaged, averaged_by_mean(), averaged_by_mean(op="amax"), "amax", PICTURE),
    "corners aligned": Port(
        enlarged,
        lambda m, x: F.interpolate(
            x.permute(0, 3, 1, 2), size=(8, 8), mode="bilinear", align_corners=False
        ).permute(0, 2, 3, 1),
        lambda m, x: enlarged(m, x.contiguous(), align_corners=True),
        "align_corners",
        (2, 4, 4, WIDTH),
    ),
    "tiled for repeated": Port(
        enlarged_nearest, enlarged_by_repeat(), enlarged_by_repeat(tiled=True), "order|ax", (2, 4, 4, WIDTH)
    ),
    "patches merged in another order": Port(
        merging, merging_by_view(), merging_by_view((0, 1, 3, 2, 4, 5)), "order|permut|exchang", PICTURE
    ),
    "patches merged by unfolding": Port(
        merging, merging_by_view(), merging_by_unfold, "order|permut", PICTURE
    ),
    "pixels shuffled in another order": Port(
        shuffled,
        shuffled_by_view(),
        shuffled_by_view((0, 1, 5, 2, 4, 3)),
        "order|permut|exchang",
        (2, 4, 4, WIDTH),
    ),
    "shift of windows": Port(
        rolled_by_cat(), rolled, lambda m, x: torch.roll(x, (2, 2), (1, 2)), "shifts", PICTURE
    ),
    "shift along one side": Port(
        rolled_by_cat(), rolled, lambda m, x: torch.roll(x, (-2, -1), (1, 2)), "shifts", PICTURE
    ),
    "pads on all sides": Port(padded((0, 1, 0, 1)), padded_by_cat, padding(1), r"0, 1, 0, 1", PICTURE),
    "pads on the other sides": Port(
        padding(1), padded((1, 1, 1, 1)), padded((0, 2, 0, 2)), r"1 on all|1, 1, 1, 1", PICTURE
    ),
    "no temperature": Port(cosine, cosine_by_hand(), cosine_by_hand(scale=1.0), r"10"),
    "another temperature": Port(cosine, cosine_by_hand(), cosine_by_hand(scale=20.0), r"10"),
    "shares along another axis": Port(shares, shares_by_hand(), shares_by_hand(dim=1), "dim"),
    "shares at a temperature": Port(shares, shares_by_hand(), shares_by_hand(temperature=2.0), r"1\.0|div"),
    "norm before the sum": Port(
        first_norm,
        first_norm_by_hand(),
        first_norm_by_hand(before=True),
        "native_layer_norm.*add|add.*native_layer_norm|order",
    ),
    "branch halved": Port(first_norm, first_norm_by_hand(), first_norm_by_hand(factor=0.5), r"mul|0\.5|1\.0"),
    "window one too wide": Port(windowed, windowed_by_band(), windowed_by_band(width=4), "diagonal"),
    "window one too far": Port(windowed, windowed_by_band(), windowed_by_band(last=1), "diagonal"),
    "sign of a bias": Port(
        biased_by_sdpa, biased(), biased(sign=-1.0), r"1\.0|sub|exchang|-1|order|sign|transpose"
    ),
    "slope of a bias": Port(biased_by_sdpa, biased(), biased(base=math.sqrt(2)), r"2\.0|base|rpow|constant"),
    "softmax of the chosen": Port(
        chosen, chosen_by_sort(), chosen_by_sort(first=False), "softmax.*topk|topk.*softmax"
    ),
    "shares renormalised": Port(chosen, chosen_by_sort(), chosen_by_sort(renormalised=True), "div"),
    "constants exchanged": Port(
        normalised((2.0, 3.0, 4.0, 5.0)),
        lambda m, x: (
            (x[..., :3] @ torch.eye(3, WIDTH, dtype=x.dtype))
            * torch.tensor((1 / 2.0, 1 / 3.0, 1 / 4.0, 1 / 5.0), dtype=x.dtype).repeat(4)
        ),
        normalised((5.0, 4.0, 3.0, 2.0)),
        "constant|order",
    ),
    "class token in the mean": Port(pooled_tokens, pooled_by_sum(), pooled_by_sum(0, 1), "start|getitem|idx"),
    "mean of another count": Port(pooled_tokens, pooled_by_sum(), pooled_by_sum(1, 0), r"5|constant"),
}
