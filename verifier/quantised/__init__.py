"""Quantised models: that nothing but quantisation explains their difference, and what it costs layer by layer."""
