"""Deployed forms of a model: exported, compiled, scripted, ONNX. Each becomes a program that can be looked into."""
