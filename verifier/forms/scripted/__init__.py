"""TorchScript: modules that were scripted, traced or frozen, as programs that run in Python."""
