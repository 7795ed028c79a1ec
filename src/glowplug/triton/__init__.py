"""Triton Inference Server: model repositories made and tuned, and a server found, installed and started.

Values and decisions are pure (`pbtxt`, `model_config`, `plan`, `settings`, `search`); files are touched in
`repository` and `install`, processes in `perf` and `server`, the server's repository API in `control`.
"""
