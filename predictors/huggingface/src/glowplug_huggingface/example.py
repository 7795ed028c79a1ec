"""Writes a BERT with random weights: the size and speed of the real one, and answers that mean nothing.

    python -m glowplug_huggingface.example /tmp/bert-base

Its tokenizer knows letters and digits, so that a text has about as many tokens as characters.
"""

from __future__ import annotations

import argparse
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_bert(
    place: Path,
    *,
    layers: int = 12,
    hidden: int = 768,
    heads: int = 12,
    labels: Sequence[str] = ("negative", "positive"),
    vocab_size: int = 30522,
    spread: float = 0.02,
    seed: int = 0,
) -> None:
    """BertForSequenceClassification in `place`: config.json, model.safetensors, tokenizer.json.

    The defaults are those of BERT-base (https://arxiv.org/abs/1810.04805): 110 million weights, 440 MB.
    `spread` is the weights' standard deviation.
    """
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        initializer_range=spread,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    torch.manual_seed(seed)
    model: Any = transformers.BertForSequenceClassification(config)
    model.save_pretrained(str(place), safe_serialization=True)
    letter_tokenizer(place / "tokenizer.json")


def letter_tokenizer(path: Path) -> None:
    """A tokenizer.json of BERT's form whose words are letters, digits and punctuation, one each."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = string.ascii_lowercase + string.digits
    words = [*SPECIAL, *letters, *("##" + letter for letter in letters), *string.punctuation]
    vocabulary = {word: index for index, word in enumerate(words)}
    made: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    made.save(str(path))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder and says what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m glowplug_huggingface.example", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_bert(options.folder, layers=options.layers, hidden=options.hidden, heads=options.heads)
    print(f"python -m glowplug_huggingface --model_name=bert --model_dir={options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
