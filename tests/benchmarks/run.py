"""What a verification costs, next to what it replaces: `nox -s bench`, or `python tests/benchmarks/run.py`.

Ratios are medians over neighbouring calls, measured in one process in alternation; absolute times are the
machine's. Memory is peak resident memory of the whole process, interpreter and weights included.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

WHAT = [
    "passes",
    "memory",
    "depth",
    "command",
    "account",
    "device",
    "certificates",
    "forms",
    "peers",
    "scale",
]
PLAIN = """
import torch, torchvision
import reference_models
a, b = torchvision.models.resnet50().eval(), reference_models.get("resnet50")().eval()
with torch.no_grad():
    x = torch.randn(8, 3, 224, 224)
    a(x), b(x)
"""


def main() -> None:
    """Run the benchmarks that were asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        choices=[*WHAT, []],
        default=[],
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    wanted = options.what or WHAT
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if "passes" in wanted or "memory" in wanted:
        from tests.benchmarks.subjects import resnet50

        subject = resnet50(options.batch_size, options.image_size)
        print(f"\nResNet-50, batch {options.batch_size}, {options.image_size} px, float32")
        if "passes" in wanted:
            passes(subject, options.rounds)
        if "memory" in wanted:
            memory(subject)
        del subject
    if "depth" in wanted:
        depth()
    if "command" in wanted:
        command(max(3, options.rounds // 3))
    if "account" in wanted:
        from tests.benchmarks.account import account
        from tests.benchmarks.subjects import of_the_account

        for given in of_the_account():
            account(given, max(3, options.rounds // 5))
    if "certificates" in wanted:
        from tests.benchmarks.certificates import certificates

        certificates(max(3, options.rounds // 3))
    if "forms" in wanted:
        from tests.benchmarks.forms import forms

        forms(max(3, options.rounds // 5))
    if "peers" in wanted:
        from tests.benchmarks.peers import peers

        peers(max(3, options.rounds // 5))
    if "scale" in wanted:
        from tests.benchmarks.scale import scale

        scale()
    if "device" in wanted:
        from tests.benchmarks.device import device

        device(options.rounds)


def passes(subject, rounds: int) -> None:  # type: ignore[no-untyped-def]
    """Free pass, both passes and the recipe over two bare forwards."""
    from tests.benchmarks.measuring import alternate, ratio

    functions = {
        "two bare forwards": subject.bare,
        "free pass": subject.free_pass,
        "free and forced pass": subject.both_passes,
    }
    seconds = alternate(functions, rounds)
    slow = alternate(
        {"two bare forwards": subject.bare, "clone, then scipy": subject.recipe}, max(3, rounds // 4)
    )
    seconds["clone, then scipy"] = slow["clone, then scipy"]
    base = dict.fromkeys(functions, seconds["two bare forwards"])
    base["clone, then scipy"] = slow["two bare forwards"]
    for name, values in seconds.items():
        print(
            f"  {name:22} {statistics.median(values):6.2f} s   x {ratio(values, base[name]):.2f}"
            f"   (min {min(values):.2f}, max {max(values):.2f})"
        )


def memory(subject) -> None:  # type: ignore[no-untyped-def]
    """Peak resident memory of each, over that of two bare forwards."""
    from tests.benchmarks.measuring import peak_memory
    from verifier.estimate.memory import known

    if not known():
        print("  peak memory: not measured, /proc/self/clear_refs is missing")
        return
    functions = (
        ("two bare forwards", subject.bare),
        ("free pass", subject.free_pass),
        ("clone, then scipy", subject.recipe),
    )
    peaks: dict[str, list[int]] = {name: [] for name, _ in functions}
    for _ in range(3):
        for name, function in functions:
            peaks[name].append(peak_memory(function)[1])
    base = statistics.median(peaks["two bare forwards"])
    for name, values in peaks.items():
        median = statistics.median(values)
        print(f"  {name:22} {median / 2**20:6.0f} MiB peak   x {median / base:.2f}")


def depth() -> None:
    """Peak memory of a free pass over a shallow and a deep network of one width, weights aside."""
    from tests.benchmarks.measuring import peak_memory
    from tests.benchmarks.subjects import chain
    from verifier.estimate.memory import known

    if not known():
        return
    print("\nResidual chain, width 16, batch 32, 32 px, float32: free pass")
    grown = {}
    for layers in (20, 1202):
        subject = chain(layers)
        subject.free_pass()
        before, peak = min(peak_memory(subject.free_pass) for _ in range(3))
        weights = sum(t.nbytes for t in subject.subject.masters.baseline.values())
        grown[layers] = peak - weights
        print(
            f"  {layers:5} layers   {peak / 2**20:6.0f} MiB peak, {weights / 2**20:5.1f} MiB of it weights, "
            f"{(peak - before) / 2**20:5.1f} MiB more than before the pass"
        )
        del subject
    print(f"  1202 layers over 20, weights aside: x {grown[1202] / grown[20]:.3f}")


def command(rounds: int) -> None:
    """The whole command over a script that imports, builds and runs both models."""
    from tests.benchmarks.measuring import alternate, ratio

    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "verifier", "run", "--arch", "resnet50", "--out", folder]

        def call(arguments: list[str]) -> None:
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

        seconds = alternate(
            {"plain script": lambda: call([sys.executable, "-c", PLAIN]), "verifier run": lambda: call(run)},
            rounds,
        )
    print("\nThe whole command, --arch resnet50, imports and all")
    for name, values in seconds.items():
        over = ratio(values, seconds["plain script"])
        print(f"  {name:22} {statistics.median(values):6.2f} s   x {over:.2f}")


if __name__ == "__main__":
    main()
