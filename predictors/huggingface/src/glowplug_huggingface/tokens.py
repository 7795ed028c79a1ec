"""Texts to tokens by the folder's tokenizer.json, without transformers: its fast tokenizers are this library.

A text is cut off behind `max_length` tokens, and nothing is padded here: what is computed together is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError, StorageError
from glowplug_huggingface.folder import ModelFolder


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one text: ids and segments (token_type_ids), equally long."""

    ids: list[int]
    types: list[int]


class Tokenizer:
    """`tokenizer(texts)` gives the tokens of each; the first load imports `tokenizers` (30 ms)."""

    def __init__(self, folder: ModelFolder, max_length: int) -> None:
        """Raises StorageError for a file that is no tokenizer, or not this model's."""
        assert folder.tokenizer is not None
        self._tokenizer = _open(folder.tokenizer, max_length)
        self._prompt = folder.pooling.prompt
        self._is_lower_cased = folder.pooling.is_lower_cased
        # The fast form leaves out the offsets; it came with tokenizers 0.20.
        self._encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        highest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if highest >= folder.vocab_size:
            raise StorageError(
                f"{folder.tokenizer} has the id {highest}, the model's vocab_size is {folder.vocab_size}",
                hint="the tokenizer is of another model: copy the whole folder",
            )

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """In the texts' order. A text of nothing, to a tokenizer that adds nothing, has no tokens."""
        if self._is_lower_cased:
            texts = [text.lower() for text in texts]
        if self._prompt:
            texts = [self._prompt + text for text in texts]
        return [Tokens(found.ids, found.type_ids) for found in self._encode(list(texts))]


def _open(path: Path, max_length: int) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(f"tokenizers cannot be imported: {error}", hint="pip install tokenizers") from error
    try:
        found = tokenizers.Tokenizer.from_file(str(path))
        # What the file says of both was the wish of who wrote it, for another batch.
        found.no_padding()
        found.enable_truncation(max_length)
    except Exception as error:  # the library raises nothing more special
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise StorageError(f"{path} is no tokenizer: {text}", hint="copy it again") from error
    return found


def padded(rows: Sequence[Tokens], pad_id: int) -> dict[str, Any]:
    """INT64 arrays [n, longest] of rows with at least a token each, padded at their ends."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids: Any = np.full(shape, pad_id, dtype=np.int64)
    mask: Any = np.zeros(shape, dtype=np.int64)
    types: Any = np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = row.ids
        mask[index, :length] = 1
        types[index, :length] = row.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
