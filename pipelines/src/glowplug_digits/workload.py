"""The digits workload of the pipelines: which digit was scanned, as `predictors/onnx` answers it.

The features are the image transformer's tensor, pixel by pixel: what a predictor in a pod of its own is sent, and the
drift detector sees. `options` of the settings: `epochs`, at most how many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from glowplug.errors import ConfigError, StorageError
from glowplug.registry.signature import Signature, TensorType
from glowplug_digits import net
from glowplug_digits.scans import CLASSES, NAMES, SHAPE, read_scans
from glowplug_pipelines.predictions import log_losses, shares
from glowplug_pipelines.rows import Float64s, Rows, milliseconds
from glowplug_pipelines.settings import Settings, Span
from glowplug_pipelines.workload import Progress

MODEL_FILE = "model.onnx"
EPOCHS = 20
_OPTIONS = frozenset({"epochs"})


@dataclass(frozen=True)
class DigitsPredictor:
    """The exported file, computed by onnxruntime: what is compared is what will be served."""

    session: Any
    names: tuple[str, ...] = NAMES
    importance: tuple[float, ...] | None = None

    def predict(self, rows: Rows) -> Float64s:
        images = rows.features.reshape(-1, *SHAPE)
        return np.asarray(self.session.run([net.OUTPUT], {net.INPUT: images})[0], dtype=np.float64)


class Digits:
    """See `glowplug_pipelines.workload.Workload`. The label is the digit, the loss that of its probability."""

    unit: ClassVar[str] = "nats"
    slices: ClassVar[tuple[str, ...]] = ("digit",)
    signature: ClassVar[Signature] = Signature(
        {net.INPUT: TensorType("float32", (-1, *SHAPE))},
        {net.OUTPUT: TensorType("float32", (-1, CLASSES))},
    )

    def __init__(self, settings: Settings) -> None:
        """Raises `ConfigError` for options that are wrong."""
        unknown = sorted(set(settings.options) - _OPTIONS)
        if unknown:
            raise ConfigError(
                f"options.{unknown[0]} is unknown, must be one of {', '.join(sorted(_OPTIONS))}"
            )
        self._epochs = settings.options.get("epochs", EPOCHS)
        if type(self._epochs) is not int or self._epochs < 1:
            raise ConfigError(f"options.epochs = {self._epochs!r}, must be a whole number of 1 or more")

    @property
    def schema_hash(self) -> str:
        return f"image-{'x'.join(map(str, SHAPE))}"

    def rows(self, span: Span, progress: Progress) -> Rows:
        """Who scans a digit knows which it is: every label is known at once."""
        progress("reading the scans", 0, 0)
        scans = read_scans()
        columns = {"digit": scans.labels.astype(np.int64).astype(np.str_)}
        every = Rows(scans.features, NAMES, scans.labels, scans.event_ms, columns)
        return every.where(
            (every.event_ms >= milliseconds(span.start)) & (every.event_ms < milliseconds(span.stop))
        )

    def train(self, fit: Rows, validation: Rows, directory: Path, progress: Progress) -> Mapping[str, float]:
        known, seen = (net.Part(rows.features, rows.labels) for rows in (fit, validation))
        trained = net.train(known, seen, self._epochs, progress)
        net.export(trained, directory / MODEL_FILE)
        return {
            "validation_loss": trained.loss,
            "validation_accuracy": trained.accuracy,
            "epochs": float(trained.epoch),
        }

    def load(self, directory: Path) -> DigitsPredictor:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = directory / MODEL_FILE
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own are of no common kind
            raise StorageError(f"{path} cannot be read as a model: {error}") from error
        names = {each.name for each in (*session.get_inputs(), *session.get_outputs())}
        if names != {net.INPUT, net.OUTPUT}:
            raise StorageError(
                f"{path} has {', '.join(sorted(names))}, expected {net.INPUT} and {net.OUTPUT}"
            )
        return DigitsPredictor(session)

    def naive(self, known: Rows, rows: Rows) -> Float64s:
        """How often each digit is written."""
        return shares(known.labels, CLASSES, len(rows))

    def losses(self, predicted: Float64s, labels: Float64s) -> Float64s:
        return log_losses(predicted, labels)
