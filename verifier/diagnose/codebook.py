"""Every code a cause can have, with what it means and how to mend it.

Most codes are made of an operator's or a tensor's name and what is wrong with it. Those stand here as patterns, in
which a word in capitals stands for a name: `OPERATOR-missing` for `relu-missing`. A code has to stand here: a test
looks for others. `python -m verifier.diagnose.codebook docs/causes.md` writes them into the page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from verifier.diagnose import codes
from verifier.records import UNEXPLAINED


class Code(NamedTuple):
    """A code or a pattern of codes, what it says, how to mend it, and some that a pattern stands for."""

    code: str
    meaning: str
    fix: str
    examples: tuple[str, ...] = ()


# What the candidate's usual operators can be set to; others' codes are made in the same way.
_SETTINGS = {
    "conv2d": ("stride", "padding", "dilation", "groups"),
    "conv_transpose2d": ("stride", "padding", "output_padding", "dilation", "groups"),
    "batch_norm": ("eps", "momentum", "training"),
    "layer_norm": ("normalized_shape", "eps"),
    "group_norm": ("num_groups", "eps"),
    "instance_norm": ("eps",),
    "rms_norm": ("eps",),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "avg_pool2d": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    "adaptive_avg_pool2d": ("output_size",),
    "scaled_dot_product_attention": ("is_causal", "scale", "dropout_p"),
    "gelu": ("approximate",),
    "leaky_relu": ("negative_slope",),
    "softmax": ("dim",),
    "cat": ("dim",),
    "flatten": ("start_dim",),
    "interpolate": ("mode", "align_corners", "antialias"),
}

_PREPARE = "prepare the input as the baseline does"
_RESIZE = "resize with bilinear interpolation and `antialias=True`"

CODES: dict[str, tuple[Code, ...]] = {
    "Settings of an operator": (
        Code(
            "OPERATOR-SETTING",
            "an operator's setting (hyperparameter) has another value than the baseline's",
            "set it to the baseline's value, which the cause names",
            tuple(codes.of_attribute(op, name) for op, names in _SETTINGS.items() for name in names),
        ),
        Code(
            "OPERATOR-padding-mode",
            "it pads with something else: zeros, a reflection, the border repeated",
            "pad as the baseline does",
            ("conv-padding-mode",),
        ),
        Code(
            "batchnorm-variance",
            "a batch norm that computes statistics of its own normalises with the variance divided by n - 1",
            "divide the variance by n",
        ),
        Code(
            "dropout-active",
            "a dropout works in evaluation, or only the candidate has one",
            "put the model into evaluation mode; pass `training=self.training`",
        ),
    ),
    "Operators and wiring": (
        Code(
            "OPERATOR-missing",
            "the baseline has an operator here, the candidate has none; `residual` is an addition",
            "add it",
            ("relu-missing", "batchnorm-missing", "residual-missing", "sigmoid-missing"),
        ),
        Code(
            "OPERATOR-extra",
            "the candidate has an operator here, the baseline has none",
            "remove it",
            ("relu-extra", "softmax-extra", "permute-extra"),
        ),
        Code("activation-different", "another activation function", "use the baseline's"),
        Code("norm-different", "another kind of normalisation", "use the baseline's"),
        Code("pooling-different", "another kind of pooling", "use the baseline's"),
        Code("operator-different", "another operator of no common kind", "use the baseline's"),
        Code("scale-extra", "a multiplication or division that the baseline does not have", "remove it"),
        Code(
            "residual-scaled",
            "a branch is multiplied before the addition, the baseline's is not",
            "remove the factor",
        ),
        Code("internal-cast", "a conversion to another dtype that the baseline does not make", "remove it"),
        Code(
            "flatten-order",
            "the elements stand in another order when they are flattened",
            "lay them out as the baseline does before flattening: channels first, say",
        ),
        Code(
            "order-different",
            "the same operators in another order",
            "exchange them",
        ),
        Code(
            "operand-order",
            "it takes what it reads in another order: a - b for b - a, another order of concatenation",
            "exchange its operands",
        ),
        Code(
            "wiring-different",
            "it reads another site than the baseline's, or an operator runs and nothing reads it",
            "connect it as the baseline does",
        ),
        Code(
            "shortcut-different",
            "other operators on the branch that an addition joins",
            "build the shortcut as the baseline does",
        ),
        Code(
            "region-different",
            "several operators stand where the baseline has others, and something else comes out",
            "compare the operators that the cause names, and their settings",
        ),
        Code(
            "constant-different",
            "a tensor that neither an operator nor an input made, such as a table, is not the baseline's",
            "give it the baseline's constant",
        ),
        Code(
            "input-overwritten",
            "what it reads was changed in place after it was made",
            "clone the tensor before it is overwritten, or use the operator that does not work in place",
        ),
        Code(
            "changed-after-last-site",
            "what is returned is not what the last operator gave, and no operator was seen to write it",
            "look for what writes it where torch cannot tell: a NumPy view, dlpack, a custom operator, a thread",
        ),
    ),
    "Parameters and buffers": (
        Code(
            "TENSOR-missing",
            "the baseline has this tensor, the candidate has none",
            "add it: `bias=True`, say",
            ("bias-missing", "weight-missing"),
        ),
        Code("TENSOR-extra", "the candidate has it, the baseline has none", "remove it", ("bias-extra",)),
        Code(
            "TENSOR-not-loaded",
            "all zeros or ones, one number everywhere, or a fresh draw: the baseline's values never arrived",
            "load it; look for names that were skipped (`strict=False`)",
            ("weight-not-loaded", "bias-not-loaded"),
        ),
        Code(
            "TENSOR-swapped",
            "another tensor of the baseline's stands there; the cause names it",
            "load each under its own name",
            ("weight-swapped",),
        ),
        Code(
            "affine-swapped",
            "weight and bias of a norm stand in each other's place",
            "exchange weight and bias",
        ),
        Code(
            "TENSOR-scaled",
            "a multiple of the baseline's, or its sign reversed",
            "remove the factor",
            ("weight-scaled",),
        ),
        Code(
            "TENSOR-rounded",
            "rounded to a narrower dtype; or the baseline's is and it is not",
            "load the baseline's in its own dtype",
            ("weight-rounded",),
        ),
        Code(
            "TENSOR-transposed",
            "axes are exchanged",
            "transpose it when loading",
            ("weight-transposed",),
        ),
        Code(
            "TENSOR-permuted",
            "rows, channels or groups stand in another order, or reversed along an axis",
            "put them into the baseline's order when loading",
            ("weight-permuted",),
        ),
        Code(
            "TENSOR-nonfinite",
            "it holds NaN or infinities where the baseline's does not",
            "load it again",
            ("weight-nonfinite",),
        ),
        Code(
            "TENSOR-perturbed",
            "other values without a simpler relation: in a few places, by an offset, of another shape, everywhere",
            "load the baseline's",
            ("weight-perturbed", "bias-perturbed"),
        ),
        Code(
            "running-mean",
            "a batch norm's running mean differs, as loaded or after a pass in training mode",
            "load it with the weights; compare `momentum` and what updates it",
        ),
        Code(
            "running-var",
            "a batch norm's running variance differs, as loaded or after a pass in training mode",
            "load it with the weights; compare `momentum` and what updates it",
        ),
        Code(
            "running-var-biased",
            "the running variance is updated with the variance divided by n, the baseline's by n - 1",
            "update it with the unbiased variance",
        ),
        Code(
            "BUFFER",
            "a pass leaves this buffer otherwise than the baseline's pass does; the code is the buffer's name",
            "compare what updates it",
            ("num-batches-tracked",),
        ),
    ),
    "Inputs": (
        Code(
            "input-channel-order", "channels in another order: BGR for RGB", "reverse them: `x[:, [2, 1, 0]]`"
        ),
        Code(
            "input-scale",
            "one gain and offset for all channels: 0 to 255 for 0 to 1, -1 to 1 for 0 to 1",
            _PREPARE,
        ),
        Code(
            "input-normalisation",
            "a gain and an offset of each channel: mean and standard deviation missing, applied twice, or others",
            "normalise with the baseline's constants, once",
        ),
        Code("input-layout", "N, H, W, C for N, C, H, W, or height and width exchanged", "permute the axes"),
        Code("input-flip", "mirrored, upside down or turned by 180 degrees", "remove the flip"),
        Code("input-resize", "the same pictures resized or cropped otherwise", _PREPARE),
        Code(
            "input-dtype",
            "rounded to another dtype or to steps of 1/255, or differing in the last digits",
            _PREPARE,
        ),
        Code(
            "input-different",
            "another shape, other samples, samples in another order, NaN, or something else",
            "give both models the same input",
        ),
        Code(
            "input-nonfinite",
            "the tensor that a preprocessing returns holds NaN or infinities",
            "look for a division by 0: a standard deviation, a constant picture",
        ),
    ),
    "Preprocessing": (
        Code(
            "decode-orientation",
            "the photograph is not turned as its EXIF data say",
            "turn it first, with `PIL.ImageOps.exif_transpose`",
        ),
        Code("decode-depth", "of 16 bits the lower 8 are cut off", "divide by 257 and round"),
        Code("decode-alpha", "a transparent picture is laid over white or black", "drop the transparency"),
        Code(
            "decode-lossy", "the file is decoded a few steps otherwise", "decode it with Pillow, at full size"
        ),
        Code(
            "resize-size",
            "another size, another side, or both sides whatever the proportions",
            "resize the shorter side to the size named",
        ),
        Code("resize-kernel", "another interpolation: bicubic, nearest neighbour, Lanczos, box", _RESIZE),
        Code("resize-antialias", "resized without antialiasing", _RESIZE),
        Code(
            "resize-grid",
            "the grid spans the corner pixels: `align_corners` is on",
            "leave `align_corners` off and set `antialias=True`",
        ),
        Code("crop-size", "the crop has another size, or nothing is cropped", "crop to the size named"),
        Code(
            "crop-offset",
            "the crop begins elsewhere",
            "round half of the margin as torchvision does: `round(margin / 2)`, to even",
        ),
        Code(
            "draws-otherwise",
            "random crops, flips or sizes are distributed otherwise",
            "draw from the ranges of the recipe",
        ),
    ),
    "Precision": (
        Code(
            "precision-lost",
            "the same program in float64, but further from float64 in this dtype than the baseline",
            "compute the step in float32 and round once",
        ),
        Code(
            "precision-overflow",
            "it leaves the dtype's range of numbers where the baseline does not",
            "compute the step in float32 and round once, or scale before the sum",
        ),
    ),
    "Calls": (
        Code(
            "differs-unwatched",
            "the model gives other numbers when nothing watches it",
            "look for what depends on hooks, on modes of torch, on threads or on time",
        ),
        Code(
            "state-across-calls",
            "a second call on the same inputs gives other numbers than the baseline's second call",
            "look for counters, caches and tensors that a call leaves changed",
        ),
        Code(
            "later-call-different",
            "a call on the samples in reverse order gives other numbers than the baseline's",
            "look for what is kept from the first call, and for what depends on a sample's place in the batch",
        ),
    ),
    "Training": (
        Code(
            "frozen",
            "a parameter is not trained: `requires_grad` is off, or no optimiser has it",
            "train it, or freeze the baseline's",
        ),
        Code(
            "gradients-not-cleared",
            "gradients of the batch before are still in it",
            "call `zero_grad` in every step",
        ),
        Code(
            "gradients-cleared",
            "gradients that were accumulated are lost",
            "call `zero_grad` only after a step of the optimiser",
        ),
        Code(
            "gradients-scaled",
            "gradients are applied some times as large",
            "compare the clipping norm, the loss scale and the division by accumulated batches",
        ),
        Code(
            "batchnorm-momentum",
            "running statistics move by another share a batch",
            "set `momentum` to the baseline's",
        ),
        Code(
            "running-variance-biased",
            "the running variance is updated with the variance divided by n",
            "divide by n - 1",
        ),
        Code(
            "weight-decay",
            "another weight decay for this parameter",
            "set it to the baseline's; compare parameter groups",
        ),
        Code(
            "learning-rate", "the step is some times the baseline's", "compare `lr` of the parameter's group"
        ),
        Code(
            "optimiser-option",
            "another option of the optimiser; not confirmed by numbers",
            "set it to the baseline's",
        ),
        Code(
            "schedule-steps",
            "the schedule is stepped two to four times a step of the optimiser",
            "step it once",
        ),
        Code("schedule-late", "the schedule is one step behind", "step it one step earlier"),
        Code("schedule-early", "the schedule is one step ahead", "step it one step later"),
        Code("schedule-missing", "the learning rate never changes", "step the schedule"),
    ),
    "Nothing found": (
        Code(
            UNEXPLAINED,
            "nothing that differs as written explains the error; its shape is described",
            "follow the evidence: channels, borders, a gain and an offset",
        ),
    ),
}


_HEAD = """\
## The codes

<!-- from here on written by: python -m verifier.diagnose.codebook docs/causes.md -->

A word in capitals stands for a name. An operator goes by torch's name with dashes, without its number of dimensions;
some are shortened: `conv`, `maxpool`, `avgpool`, `batchnorm`, `layernorm`, `groupnorm`, `instancenorm`, `rmsnorm`,
`attention`, and `residual` for an addition. A tensor goes by the name of the argument it is given as: `weight`,
`bias`.
"""


def page() -> str:
    """All codes as Markdown."""
    parts = [_HEAD]
    for family, entries in CODES.items():
        parts.append(f"### {family}\n\n| code | meaning | fix |\n| --- | --- | --- |")
        parts.extend(f"| `{each.code}` | {each.meaning} | {each.fix} |" for each in entries)
        parts.extend(
            f"\n`{each.code}`: {', '.join(f'`{example}`' for example in each.examples)} and others."
            for each in entries
            if each.examples
        )
        parts.append("")
    return "\n".join(parts)


def main(file: Path) -> None:
    """Write the codes anew into a page that has them at its end."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.partition("## The codes\n")[0] + page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
