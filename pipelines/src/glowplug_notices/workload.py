"""The notices workload of the pipelines: a flight's line of text, and whether it will arrive late.

What it trains is a folder that predictors/huggingface serves.

The features are what can be counted of a text, for a drift profile; the model reads the text itself. `options` of the
settings: `share` of the flights that become notices, and `epochs`, at most how many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from glowplug.errors import ConfigError
from glowplug.registry.signature import Signature, TensorType
from glowplug_notices import bert
from glowplug_notices.notices import CLASSES, NAMES, TEXT, read_notices
from glowplug_pipelines.predictions import accuracy, log_losses, shares
from glowplug_pipelines.rows import Float64s, Rows
from glowplug_pipelines.settings import Settings, Span
from glowplug_pipelines.workload import Progress

SHARE, EPOCHS = 0.1, 3
_OPTIONS = frozenset({"share", "epochs"})


@dataclass(frozen=True)
class NoticesPredictor:
    """A model that was read back."""

    reader: bert.Reader
    names: tuple[str, ...] = NAMES
    importance: tuple[float, ...] | None = None

    def predict(self, rows: Rows) -> Float64s:
        return self.reader.probabilities(rows.slices[TEXT].tolist())


class Notices:
    """See `glowplug_pipelines.workload.Workload`. The label is 1 for a flight that is 15 minutes late or more."""

    unit: ClassVar[str] = "nats"
    slices: ClassVar[tuple[str, ...]] = ("carrier", "origin")
    signature: ClassVar[Signature] = Signature(
        {TEXT: TensorType("str", (-1,))},
        {"probabilities": TensorType("float32", (-1, len(CLASSES))), "label": TensorType("str", (-1,))},
    )

    def __init__(self, settings: Settings) -> None:
        """Raises `ConfigError` for options that are wrong."""
        unknown = sorted(set(settings.options) - _OPTIONS)
        if unknown:
            raise ConfigError(
                f"options.{unknown[0]} is unknown, must be one of {', '.join(sorted(_OPTIONS))}"
            )
        self._share: Any = settings.options.get("share", SHARE)
        self._epochs: Any = settings.options.get("epochs", EPOCHS)
        if type(self._share) not in (int, float) or not 0 < self._share <= 1:
            raise ConfigError(f"options.share = {self._share!r}, must be above 0 and up to 1")
        if type(self._epochs) is not int or self._epochs < 1:
            raise ConfigError(f"options.epochs = {self._epochs!r}, must be a whole number of 1 or more")

    @property
    def schema_hash(self) -> str:
        return "text"

    def rows(self, span: Span, progress: Progress) -> Rows:
        """A flight's label is known once it has arrived."""
        progress("writing the notices", 0, 0)
        return read_notices(span, self._share)

    def train(self, fit: Rows, validation: Rows, directory: Path, progress: Progress) -> Mapping[str, float]:
        parts = [bert.Part(rows.slices[TEXT].tolist(), rows.labels) for rows in (fit, validation)]
        trained = bert.train(parts[0], parts[1], self._epochs, progress)
        bert.save(trained, directory)
        said = bert.Reader(trained.module, trained.tokenizer).probabilities(parts[1].texts)
        return {
            "validation_loss": trained.loss,
            "validation_accuracy": accuracy(said, validation.labels) or 0.0,
            "epochs": float(trained.epoch),
        }

    def load(self, directory: Path) -> NoticesPredictor:
        return NoticesPredictor(bert.read(directory))

    def naive(self, known: Rows, rows: Rows) -> Float64s:
        """How often flights are late."""
        return shares(known.labels, len(CLASSES), len(rows))

    def losses(self, predicted: Float64s, labels: Float64s) -> Float64s:
        return log_losses(predicted, labels)
