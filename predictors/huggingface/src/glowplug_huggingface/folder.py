"""A model folder as it describes itself, without torch: config.json, the tokenizer, the weights' names and sizes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import StorageError
from glowplug_huggingface.pooling import PLAIN, Pooling, read_pooling
from glowplug_huggingface.settings import AUTO, CLASSIFICATION, EMBEDDING
from glowplug_huggingface.weights import find_weights, read_json

log = logging.getLogger("glowplug.huggingface")

# Their positions begin behind the padding's id: two of max_position_embeddings are never used.
OFFSET_POSITIONS = frozenset(
    ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet")
)
# transformers writes 1e30 for "as long as you like".
MAX_MODEL_LENGTH = 10**6
SINGLE_LABEL, MULTI_LABEL, REGRESSION = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)


@dataclass(frozen=True)
class ModelFolder:
    """`labels` are of a classification, `pooling` is of an embedding; sizes are the configuration's."""

    path: Path
    task: str
    architecture: str
    weights: tuple[Path, ...]
    vocab_size: int
    type_vocab_size: int
    pad_id: int
    # Tokens of the longest text; None where the architecture has no bound.
    max_positions: int | None
    labels: tuple[str, ...] = ()
    problem: str = SINGLE_LABEL
    pooling: Pooling = PLAIN
    # None without tokenizer.json: tokens are served then, and texts are not.
    tokenizer: Path | None = None


def read_folder(model_dir: str, task: str = AUTO) -> ModelFolder:
    """Raises StorageError: no Hugging Face model, or one that is not served, with what was found."""
    place = Path(model_dir)
    if not place.is_dir():
        raise StorageError(
            f"the model folder {place} does not exist", hint="--model_dir names the folder with config.json"
        )
    path = place / "config.json"
    if not path.is_file():
        there = ", ".join(sorted(item.name for item in place.iterdir())[:10]) or "nothing"
        raise StorageError(
            f"{place} holds no config.json; it holds {there}",
            hint="model.save_pretrained(folder) and tokenizer.save_pretrained(folder) write a model folder",
        )
    config = read_json(path)
    architecture = _architecture(config)
    task = _task(place, architecture) if task == AUTO else task
    if config.get("auto_map"):
        log.warning("%s: the code that auto_map names is never run, transformers' own is", path)
    tokenizer = place / "tokenizer.json"
    pad_id = config.get("pad_token_id")
    pad_id = pad_id if type(pad_id) is int and pad_id >= 0 else 0
    is_classification = task == CLASSIFICATION
    return ModelFolder(
        path=place,
        task=task,
        architecture=architecture,
        weights=find_weights(place),
        vocab_size=_size(path, config, "vocab_size"),
        type_vocab_size=_size(path, config, "type_vocab_size", 1),
        pad_id=pad_id,
        max_positions=_max_positions(place, config, pad_id),
        labels=_labels(path, config) if is_classification else (),
        problem=_problem(config),
        pooling=PLAIN if is_classification else read_pooling(place),
        tokenizer=tokenizer if tokenizer.is_file() else None,
    )


def _architecture(config: dict[str, Any]) -> str:
    found = config.get("architectures")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else ""


def _task(place: Path, architecture: str) -> str:
    """Raises StorageError where the architecture does not tell."""
    if architecture.endswith("ForSequenceClassification"):
        return CLASSIFICATION
    # GPT2LMHeadModel is the old way to write ForCausalLM.
    is_encoder = architecture.endswith(("Model", "ForMaskedLM")) and "Head" not in architecture
    if is_encoder or (place / "modules.json").is_file():
        return EMBEDDING
    raise StorageError(
        f"{place}/config.json: architectures is {architecture or 'missing'}; served are ...ForSequenceClassification "
        "and, for embeddings, ...Model",
        hint=f"--task={EMBEDDING} or --task={CLASSIFICATION} where it is one of these",
    )


def _size(path: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    found = config.get(key, default)
    if default is not None and not found:
        return default
    if type(found) is not int or found < 1:
        raise StorageError(f"{path}: {key} is {found!r}, expected a number above 0")
    return found


def _max_positions(place: Path, config: dict[str, Any], pad_id: int) -> int | None:
    bounds = []
    positions = config.get("max_position_embeddings")
    if type(positions) is int and positions > 0:
        offset = pad_id + 1 if config.get("model_type") in OFFSET_POSITIONS else 0
        bounds.append(positions - offset)
    own = place / "tokenizer_config.json"
    length = read_json(own).get("model_max_length") if own.is_file() else None
    if type(length) is int and 0 < length < MAX_MODEL_LENGTH:
        bounds.append(length)
    return min(bounds) if bounds else None


def _labels(path: Path, config: dict[str, Any]) -> tuple[str, ...]:
    """By class. transformers' own default is two."""
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels", 2)
        if type(count) is not int or not 1 <= count <= 10**6:
            raise StorageError(f"{path}: num_labels is {count!r}, expected a number above 0")
        return tuple(f"LABEL_{index}" for index in range(count))
    try:
        labels = tuple(str(named[str(index)]) for index in range(len(named)))
    except (KeyError, TypeError, IndexError) as error:
        raise StorageError(f"{path}: id2label has no label for {error}, expected one a class") from error
    if not labels:
        raise StorageError(f"{path}: id2label is empty")
    return labels


def _problem(config: dict[str, Any]) -> str:
    found = config.get("problem_type")
    if found in (SINGLE_LABEL, MULTI_LABEL, REGRESSION):
        return str(found)
    labels = config.get("id2label")
    # One number, and nothing that it could be told from.
    is_one = len(labels) == 1 if isinstance(labels, dict) else config.get("num_labels") == 1
    return REGRESSION if is_one else SINGLE_LABEL
