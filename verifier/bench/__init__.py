"""Two models on the bench: paired, run, run again, run alone and beside the oracle."""
