"""A step makes a later call as it made its last one, and keeps no tensor of it."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import torch

from verifier.forms.begun import Begun, Shipped


def test_other_tensors_take_the_places_of_those_that_were_given() -> None:
    x, y, axes = torch.ones(2), torch.zeros(2), np.array([1])
    begun = Begun.of("settings", [x, axes, y, x], [x, y, x], native=True)
    a, b, c = torch.full((2,), 3.0), torch.full((2,), 4.0), torch.full((2,), 5.0)
    assert begun.with_tensors("settings", [a, b, c]) == [a, axes, b, c]


def test_another_call_is_not_made_by_the_kernel() -> None:
    x = torch.ones(2)
    begun = Begun.of("settings", [x], [x], native=True)
    assert begun.with_tensors("others", [x]) is None
    assert begun.with_tensors("settings", [x.double()]) is None
    assert Begun.of("settings", [x], [x], native=False).with_tensors("settings", [x]) is None


def test_no_tensor_is_kept() -> None:
    x, weight = torch.ones(2), torch.ones(3)
    shipped = Shipped({"weight": np.ones(3, dtype=np.float32)})
    begun = Begun.of("settings", [x, weight], [x, weight], native=True)
    assert shipped.holds("weight", weight)
    seen = weakref.ref(x), weakref.ref(weight)
    del x, weight
    gc.collect()
    assert [each() for each in seen] == [None, None]
    assert begun.native


def test_a_weight_that_was_changed_is_not_the_files() -> None:
    shipped = Shipped({"weight": np.ones(3, dtype=np.float32)})
    assert shipped.holds("weight", torch.ones(3))
    assert not shipped.holds("weight", torch.tensor([1.0, 1.0, 1.0 + 2**-23]))
    assert not shipped.holds("weight", torch.ones(3, dtype=torch.float64))
    assert not shipped.holds("bias", torch.ones(3))
