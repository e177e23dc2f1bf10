"""What a gate in CI is made of."""
