"""Small models that several processes train between them, right and with planted faults: what is found, and where.

`python -m tests.mutants.shards.training [--ranks 2] [--only TEXT] [--out FILE]` starts torchrun once for each number
of ranks, and prints a line for each case and the shares.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]
TRAINED = "tests.mutants.shards.trained"
FORWARD, LOSS, BACKWARD, APPLIED, UPDATE = "forward", "loss", "backward", "gradients as applied", "optimiser"
EITHER = f"({BACKWARD}|{APPLIED})"  # what is missing belongs between them


class Fault(NamedTuple):
    """Where a fault shows first, as an expression, and what it may be called; no codes where no arithmetic tells."""

    name: str
    recipe: str
    phase: str
    tensor: str
    codes: tuple[str, ...]
    step: int = 0


_DOWN = r"layers\.1\.mlp\.down\.weight"
_UNREDUCED, _SCALED = ("shard-gradient-unreduced",), ("shard-gradient-scaled",)
_APART = "shard-gradient-scaled-apart"
_ALL = {
    each.name: each
    for each in (
        Fault("rate", "adamw", UPDATE, "", ("learning-rate",)),
        Fault("rate-one", "sgd-clip", UPDATE, "", ("shard-options",)),
        Fault("decay", "sgd", UPDATE, "", ("weight-decay",)),
        Fault("decay-one", "adamw", UPDATE, "", ("shard-options",)),
        Fault("beta", "adamw", UPDATE, "", ("optimiser-second-moment",)),
        Fault("beta-one", "sgd", UPDATE, "", ("shard-options",), 1),
        Fault("left-out", "adamw", APPLIED, _DOWN, ("shard-gradient-missing", "frozen")),
        Fault("frozen", "sgd", BACKWARD, _DOWN, ("shard-gradient-missing", "frozen")),
        Fault("uncleared", "sgd", BACKWARD, "", ("gradients-not-cleared",), 1),
        Fault("uncleared-one", "adamw", BACKWARD, "", ("gradients-not-cleared", "shard-differs"), 1),
        Fault("undivided", "sgd-accumulate", LOSS, "", ("loss-scaled",)),
        Fault("reset", "adamw", UPDATE, "", (), 2),
        Fault("reset-one", "sgd", UPDATE, "", ("shard-differs",), 2),
        Fault("unclipped", "sgd-clip", APPLIED, "", ("gradients-scaled",)),
        Fault("clip-local", "sgd-clip", APPLIED, "", (_APART, "gradients-scaled")),
        Fault("clip-copies", "sgd-clip", APPLIED, "", ("gradients-scaled",)),
        Fault("gradient-other", "adamw", APPLIED, _DOWN, (_APART, "shard-differs")),
        Fault("loss-sum", "sgd", LOSS, "", ("loss-scaled",)),
    )
}
_PARTS = ("rate", "rate-one", "decay-one", "beta-one", "left-out", "frozen", "uncleared", "reset-one")
FAULTS: dict[str, tuple[Fault, ...]] = {
    "hand": (
        *(
            _ALL[each]
            for each in (*_PARTS, "undivided", "unclipped", "clip-local", "clip-copies", "loss-sum")
        ),
        Fault("copy", "adamw", BACKWARD, r"layers\.1\.n2\.(weight|bias)", _UNREDUCED),
        Fault("copy-query", "sgd-clip", BACKWARD, r"layers\.1\.n1\.(weight|bias)", _UNREDUCED),
        Fault("copy-head", "adamw", BACKWARD, r"norm\.(weight|bias)", _UNREDUCED),
        Fault("norm-back", "adamw", BACKWARD, r"layers\.1\.attn\.q\.(weight|bias)", ()),
        Fault("both", "adamw-clip", BACKWARD, r"layers\.1\.mlp\.down\.weight", _SCALED),
        Fault("both-attention", "sgd", BACKWARD, r"layers\.1\.attn\.o\.weight", _SCALED),
        Fault("bias-added", "adamw", APPLIED, r"layers\.1\.mlp\.down\.bias", _SCALED),
        Fault("norm-added", "sgd", APPLIED, r"layers\.1\.n2\.weight", _SCALED),
        Fault("gradient-other", "adamw", APPLIED, _DOWN, (_APART, "shard-differs")),
    ),
    "sequence": (
        *(_ALL[each] for each in ("rate-one", "beta", "reset", "uncleared-one", "clip-local", "left-out")),
        Fault("norms", "adamw", EITHER, r"norm\.(weight|bias)", _UNREDUCED),
        Fault("norm-one", "sgd-clip", EITHER, r"layers\.1\.n2\.weight", _UNREDUCED),
        Fault("biases", "adamw-clip", EITHER, r"layers\.1\.mlp\.down\.bias", _UNREDUCED),
        Fault("mean", "adamw", APPLIED, r"norm\.(weight|bias)", _SCALED),
        Fault("embedded", "sgd", APPLIED, r"(emb|patch)\.weight", _SCALED),
        Fault("scatter", "adamw", BACKWARD, r"layers\.1\.n2\.(weight|bias)", ()),
        Fault("scatter-attention", "sgd", BACKWARD, r"layers\.1\.n1\.(weight|bias)", ()),
        Fault("apart", "sgd", BACKWARD, r"norm\.(weight|bias)", _SCALED),
    ),
    "tensor": (
        *(_ALL[each] for each in (*(p for p in _PARTS if p != "rate-one"), "decay", "loss-sum")),
        Fault("norm-added", "sgd", APPLIED, r"layers\.1\.n2\.weight", _SCALED),
        Fault("copies-added", "adamw", APPLIED, r"head\.(weight|bias)", _SCALED),
    ),
    "torch_sequence": tuple(_ALL[each] for each in (*_PARTS, "clip-local", "undivided")),
    "fsdp": (
        *(_ALL[p] for p in (*_PARTS, "clip-local", "unclipped", "undivided") if p != "frozen"),
        Fault("sum", "sgd", BACKWARD, r"head\.(weight|bias)", _SCALED),
        Fault("sum-layer", "adamw", BACKWARD, r"layers\.1\.mlp\.down\.(weight|bias)", _SCALED),
        Fault("no-sync", "sgd", EITHER, "", ("shard-gradient-missing", "steps-different")),
        Fault("loss-sum", "sgd", LOSS, "", ("loss-scaled",)),
    ),
    "fsdp_alike": tuple(_ALL[each] for each in ("rate", "reset", "clip-local", "gradient-other")),
    "ddp": (
        *(_ALL[each] for each in ("rate-one", "decay", "left-out", "uncleared", "reset-one", "undivided")),
        Fault("no-sync", "sgd", BACKWARD, "", _UNREDUCED),
        Fault("past", "adamw-clip", BACKWARD, "", _UNREDUCED),
        Fault("sum", "sgd", "(loss|backward)", "", (*_SCALED, "loss-scaled")),
        Fault("hook-sum", "adamw", BACKWARD, "", _SCALED),
        Fault("loss-sum", "adamw", LOSS, "", ("loss-scaled",)),
        Fault("unclipped", "sgd-clip", APPLIED, "", ("gradients-scaled",)),
    ),
    "ddp_inside": (
        Fault("no-sync", "sgd-accumulate", BACKWARD, "", _UNREDUCED),
        Fault("past", "sgd", BACKWARD, "", _UNREDUCED),
        _ALL["gradient-other"],
    ),
    "average": (
        *(_ALL[each] for each in ("rate-one", "beta-one", "frozen", "uncleared-one", "reset", "undivided")),
        Fault("missing", "sgd-clip", EITHER, "", _UNREDUCED),
        Fault("missing-one", "adamw", EITHER, _DOWN, _UNREDUCED),
        Fault("biases", "adamw", EITHER, "head.bias", _UNREDUCED),
        Fault("sum", "adamw", APPLIED, "", _SCALED),
        Fault("sum-one", "sgd", APPLIED, _DOWN, _SCALED),
        Fault("twice-divided", "sgd", APPLIED, "", _SCALED),
        Fault("twice-one", "sgd", APPLIED, _DOWN, _SCALED),
        Fault("broadcast", "adamw", EITHER, "", _UNREDUCED),
        Fault("clip-first", "sgd-clip", APPLIED, "", ()),
    ),
    "scheduled": (
        *(_ALL[each] for each in ("rate", "uncleared", "reset", "clip-local")),
        Fault(
            "rate-one", "sgd-clip", UPDATE, r"(layers\.1|norm|head)\..*", ("learning-rate", "shard-options")
        ),
        Fault("unscaled", "sgd", "(loss|backward)", "", ("gradient-scaled", "loss-scaled", *_SCALED)),
        Fault("labels", "adamw", LOSS, "", ()),
        Fault(
            "stage-scaled", "sgd", BACKWARD, r"head\.(weight|bias)", ("gradient-scaled", "gradients-scaled")
        ),
        Fault("frozen", "sgd", BACKWARD, _DOWN, ("frozen",)),
        Fault("loss-sum", "sgd", LOSS, "", ("loss-scaled",)),
        Fault("tied", "adamw", EITHER, "emb.weight", _UNREDUCED),
    ),
    "experts": (
        *(_ALL[each] for each in ("rate-one", "decay-one", "uncleared", "reset", "clip-local")),
        Fault("copy", "adamw", BACKWARD, r"layers\.1\.n2\.(weight|bias)", _UNREDUCED),
        Fault("shares", "sgd", BACKWARD, r"layers\.1\.mlp\.router\.(weight|bias)", _UNREDUCED),
        Fault("shares-cut", "adamw", BACKWARD, r"layers\.1\.mlp\.router\.(weight|bias)", ("gradient-cut",)),
        Fault("both", "sgd", BACKWARD, r"layers\.1\.mlp\.experts\.\d\..*", (*_SCALED, "gradient-scaled")),
        Fault(
            "expert-scaled",
            "sgd",
            APPLIED,
            r"layers\.1\.mlp\.experts\.\d\..*",
            ("gradients-scaled", *_SCALED),
        ),
        Fault(
            "expert-divided",
            "adamw",
            APPLIED,
            r"layers\.1\.mlp\.experts\.\d\..*",
            ("gradients-scaled", *_SCALED),
        ),
        Fault("router-added", "sgd", APPLIED, r"layers\.1\.mlp\.router\.(weight|bias)", _SCALED),
        Fault(
            "left-out",
            "adamw",
            APPLIED,
            r"layers\.1\.mlp\.experts\.3\.up\.weight",
            ("frozen", "shard-gradient-missing"),
        ),
    ),
    "mesh": (
        *(_ALL[each] for each in ("rate-one", "left-out", "uncleared", "clip-local", "undivided")),
        Fault("missing", "adamw", EITHER, "", _UNREDUCED),
        Fault("missing-one", "sgd-clip", EITHER, _DOWN, _UNREDUCED),
        Fault("sum", "sgd", APPLIED, "", _SCALED),
        Fault("world", "sgd", APPLIED, "", _SCALED),
        Fault("wrong-group", "adamw", EITHER, r"layers\.1\.attn\.o\.weight", ()),
        Fault("copy", "adamw", BACKWARD, r"layers\.1\.n2\.(weight|bias)", _UNREDUCED),
        Fault("both", "adamw", BACKWARD, _DOWN, ("shard-gradient-scaled",)),
    ),
    "torch_mesh": (
        *(_ALL[each] for each in ("beta-one", "decay", "reset", "left-out", "uncleared")),
        Fault("sum", "sgd", BACKWARD, r"head\.(weight|bias)", _SCALED),
    ),
}
# Which models are trained in which way over how many ranks, and by which recipes where they are right.
GRID: tuple[tuple[int, str, str, tuple[str, ...]], ...] = (
    (2, "llama", "hand", ("adamw", "sgd-clip", "adamw-clip-accumulate")),
    (2, "vit", "hand", ("adamw-clip", "sgd")),
    (2, "llama", "sequence", ("adamw-clip", "sgd-accumulate")),
    (2, "vit", "sequence", ("sgd-clip",)),
    (2, "llama", "tensor", ("adamw", "sgd-accumulate")),
    (2, "vit", "tensor", ("sgd",)),
    (2, "llama", "torch_sequence", ("adamw-clip", "sgd")),
    (2, "llama", "fsdp", ("adamw-clip", "sgd-clip-accumulate")),
    (2, "vit", "fsdp", ("sgd-clip", "adamw-accumulate")),
    (2, "llama", "fsdp_alike", ("adamw-clip",)),
    (2, "llama", "ddp", ("adamw-clip", "sgd-accumulate")),
    (2, "vit", "ddp", ("sgd",)),
    (2, "vit", "ddp_inside", ("adamw-clip",)),
    (2, "llama", "average", ("adamw-clip", "sgd-accumulate")),
    (2, "vit", "average", ("sgd-clip",)),
    (2, "llama", "scheduled", ("adamw-clip", "sgd-clip")),
    (2, "tied", "scheduled", ("adamw",)),
    (2, "moe", "experts", ("adamw-clip", "sgd")),
    (4, "llama", "hand", ("adamw-clip",)),
    (4, "llama", "mesh", ("adamw-clip", "sgd-accumulate")),
    (4, "vit", "mesh", ("sgd",)),
    (4, "llama", "torch_mesh", ("adamw", "sgd-accumulate")),
    (4, "llama", "fsdp", ("sgd",)),
)


def cases(ranks: int, only: str) -> list[str]:
    """All cases for a number of ranks: each fault in the first model of its style that can have it."""
    found, planted = [], set()
    for count, model, style, recipes in GRID:
        if count != ranks:
            continue
        found += [f"{model}/{style}/{recipe}/none" for recipe in recipes]
        for fault in FAULTS[style]:
            tied = fault.name == "tied"
            if tied == (model == "tied") and (style, fault.name) not in planted:
                planted.add((style, fault.name))
                found.append(f"{model}/{style}/{fault.recipe}/{fault.name}")
    return [each for each in found if re.search(only, each)]


def serve(chosen: list[str], out: Path) -> None:
    """Compare every case on this rank; the first writes a line of JSON for each."""
    import importlib

    from verifier.errors import VerifierError
    from verifier.ranks import joined
    from verifier.training.parity import train_parity

    with joined() as team, out.open("a", encoding="utf-8") as lines:
        trained: Any = importlib.import_module(TRAINED)
        for case in chosen:
            os.environ["TRAINED"] = case
            style = case.split("/")[1]
            told: dict[str, Any] = {"case": case, "ranks": team.size}
            began = time.perf_counter()
            try:
                found = train_parity(
                    f"{TRAINED}:whole",
                    f"{TRAINED}:part",
                    trained.batches,
                    trainer=trained.alone,
                    candidate_trainer=trained.together,
                    steps=4,
                    sharded=True,
                    data_parallel=2 if style in trained.SHARED else 1,
                )
            except VerifierError as error:
                told["error"] = str(error)
                if team.leads:
                    print(json.dumps(told), file=lines, flush=True)
                raise
            first: Any = found.first_divergence
            told |= {"verdict": found.verdict, "reason": found.reason, "notes": found.notes}
            told |= {"culprits": len(found.culprits), "seconds": time.perf_counter() - began}
            if first is not None:
                told |= {"phase": first.phase, "tensor": first.tensor, "step": first.step, "what": first.what}
                told |= {"code": first.cause.code, "confirmed": first.cause.confirmed}
                told |= {"others": [[e.step, e.phase, e.tensor] for e in found.culprits[1:]]}
            if team.leads:
                print(json.dumps(told), file=lines, flush=True)


def scored(lines: list[dict[str, Any]]) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """A line of text for each case, and shares."""
    texts: list[str] = []
    shares: dict[str, tuple[int, int]] = {}

    def count(what: str, right: bool) -> bool:
        good, of = shares.get(what, (0, 0))
        shares[what] = good + right, of + 1
        return right

    for each in lines:
        _, style, _, name = each["case"].split("/")
        planted = next((fault for fault in FAULTS[style] if fault.name == name), None)
        verdict = each.get("verdict", "")
        if planted is None:
            fits, wanted = count("right models that match", verdict == "match"), ""
        else:
            at = re.fullmatch(planted.phase, each.get("phase", "")) and each.get("step") == planted.step
            at = at and re.fullmatch(planted.tensor or ".*", each.get("tensor", ""))
            fits = count("faults found", verdict == "diverged")
            fits &= count("first place exact", bool(at))
            if planted.codes:
                fits &= count("cause named", each.get("code") in planted.codes)
            wanted = f"{planted.step} {planted.phase} {planted.tensor} {'|'.join(planted.codes)}"
        said = " ".join(str(each.get(key, "")) for key in ("step", "phase", "what", "tensor", "code"))
        mark = "" if fits else f" <-- {wanted} {each.get('reason', '') if verdict != 'diverged' else ''}"
        texts.append(
            f"{each['ranks']} {each['case']:38} {verdict or each.get('error', '')[:200]:9} {said} "
            f"{each.get('culprits', '')}{mark}"
        )
    return texts, shares


def _read(out: Path) -> list[dict[str, Any]]:
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Run the scorecard."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, choices=(2, 4))
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", nargs="+")
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.out)
        return
    out = asked.out or Path(tempfile.mkdtemp()) / "cases.jsonl"
    for ranks in (2, 4) if asked.ranks is None else (asked.ranks,):
        chosen = cases(ranks, asked.only)
        while chosen:  # a case that fails ends its processes
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
            command += ["-m", "tests.mutants.shards.training", "--out", str(out), "--serve", *chosen]
            subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
            done = {each["case"] for each in _read(out) if each["ranks"] == ranks}
            chosen = [each for each in chosen[1:] if each not in done]
    texts, shares = scored(_read(out))
    print("\n".join(texts))
    for what, (good, of) in shares.items():
        print(f"{what}: {good} of {of} ({good / of:.1%})")


if __name__ == "__main__":
    main()
