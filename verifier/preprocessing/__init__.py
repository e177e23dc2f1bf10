"""Photographs into tensors, stage by stage, and whether a candidate does it as torchvision does."""

from verifier.preprocessing.baseline import prepared
from verifier.preprocessing.candidates import REFERENCE, FromScratch, Supplied, named
from verifier.preprocessing.comparing import PhotographComparison
from verifier.preprocessing.recipes import RECIPES, recipe

__all__ = [
    "RECIPES",
    "REFERENCE",
    "FromScratch",
    "PhotographComparison",
    "Supplied",
    "named",
    "prepared",
    "recipe",
]
