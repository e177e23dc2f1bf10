"""Training: is a candidate trained as its baseline is, and how well does it learn?

`recipe` says how to train, `procedure` does it, `data` holds what is learnt from. `parity` trains two models side by
side and compares every phase of every step; `experiment` trains a network to its end, with checkpoints. `records` are
what both leave behind, and all that reports may look at. Nothing here imports torch before it is needed.
"""
