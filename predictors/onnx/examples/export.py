"""Makes the ONNX files of the examples: ResNet-50 (224 x 224 images) and BERT-base (128 tokens).

    python predictors/onnx/examples/export.py resnet50 --output ~/models/resnet50 --pretrained microsoft/resnet-50
    python predictors/onnx/examples/export.py bert --output ~/models/bert-base --pretrained ~/weights/my-bert

`--pretrained` is a name on the Hugging Face hub or a folder; without it the weights are random, which is enough to try
the server and to measure it. Needs the extra `torch` and the packages onnx and onnxruntime. The file is checked
against PyTorch before the script says that it is done.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

IMAGE, TOKENS, OPSET = 224, 128, 17
# Of the largest logit: float32 sums in another order.
TOLERANCE = 1e-3


class Logits(torch.nn.Module):
    """A Hugging Face model that takes tensors by position and answers with its logits alone."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Any) -> Any:
        """Logits [n, labels]."""
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def resnet50(pretrained: str | None) -> tuple[Any, dict[str, Any]]:
    """The model, and three rows to trace and to check it with."""
    kind = transformers.ResNetForImageClassification
    model = (
        kind.from_pretrained(pretrained) if pretrained else kind(transformers.ResNetConfig(num_labels=1000))
    )
    return model, {"pixel_values": torch.randn(3, 3, IMAGE, IMAGE)}


def bert(pretrained: str | None) -> tuple[Any, dict[str, Any]]:
    """The same; the second row has half of its tokens masked."""
    kind = transformers.AutoModelForSequenceClassification
    config = transformers.BertConfig(num_labels=2)
    model = kind.from_pretrained(pretrained) if pretrained else kind.from_config(config)
    mask = torch.ones(3, TOKENS, dtype=torch.int64)
    mask[1, TOKENS // 2 :] = 0
    return model, {"input_ids": torch.randint(model.config.vocab_size, (3, TOKENS)), "attention_mask": mask}


EXAMPLES = {"resnet50": resnet50, "bert": bert}


def export(model: Any, rows: dict[str, Any], path: Path) -> float:
    """Writes the file, with a first axis of any size; returns the largest difference, SystemExit where it is large.

    It is the wrapper that must be put in eval mode: with its dropout on, a model is exported without a word.
    """
    wrapped = Logits(model, tuple(rows)).eval()
    more = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of constants; whether they matter is checked below, with other numbers of rows.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            tuple(rows.values()),
            str(path),
            input_names=list(rows),
            output_names=["logits"],
            dynamic_axes={name: {0: "n"} for name in (*rows, "logits")},
            opset_version=OPSET,
            **more,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (3, 1):
        part = {name: tensor[:count] for name, tensor in rows.items()}
        with torch.no_grad():
            expected = wrapped(*part.values()).numpy()
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in part.items()})
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    if not worst <= TOLERANCE:
        path.unlink()
        raise SystemExit(f"error: the ONNX model differs from PyTorch's by {worst:.1e} of the largest logit")
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Exports an example model to ONNX.")
    parser.add_argument("example", choices=sorted(EXAMPLES))
    parser.add_argument("--output", type=Path, required=True, help="folder for model.onnx")
    parser.add_argument("--pretrained", help="name or folder of the weights (default: random ones)")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    options.output.mkdir(parents=True, exist_ok=True)
    model, rows = EXAMPLES[options.example](options.pretrained)
    path = options.output / "model.onnx"
    worst = export(model, rows, path)
    print(f"{path}: {path.stat().st_size / 2**20:.0f} MiB, within {worst:.1e} of PyTorch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
