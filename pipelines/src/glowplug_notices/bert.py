"""The tokenizer, the model and its training; transformers and PyTorch are imported in these functions.

From nothing, since weights of a language model are no part of this repository: two layers, 64 wide, read a line of
twenty words well enough. One thread and one seed: the same rows give the same weights on the same build of PyTorch.
A model of the hub is trained the same way with `from_pretrained` in place of `_made`.
"""

from __future__ import annotations

import copy
import string
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError, StorageError
from glowplug_notices.notices import CLASSES
from glowplug_pipelines.rows import Float64s
from glowplug_pipelines.workload import Progress

SEED = 2013
MAX_LENGTH = 32
_WORDS = 600
_BATCH = 32
_RATE = 2e-3
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MODEL_FILE, _TOKENIZER_FILE = "model.safetensors", "tokenizer.json"


@dataclass(frozen=True)
class Part:
    """`texts` [n], `labels` [n]: places in CLASSES."""

    texts: Sequence[str]
    labels: Float64s


@dataclass(frozen=True)
class Trained:
    """`module` and `tokenizer` as transformers and tokenizers have them; the epoch that lost least on validation."""

    module: Any
    tokenizer: Any
    epoch: int
    loss: float


@dataclass(frozen=True)
class Reader:
    """A model read back, in eval mode."""

    module: Any
    tokenizer: Any

    def probabilities(self, texts: Sequence[str]) -> Float64s:
        """[n, classes]."""
        torch, _ = import_torch()
        found = [np.zeros((0, len(CLASSES)))]
        with torch.no_grad():
            for place in range(0, len(texts), 256):
                tokens = _tokens(torch, self.tokenizer, texts[place : place + 256])
                found.append(torch.softmax(self.module(**tokens).logits.double(), dim=1).numpy())
        return np.concatenate(found)


def train(known: Part, validation: Part, epochs: int, progress: Progress) -> Trained:
    """The epoch that loses least on `validation` is kept."""
    torch, transformers = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            tokenizer = _tokenizer(known.texts)
            module = _made(transformers, tokenizer.get_vocab_size())
            return _train(torch, Trained(module, tokenizer, 0, np.inf), known, validation, epochs, progress)
    finally:
        torch.set_num_threads(before)


def save(trained: Trained, directory: Path) -> None:
    """As predictors/huggingface reads it: config.json, model.safetensors, tokenizer.json."""
    trained.module.save_pretrained(str(directory))
    trained.tokenizer.save(str(directory / _TOKENIZER_FILE))


def read(directory: Path) -> Reader:
    """Raises `StorageError` for a folder without such a model."""
    _, transformers = import_torch()
    from tokenizers import Tokenizer

    for name in ("config.json", _MODEL_FILE, _TOKENIZER_FILE):
        if not (directory / name).is_file():
            raise StorageError(f"{directory} has no {name}", hint="it is no model of this workload")
    try:
        # The folder is ours, and no name of the hub.
        module = transformers.BertForSequenceClassification.from_pretrained(
            str(directory), local_files_only=True
        )
        return Reader(module.eval(), Tokenizer.from_file(str(directory / _TOKENIZER_FILE)))
    except Exception as error:  # those of three libraries are of no common kind
        raise StorageError(f"{directory} cannot be read as a model: {error}") from error


def import_torch() -> tuple[Any, Any]:
    """torch and transformers, which says nothing. Raises `ConfigError` where one is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            import transformers
            from transformers import BertForSequenceClassification  # noqa: F401 - loads most of it
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint="pip install 'glowplug[torch]'") from error
    library: Any = transformers
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return torch, library


def _train(
    torch: Any, start: Trained, known: Part, validation: Part, epochs: int, progress: Progress
) -> Trained:
    module, tokenizer = start.module, start.tokenizer
    batches = -(-len(known.labels) // _BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=epochs * batches)
    labels = torch.from_numpy(known.labels.astype(np.int64))
    best, state = start, copy.deepcopy(module.state_dict())
    for epoch in range(epochs):
        module.train()
        for number, chosen in enumerate(torch.randperm(len(labels)).split(_BATCH)):
            texts = [known.texts[place] for place in chosen.tolist()]
            optimizer.zero_grad()
            module(**_tokens(torch, tokenizer, texts), labels=labels[chosen]).loss.backward()
            optimizer.step()
            schedule.step()
            progress("training", epoch * batches + number + 1, epochs * batches)
        loss = _loss(Reader(module.eval(), tokenizer), validation)
        if loss < best.loss:
            best, state = Trained(module, tokenizer, epoch + 1, loss), copy.deepcopy(module.state_dict())
    module.load_state_dict(state)
    module.eval()
    return best


def _loss(reader: Reader, part: Part) -> float:
    given = reader.probabilities(part.texts)[np.arange(len(part.labels)), part.labels.astype(np.int64)]
    return float(-np.log(np.maximum(given, 1e-6)).mean())


def _tokens(torch: Any, tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    encoded = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": torch.tensor([each.ids for each in encoded]),
        "attention_mask": torch.tensor([each.attention_mask for each in encoded]),
    }


def _tokenizer(texts: Sequence[str]) -> Any:
    """WordPiece of BERT's form: the frequent words of `texts`, and letters to spell the others with.

    Counted here, since what the library's trainer takes first of what is frequent alike differs from time to time.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(
        word for text in texts for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))
    )
    letters = [*string.ascii_lowercase, *string.digits]
    frequent = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_WORDS]]
    words = dict.fromkeys((*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *frequent))
    vocabulary = {word: place for place, word in enumerate(words)}
    made: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizer, split
    made.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    made.enable_truncation(MAX_LENGTH)
    made.enable_padding(pad_id=vocabulary["[PAD]"], pad_token="[PAD]")
    return made


def _made(transformers: Any, words: int) -> Any:
    config = transformers.BertConfig(
        vocab_size=words,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=MAX_LENGTH,
        id2label=dict(enumerate(CLASSES)),
        label2id={label: place for place, label in enumerate(CLASSES)},
    )
    return transformers.BertForSequenceClassification(config)
