"""Small models spread over processes of this machine, right and with planted faults: what is found, and where.

`python -m tests.mutants.shards.scorecard [--ranks 2] [--only TEXT] [--out FILE]` starts torchrun once for each number
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
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]
NETWORKS = "tests.mutants.shards.networks"


class Fault(NamedTuple):
    """Where a fault shows first and what it is called; an empty code is one that no arithmetic of shards explains."""

    name: str
    site: str
    code: str


def _rows(llama: str, vit: str) -> dict[str, str]:
    return {"llama": llama, "vit": vit, "moe": llama}


_COMMON = (
    Fault("unreduced", "layers.1.attn.o", "shard-unreduced"),
    Fault("bias", "layers.1.mlp.down", "shard-bias-repeated"),
    Fault("order", "layers.1.attn.o", "shard-order"),
    Fault("twice", "layers.1.mlp.down", "shard-reduced-twice"),
    Fault("replicas", "NORM layers.1.n2", "shard-replicas"),
)
_HEAD = (
    Fault("gather-order", "head", "shard-order"),
    Fault("axis", "head", "shard-axis"),
    Fault("norm-local", "layers.1.attn.norm.mean", "shard-statistics"),
)
FAULTS: dict[str, tuple[Fault, ...]] = {
    "hand": (
        *_COMMON,
        *_HEAD,
        Fault("uneven", "UP layers.1.mlp", "shard-uneven"),
        Fault("seed-shared", "layers.1.mlp.drop", "shard-seed-shared"),
        Fault("seed-differs", "layers.1.drop", "shard-seed-differs"),
    ),
    "tensor": (*_COMMON, *_HEAD),
    "sequence": (
        *_COMMON,
        Fault("gather-order", "layers.1.attn.q", "shard-order"),
        Fault("axis", "UP layers.1.mlp", "shard-axis"),
        Fault("last-dropped", "FIRST layers.0.n1", "shard-uneven"),
    ),
    "scheduled": (),
    "torch_sequence": (),
    "fsdp": (
        Fault("replicas", "NORM layers.1.n2", "weight-perturbed"),
        Fault("down", "layers.1.mlp.down", "weight-perturbed"),
        Fault("bias-other", "layers.1.attn.o", "bias-perturbed"),
        Fault("head", "head", "weight-perturbed"),
        Fault("query", "layers.1.attn.q", "weight-perturbed"),
        Fault("norm", "NORM norm", "weight-perturbed"),
        Fault("batch-order", "output", "shard-order"),
        Fault("reduced", "layers.1.mlp", "shard-reduced-twice"),
    ),
    "pipeline": (
        Fault("parts-order", "EMBEDDED", "shard-order"),
        Fault("last-dropped", "EMBEDDED", "shard-uneven"),
        Fault("rounded", "FIRST layers.2.n1", "shard-handed-on"),
        Fault("scaled", "FIRST layers.2.n1", "shard-handed-on"),
        Fault("swapped", "NORM layers.3.n1", "shard-exchanged"),
        Fault("weight", "layers.3.mlp.down", "weight-perturbed"),
        Fault("norm", "NORM norm", "weight-perturbed"),
        Fault("bias-zero", "layers.3.attn.o", "bias-perturbed"),
    ),
    "experts": (
        Fault("expert", "layers.1.mlp.experts.0.up", "shard-exchanged"),
        Fault("ranks-swapped", "layers.1.mlp.experts.0.up", "shard-exchanged"),
        Fault("router", "layers.1.mlp.router", "shard-replicas"),
        Fault("routed", "layers.1.mlp.experts.0.up", "shard-exchanged"),
        Fault("dropped", "layers.1.mlp.experts.0.up", "shard-uneven"),
        Fault("shared-everywhere", "layers.1.mlp", "shard-bias-repeated"),
        Fault("unreduced", "layers.1.mlp", "shard-unreduced"),
        Fault("averaged", "layers.1.mlp", ""),
    ),
}
# Which models are spread in which way over how many ranks.
GRID = (
    *((2, each, "hand") for each in ("llama", "vit")),
    *((4, each, "hand") for each in ("llama", "vit")),
    *((n, each, "tensor") for n in (2, 4) for each in ("llama", "vit")),
    *((n, each, "sequence") for n in (2, 4) for each in ("llama", "vit")),
    *((2, each, "fsdp") for each in ("llama", "vit")),
    *((2, each, "pipeline") for each in ("llama", "vit")),
    (2, "llama", "scheduled"),
    (2, "llama", "torch_sequence"),
    (2, "moe", "experts"),
)
BENIGN = {"hand": ("none", "drawing"), "fsdp": ("none", "batch")}


def expected(model: str, fault: Fault) -> str:
    """The site at which a fault shows first, as it is called in a model."""
    word, _, name = fault.site.rpartition(" ")
    if fault.site == "EMBEDDED":
        return "patch" if model == "vit" else "emb"
    ends = {
        "NORM": {"vit": ""}.get(model, ".mul_1"),
        "FIRST": {"vit": ""}.get(model, ".pow"),
        "UP": {"vit": ".up"}.get(model, ".gate"),
    }
    return name + ends.get(word, "")


def truth(style: str, model: str, site: str, ranks: int) -> str | None:
    """How the tensors of a right model lie by how it was spread; None where that is not written down here."""
    inner = re.sub(r"^layers\.\d+\.?", "", site)
    if style in ("pipeline", "scheduled"):
        late = site.startswith(("norm", "head", "layers.2", "layers.3")) or site in ("output", "the model")
        where = f"on rank {1 if late else 0}"
        ends = ("output", "the model") if style == "pipeline" else ("output",)
        return where if site in ends else f"{where}, shard(0)"
    if style == "fsdp":
        return "replica"
    if style == "experts":
        found = re.search(r"experts\.(\d)", site)
        return "replica" if found is None else f"on rank {int(found[1]) * ranks // 4}"
    if re.match(r"attn\.norm\.(mean|add|rsqrt)", inner):
        return "replica"
    inside = re.match(r"attn\.(q|k|v|norm|view|flatten|transpose_3)|mlp\.(gate|up|silu|gelu|mul|drop)", inner)
    if re.match(r"attn\.(transpose(_[12])?$|scaled)", inner):
        return "shard(1)"
    if inside:
        return "shard(2)"
    if style in ("sequence", "torch_sequence") and site.startswith(("layers", "norm")):
        return "shard(1)"
    return "replica"


def cases(ranks: int, only: str) -> list[str]:
    """All cases for a number of ranks, as `MODEL/STYLE/FAULT`."""
    found = []
    for count, model, style in GRID:
        if count == ranks:
            found += [f"{model}/{style}/{name}" for name in BENIGN.get(style, ("none",))]
            found += [f"{model}/{style}/{fault.name}" for fault in FAULTS[style]]
    return [each for each in found if only in each]


def serve(chosen: list[str], out: Path) -> None:
    """Verify every case on this rank; the first writes a line of JSON for each."""
    import importlib

    from verifier import verify
    from verifier.errors import VerifierError
    from verifier.ranks import joined

    with joined() as team, out.open("a", encoding="utf-8") as lines:
        networks = importlib.import_module(NETWORKS)
        for case in chosen:
            os.environ["SHARDS"] = case
            told: dict[str, Any] = {"case": case, "ranks": team.size}
            try:
                found = verify(f"{NETWORKS}:whole", f"{NETWORKS}:part", networks.inputs(), sharded=True)
            except VerifierError as error:
                told["error"] = str(error)
                if team.leads:
                    print(json.dumps(told), file=lines, flush=True)
                raise
            first = found.first_divergence
            told |= {
                "verdict": found.verdict,
                "site": first.baseline if first is not None else "",
                "code": first.cause.code if first is not None and first.cause is not None else "",
                "status": first.cause.status if first is not None and first.cause is not None else "",
                "culprits": len(found.culprits),
                "seconds": found.seconds,
                "placements": [[row.baseline, row.placement] for row in found.cells[0].layers],
            }
            if team.leads:
                print(json.dumps(told), file=lines, flush=True)


def scored(lines: list[dict[str, Any]]) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """A line of text for each case, and shares."""
    texts: list[str] = []
    shares: dict[str, tuple[int, int]] = {}

    def count(what: str, right: bool) -> None:
        good, of = shares.get(what, (0, 0))
        shares[what] = good + right, of + 1

    for each in lines:
        model, style, name = each["case"].split("/")
        planted = next((fault for fault in FAULTS[style] if fault.name == name), None)
        verdict, site, code = (each.get(k, "") for k in ("verdict", "site", "code"))
        if planted is None:
            count("right models that match", verdict == "match")
            mark = "" if verdict == "match" else " <--"
            wrong = [
                (where, how, right)
                for where, how in each.get("placements", [])
                if (right := truth("batch" if name == "batch" else style, model, where, each["ranks"]))
                is not None
                and how.removesuffix(" (ambiguous)") != right
            ]
            total = len(each.get("placements", []))
            if style not in ("tensor", "torch_sequence") and name != "batch":
                good, of = shares.get("placements told", (0, 0))
                shares["placements told"] = good + total - len(wrong), of + total
                mark += "".join(f" [{w}]" for w in wrong[:3])
        else:
            where = expected(model, planted)
            count("faults found", verdict == "diverged")
            count("first site exact", site == where)
            if planted.code:
                count("cause named", code == planted.code)
            fits = site == where and code == (planted.code or code)
            mark = "" if fits else f" <-- {where} {planted.code}"
        texts.append(
            f"{each['ranks']} {each['case']:32} {verdict or each.get('error', '')[:80]:10} {site} {code} "
            f"{each.get('status', '')} {each.get('culprits', '')}{mark}"
        )
    return texts, shares


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
        if chosen := cases(ranks, asked.only):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
            command = [
                *torchrun,
                "-m",
                "tests.mutants.shards.scorecard",
                "--out",
                str(out),
                "--serve",
                *chosen,
            ]
            subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    texts, shares = scored([json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()])
    print("\n".join(texts))
    for what, (good, of) in shares.items():
        print(f"{what}: {good} of {of} ({good / of:.1%})")


if __name__ == "__main__":
    main()
