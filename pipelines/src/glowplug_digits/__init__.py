"""The digits workload: a small convolutional net of scanned digits, trained with PyTorch, exported to ONNX.

May import glowplug_pipelines and what that may; nothing imports this but by its name in a pipeline's settings. PyTorch
is imported by what trains, and only there.
"""
