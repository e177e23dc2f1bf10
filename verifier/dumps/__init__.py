"""Tensors of a model of any framework, dumped to files, in the baseline's place."""
