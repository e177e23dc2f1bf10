"""What goes into both models: random numbers, photographs, a file's tensors or live ones."""

from verifier.inputs.files import file
from verifier.inputs.given import Inputs, named, normal, paired, parse_image_size, tensors
from verifier.inputs.images import SAMPLES, images, photographs, read_photographs

__all__ = [
    "SAMPLES",
    "Inputs",
    "file",
    "images",
    "named",
    "normal",
    "paired",
    "parse_image_size",
    "photographs",
    "read_photographs",
    "tensors",
]
