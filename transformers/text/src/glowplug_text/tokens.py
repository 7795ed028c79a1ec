"""Texts to the tensors that BERT and its kin take, by a tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError, StorageError
from glowplug_text.settings import LONGEST, TextConfig

FILE = "tokenizer.json"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
# Where tokenizers keep the padding's token, by family: BERT's, RoBERTa's.
PAD_TOKENS = ("[PAD]", "<pad>")


class Tokenizer:
    """`tokenizer(texts)` gives INT64 arrays [n, length] by name. Thread-safe."""

    def __init__(self, place: Path, config: TextConfig) -> None:
        """`place` is a tokenizer.json, or a folder with one. Raises StorageError."""
        path = place / FILE if place.is_dir() else place
        if not path.is_file():
            raise StorageError(
                f"{path} does not exist",
                hint="--tokenizer names a tokenizer.json; tokenizer.save_pretrained(folder) of transformers writes it",
            )
        self._config = config
        found = _open(path, config)
        self._pad_id, self._pad_type_id = _padding(found, config)
        # What the file says of both was the wish of who wrote it, for another batch.
        found.no_padding()
        # The fast form leaves out the offsets; it came with tokenizers 0.20.
        self._encode = getattr(found, "encode_batch_fast", found.encode_batch)

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """Padded at the end with the tokenizer's padding, and 0 in the mask."""
        rows = self._encode(list(texts))
        longest = max((len(row.ids) for row in rows), default=0)
        length = max(longest, 1) if self._config.padding == LONGEST else self._config.max_length
        shape = (len(rows), length)
        ids: Any = np.full(shape, self._pad_id, dtype=np.int64)
        mask: Any = np.zeros(shape, dtype=np.int64)
        types: Any = np.full(shape, self._pad_type_id, dtype=np.int64)
        for index, row in enumerate(rows):
            count = len(row.ids)
            ids[index, :count] = row.ids
            mask[index, :count] = 1
            types[index, :count] = row.type_ids
        return {IDS: ids, MASK: mask, TYPES: types}


def _open(path: Path, config: TextConfig) -> Any:
    try:
        # 30 ms, and not needed for --help.
        import tokenizers
    except ImportError as error:
        raise ConfigError(f"tokenizers cannot be imported: {error}", hint="pip install tokenizers") from error
    try:
        found = tokenizers.Tokenizer.from_file(str(path))
        found.enable_truncation(config.max_length)
    except Exception as error:  # the library raises nothing more special
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise StorageError(f"{path} is no tokenizer: {text}", hint="copy it again") from error
    return found


def _padding(found: Any, config: TextConfig) -> tuple[int, int]:
    """The ids that stand for padding in the texts and in the segments."""
    own = found.padding or {}
    if config.pad_id is not None:
        return config.pad_id, 0
    known = [found.token_to_id(token) for token in PAD_TOKENS]
    pad_id = own.get("pad_id", next((each for each in known if each is not None), 0))
    return int(pad_id), int(own.get("pad_type_id", 0))
