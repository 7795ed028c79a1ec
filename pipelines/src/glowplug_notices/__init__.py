"""The notices workload: a small BERT that reads a flight's line of text and says whether it will arrive late.

May import glowplug_pipelines, glowplug_flights (the raw data) and what these may; nothing imports this but by its name
in a pipeline's settings. PyTorch and transformers are imported by what trains and loads, and only there.
"""
