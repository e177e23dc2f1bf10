"""What a verification will take, in seconds and bytes, told by its graphs and a few short runs."""

from verifier.estimate.phases import Estimate, Phase, estimated

__all__ = ["Estimate", "Phase", "estimated"]
