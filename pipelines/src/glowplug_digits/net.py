"""The net, its training and its export. PyTorch is imported in these functions: serving and comparing need none of it.

One thread and one seed: the same rows give the same weights on the same build of PyTorch.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError
from glowplug_digits.scans import CLASSES, SHAPE, SIZE
from glowplug_pipelines.rows import Float32s, Float64s
from glowplug_pipelines.workload import Progress

INPUT, OUTPUT = "image", "probabilities"
SEED = 1998
_OPSET = 17
_BATCH = 64
_RATE = 2e-3


@dataclass(frozen=True)
class Part:
    """`features` [n, 192], `labels` [n]."""

    features: Float32s
    labels: Float64s


@dataclass(frozen=True)
class Trained:
    """The module of the best epoch, in eval mode: [n, 3, 8, 8] to probabilities [n, 10]."""

    module: Any
    epoch: int
    loss: float
    accuracy: float


def train(known: Part, validation: Part, epochs: int, progress: Progress) -> Trained:
    """The epoch that loses least on `validation` is kept."""
    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            return _train(torch, known, validation, epochs, progress)
    finally:
        torch.set_num_threads(before)


def export(trained: Trained, path: Path) -> None:
    """The module as an ONNX file with any number of rows."""
    torch = import_torch()
    # The tracing exporter: the other one needs a package more.
    more = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of what is constant; what is served is compared with the held-out rows anyway.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            trained.module,
            (torch.zeros(2, *SHAPE),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "rows"} for name in (INPUT, OUTPUT)},
            opset_version=_OPSET,
            **more,
        )


def import_torch() -> Any:
    """Raises `ConfigError` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
    except ImportError as error:
        raise ConfigError("PyTorch is not installed", hint="pip install 'glowplug[torch]'") from error
    return torch


def _train(torch: Any, known: Part, validation: Part, epochs: int, progress: Progress) -> Trained:
    net = _net(torch)
    images, labels = _tensors(torch, known)
    optimizer = torch.optim.Adam(net.parameters(), lr=_RATE)
    best, best_loss, best_epoch = copy.deepcopy(net.state_dict()), np.inf, 0
    for epoch in range(epochs):
        net.train()
        for chosen in torch.randperm(len(labels)).split(_BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        loss, _ = _measured(torch, net, validation)
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(net.state_dict()), loss, epoch + 1
        progress("training", epoch + 1, epochs)
    net.load_state_dict(best)
    loss, accuracy = _measured(torch, net, validation)
    return Trained(torch.nn.Sequential(net, torch.nn.Softmax(dim=1)).eval(), best_epoch, loss, accuracy)


def _net(torch: Any) -> Any:
    """[n, 3, 8, 8] of 0 to 1 to logits: two convolutions, 13,000 weights. The scans are gray, so one channel is all."""
    layers = torch.nn

    class Gray(layers.Module):  # type: ignore[misc, name-defined]  # torch is imported late, and untyped here
        def forward(self, images: Any) -> Any:
            return images.mean(dim=1, keepdim=True) * 2 - 1

    return layers.Sequential(
        Gray(),
        layers.Conv2d(1, 16, 3, padding=1),
        layers.ReLU(),
        layers.Conv2d(16, 32, 3, padding=1),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Dropout(0.2),
        layers.Linear(32 * (SIZE // 2) ** 2, CLASSES),
    )


def _measured(torch: Any, net: Any, part: Part) -> tuple[float, float]:
    """(mean log loss, accuracy)."""
    images, labels = _tensors(torch, part)
    net.eval()
    with torch.no_grad():
        logits = net(images)
        loss = float(torch.nn.functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(dim=1) == labels).float().mean())


def _tensors(torch: Any, part: Part) -> tuple[Any, Any]:
    images = torch.from_numpy(np.ascontiguousarray(part.features)).reshape(-1, *SHAPE)
    return images, torch.from_numpy(part.labels.astype(np.int64))
