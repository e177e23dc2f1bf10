"""What a verification will take, in seconds and bytes, told by its graphs and a few short runs."""

from verifier.estimate.ahead import told_ahead
from verifier.estimate.phases import estimated

__all__ = ["estimated", "told_ahead"]
