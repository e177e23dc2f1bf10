"""What numbers say of an alignment."""
