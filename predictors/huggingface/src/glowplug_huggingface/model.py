"""A Hugging Face text model behind the V1 and V2 protocols.

Requests that arrive together are predicted together, in a worker thread: texts are tokenised in one call, and rows
are computed in chunks of equal length as far as there are such, each padded to its own longest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from glowplug.errors import InferenceError, StorageError
from glowplug.serving import Model, TensorSpec
from glowplug.wire import InferRequest, InferResponse, Tensor
from glowplug_huggingface import outputs
from glowplug_huggingface.backend import bounded, open_backend
from glowplug_huggingface.folder import ModelFolder, read_folder
from glowplug_huggingface.parity import Backend
from glowplug_huggingface.payload import IDS, TEXT, checked
from glowplug_huggingface.session import OnnxBackend
from glowplug_huggingface.settings import CLASSIFICATION, TextConfig
from glowplug_huggingface.tokens import Tokenizer, Tokens, padded

log = logging.getLogger("glowplug.huggingface")


class HuggingFaceModel(Model):
    """Input: `text` BYTES [n], or the model's token tensors INT64 [n, tokens]. Outputs: see outputs.py."""

    in_thread = True

    def __init__(self, name: str, model_dir: str, config: TextConfig) -> None:
        super().__init__(name)
        self.max_batch_size = config.max_batch_size
        self._model_dir = model_dir
        self._config = config
        self._folder: ModelFolder = None  # type: ignore[assignment]
        self._backend: Backend = None  # type: ignore[assignment]
        self._tokenizer: Tokenizer | None = None
        self._width = 0

    async def load(self) -> None:
        """Reads the folder, and exports the model where that was not done yet. Raises StorageError or ConfigError."""
        folder = read_folder(self._model_dir, self._config.task)
        config = bounded(folder, self._config)
        # Before the export, which takes longer.
        tokenizer = Tokenizer(folder, config.max_length) if folder.tokenizer else None
        backend = await open_backend(folder, config)
        if tokenizer is None:
            log.warning("%s holds no tokenizer.json: tokens are served, texts are not", folder.path)
        self._config, self._folder, self._backend, self._tokenizer = config, folder, backend, tokenizer
        self._width = self._measured_width()
        self.platform = f"huggingface_{backend.name}"
        self.inputs = self._declared()
        self.outputs = outputs.specs(folder, self._width)

    def _measured_width(self) -> int:
        one = padded([Tokens([0], [0])], self._folder.pad_id)
        width = int(self._backend.run(one).shape[1])
        labels = self._folder.labels
        if self._folder.task == CLASSIFICATION and len(labels) != width:
            raise StorageError(f"{self._folder.path} has {len(labels)} labels for {width} classes")
        return width

    def _declared(self) -> tuple[TensorSpec, ...]:
        # Tokens are taken as well, but a client that sends all that is declared would send both.
        if self._tokenizer is not None:
            return (TensorSpec(TEXT, "BYTES", (-1,)),)
        return tuple(TensorSpec(name, "INT64", (-1, -1)) for name in self._backend.inputs)

    def warmup(self) -> None:
        """The longest text there may be, and a short one."""
        if self._tokenizer is not None:
            text = Tensor.from_strings(TEXT, ["warm " * self._config.max_length, "warm"])
            self.predict(InferRequest(self.name, (text,)))
            return
        shape = (1, self._config.max_length)
        ids = Tensor(IDS, "INT64", shape, np.zeros(shape, dtype=np.int64))
        self.predict(self.preprocess(InferRequest(self.name, (ids,))))

    def improve(self) -> None:
        """Weights that all replicas share."""
        if isinstance(self._backend, OnnxBackend):
            self.facts["weights"] = self._backend.map_weights()
            log.info("weights: %s", self.facts["weights"])

    def preprocess(self, request: InferRequest) -> InferRequest:
        """Raises InferenceError (400) that names the tensor or output, before the request is batched with others."""
        outputs.check_asked(request, self.outputs)
        return checked(request, self._folder, self._backend.inputs, self._config)

    def predict(self, request: InferRequest) -> InferResponse:
        """A row for each row of what `preprocess` gave."""
        rows = request.inputs[0].shape[0]
        values: Any = np.empty((rows, self._width), dtype=np.float32)
        for indices, arrays in self._chunks(request):
            values[indices] = self._backend.run(arrays)
        return InferResponse(self.name, outputs.tensors(self._folder, values, request, self.outputs))

    def _chunks(self, request: InferRequest) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Which rows, and their arrays; at most `max_batch_size` rows each."""
        size = self._config.max_batch_size
        first = request.inputs[0]
        if first.name != TEXT or self._tokenizer is None:
            for start in range(0, first.shape[0], size):
                indices = slice(start, start + size)
                yield indices, {tensor.name: tensor.data[indices] for tensor in request.inputs}
            return
        rows = self._tokenizer(first.as_strings())
        for index, row in enumerate(rows):
            if not row.ids:
                raise InferenceError(f"tensor {TEXT!r}: text {index} has no tokens")
        # Short ones with short ones: what is padded is computed for nothing.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield chosen, padded([rows[index] for index in chosen], self._folder.pad_id)
