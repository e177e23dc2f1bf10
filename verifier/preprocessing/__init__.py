"""Photographs into tensors, stage by stage, and whether a candidate does it as torchvision does."""

from verifier.preprocessing.baseline import prepared
from verifier.preprocessing.candidates import FromScratch, Supplied, named
from verifier.preprocessing.comparing import Comparison
from verifier.preprocessing.recipes import RECIPES, Recipe, recipe

__all__ = ["RECIPES", "Comparison", "FromScratch", "Recipe", "Supplied", "named", "prepared", "recipe"]
