"""What goes into both models: random numbers, photographs, what a file holds or a function returns, live tensors."""

from verifier.inputs.data import data, streamed_images
from verifier.inputs.files import file
from verifier.inputs.functions import function, read
from verifier.inputs.given import Inputs, named, normal, paired, parse_image_size, tensors
from verifier.inputs.images import SAMPLES, images, photographs, read_photographs
from verifier.inputs.scales import at_scales
from verifier.inputs.streams import Stream, headed, informed

__all__ = [
    "SAMPLES",
    "Inputs",
    "Stream",
    "at_scales",
    "data",
    "file",
    "function",
    "headed",
    "images",
    "informed",
    "named",
    "normal",
    "paired",
    "parse_image_size",
    "photographs",
    "read",
    "read_photographs",
    "streamed_images",
    "tensors",
]
