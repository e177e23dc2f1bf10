"""A few planted faults of trainings between processes, one start of torchrun for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch.distributed

from tests.mutants.shards.training import ROOT, scored

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="needs gloo"
)

CASES = (
    "llama/ddp/adamw-clip/none",
    "llama/scheduled/sgd-clip/none",
    "llama/hand/sgd/frozen",
    "llama/hand/sgd-clip/copy-query",
    "llama/sequence/sgd/apart",
    "llama/sequence/adamw/uncleared-one",
    "llama/average/adamw/missing-one",
    "llama/fsdp/adamw/sum-layer",
)


def test_faults_of_trainings_are_found_where_they_were_planted(tmp_path: Path) -> None:
    out = tmp_path / "cases.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    serve = ["-m", "tests.mutants.shards.training", "--out", str(out), "--serve", *CASES]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *serve], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    texts, shares = scored([json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()])
    assert len(texts) == len(CASES)
    assert all(good == of for good, of in shares.values()), "\n".join(texts)
