"""What a verification will take, in seconds and bytes, told by its graphs and a few short runs."""

from verifier.estimate.phases import estimated

__all__ = ["estimated"]
