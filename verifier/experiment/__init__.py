"""Networks trained to the end, each beside its baseline twin."""
