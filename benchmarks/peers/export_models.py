"""Writes each architecture's weights, its ONNX file, and rows with their right answers, below the folder named.

`python export_models.py FOLDER`. Fails where onnxruntime and torch do not agree: a model that was exported in
training mode, say.
"""

import os
import sys

import numpy as np
import onnxruntime
import torch
from architectures import ARCHITECTURES, TOKENS, WEIGHTS, build

ROWS = 4
TOLERANCE = 1e-3


def main(root: str) -> None:
    for name in ARCHITECTURES:
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        model = build(folder)
        torch.save(model.state_dict(), os.path.join(folder, WEIGHTS))
        rows = [example(model, seed) for seed in range(ROWS)]
        export(model, rows[0], os.path.join(folder, "model.onnx"))
        answers = check(model, rows, os.path.join(folder, "model.onnx"))
        arrays = {f"{index}.{key}": value for index, row in enumerate(rows) for key, value in row.items()}
        np.savez(os.path.join(folder, "rows.npz"), answers=answers, **arrays)


def example(model, seed: int):
    """One row of inputs by name."""
    generator = np.random.default_rng(seed)
    row = {}
    for name, dtype, shape in model.inputs:
        if name == "attention_mask":
            row[name] = np.ones(shape, dtype=dtype)
        elif shape[-1] == TOKENS:
            row[name] = generator.integers(1000, 30000, shape).astype(dtype)
        else:
            row[name] = generator.random(shape, dtype=np.float32)
    return row


def export(model, row, path: str) -> None:
    batch = torch.export.Dim("n", min=1, max=64)
    torch.onnx.export(
        model, tuple(torch.from_numpy(value) for value in row.values()), path,
        input_names=list(row), output_names=["logits"],
        dynamic_shapes=tuple({0: batch} for _ in row), external_data=False, dynamo=True,
    )  # fmt: skip


def check(model, rows, path: str):
    """The answers by torch [rows, labels]; asserts that onnxruntime gives the same."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = []
    for row in rows:
        with torch.inference_mode():
            expected = model(*(torch.from_numpy(value) for value in row.values())).numpy()
        found = session.run(None, row)[0]
        assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max()), path
        answers.append(expected[0])
    return np.stack(answers)


if __name__ == "__main__":
    main(sys.argv[1])
