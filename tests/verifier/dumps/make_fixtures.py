# mypy: ignore-errors
# The suite is checked where jax and flax, which made the dumps, are not installed.
"""Dumps of small networks made by Flax, which the tests read: `python make_fixtures.py`, with jax and flax.

The suite itself needs neither: the files lie beside this one, `flax.txt` says which versions made them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).parent


class ConvNet(nn.Module):
    """Two convolutions with norms, a pool between, a head; pictures are NHWC."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(6, (3, 3), padding=1)(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        x = nn.relu(x)
        self.sow("intermediates", "relu_0", x)
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        self.sow("intermediates", "pool_0", x)
        x = nn.Conv(8, (3, 3), padding=1, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        x = nn.gelu(x, approximate=False)
        self.sow("intermediates", "gelu_0", x)
        x = x.mean((1, 2))
        return nn.Dense(5)(x)


class Block(nn.Module):
    """A transformer block over (batch, time, features), and a head for every token."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(11, 12)(tokens)
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=3)(y, y)
        self.sow("intermediates", "add_0", x)
        y = nn.LayerNorm()(x)
        y = nn.Dense(24)(y)
        y = nn.gelu(y, approximate=False)
        self.sow("intermediates", "gelu_0", y)
        x = x + nn.Dense(12)(y)
        self.sow("intermediates", "add_1", x)
        return nn.Dense(11)(x)


class Recurrent(nn.Module):
    """An LSTM over (batch, time, features), and a head for every step."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.RNN(nn.OptimizedLSTMCell(7))(x)
        x = nn.relu(nn.Dense(9)(x))
        self.sow("intermediates", "relu_0", x)
        return nn.Dense(4)(x)


def flat(tree: Any, path: tuple[str, ...] = ()) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of a nested dict by path; what was sown once is no tuple."""
    if isinstance(tree, tuple | list):
        items = [("" if len(tree) == 1 else str(k), each) for k, each in enumerate(tree)]
    elif hasattr(tree, "items"):
        items = list(tree.items())
    else:
        return {"/".join(path): np.asarray(tree)}
    found: dict[str, np.ndarray[Any, Any]] = {}
    for key, value in items:
        if (*path, key) and not (isinstance(value, tuple) and not value):
            found |= flat(value, (*path, key) if key else path)
    return found


def drawn(variables: Any, seed: int) -> Any:
    """The same tree with numbers in it that excite every parameter; variances stay positive."""
    generator = np.random.default_rng(seed)

    def one(path: Any, leaf: Any) -> Any:
        name = path[-1].key
        numbers = generator.normal(size=leaf.shape)
        if name in ("scale", "var"):
            return jnp.asarray(1 + 0.3 * np.abs(numbers), leaf.dtype)
        if leaf.ndim == 1:
            return jnp.asarray(0.3 * numbers, leaf.dtype)
        return jnp.asarray(numbers / np.sqrt(max(1, np.prod(leaf.shape[:-1]))), leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, variables)


def dumped(model: nn.Module, x: Any, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Parameters, statistics, what went in and every intermediate, by Flax's own paths, in its own order."""
    variables = drawn(model.init(jax.random.key(seed), x), seed)
    y, state = model.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    found = flat({**variables, "inputs": x, **state})
    assert np.array_equal(found["intermediates/__call__"], np.asarray(y))
    return found


def main() -> None:
    """Write all of them."""
    jax.config.update("jax_enable_x64", True)
    generator = np.random.default_rng(5)
    pictures = generator.normal(size=(3, 8, 8, 3))
    tokens = generator.integers(0, 11, size=(2, 5)).astype(np.int32)
    series = generator.normal(size=(3, 6, 5)).astype(np.float32)
    single = dumped(ConvNet(), jnp.asarray(pictures, jnp.float32), 0)
    np.savez_compressed(HERE / "convnet.npz", **single)
    with jax.default_matmul_precision("highest"):
        double = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64),
            drawn(ConvNet().init(jax.random.key(0), jnp.asarray(pictures, jnp.float32)), 0),
        )
        x = jnp.asarray(pictures, jnp.float32).astype(jnp.float64)
        _, state = ConvNet().apply(double, x, capture_intermediates=True, mutable=["intermediates"])
    np.savez_compressed(HERE / "convnet64.npz", **flat({"inputs": x, **state}))
    np.savez_compressed(HERE / "block.npz", **dumped(Block(), jnp.asarray(tokens), 1))
    np.savez_compressed(HERE / "lstm.npz", **dumped(Recurrent(), jnp.asarray(series), 2))
    versions = f"jax {jax.__version__}, flax {flax.__version__}, numpy {np.__version__}\n"
    (HERE / "flax.txt").write_text(versions, encoding="utf-8")
    for path in sorted(HERE.glob("*.npz")):
        with zipfile.ZipFile(path) as archive:
            print(path.name, path.stat().st_size, *(each.filename for each in archive.infolist()), sep="\n  ")


if __name__ == "__main__":
    main()
