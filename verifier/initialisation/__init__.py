"""Do two models start from the same values, or from the same distributions?

`comparing.verify_initialisation` answers it; `records` are what it leaves behind, and all that reports may look at.
Nothing here imports torch before it is needed.
"""
