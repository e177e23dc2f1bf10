"""What relates two tensors: a gain, another order, rounding, another way of preparing an image."""
