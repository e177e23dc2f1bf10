"""A model's run kept as hashes, moments and sketches, and compared without the model."""
