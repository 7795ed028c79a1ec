"""How the vectors of a text's tokens become the text's own, as sentence-transformers' files say it.

`modules.json` lists the steps; Transformer, Pooling and Normalize are served. A folder without it (a plain BERT) gets
the mean of its tokens, normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import StorageError
from glowplug_huggingface.weights import read_json

MODULES = "modules.json"
CLS, MEAN, MAX, MEAN_SQRT = "cls", "mean", "max", "mean_sqrt_len_tokens"
MODES = (CLS, MEAN, MAX, MEAN_SQRT)
# The names until sentence-transformers 5: a flag a mode.
FLAGS = {
    "pooling_mode_cls_token": CLS,
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_max_tokens": MAX,
    "pooling_mode_mean_sqrt_len_tokens": MEAN_SQRT,
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """`prompt` is put before every text."""

    mode: str = MEAN
    is_normalized: bool = True
    is_lower_cased: bool = False
    prompt: str = ""


PLAIN = Pooling()


def read_pooling(place: Path) -> Pooling:
    """What the folder says. Raises StorageError for steps that are not served."""
    path = place / MODULES
    if not path.is_file():
        return PLAIN
    steps = _steps(path)
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise StorageError(
            f"{path} has the steps {', '.join(kinds) or 'none'}; served are Transformer, Pooling and Normalize"
        )
    folder = steps[1][1]
    if Path(folder).name != folder:
        raise StorageError(f"{path} has a Pooling in {folder[:80]!r}, expected a folder beside it")
    mode = _mode(place / folder / "config.json")
    own = place / "sentence_bert_config.json"
    is_lower_cased = own.is_file() and read_json(own).get("do_lower_case") is True
    return Pooling(
        mode, len(kinds) == 3, is_lower_cased, _prompt(place / "config_sentence_transformers.json")
    )


def _steps(path: Path) -> list[tuple[str, str]]:
    import json

    try:
        document = json.loads(path.read_bytes())
        return [(str(step["type"]).rpartition(".")[2], str(step.get("path", ""))) for step in document]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(f"{path} is no list of sentence-transformers' modules: {error!r}") from error


def _mode(path: Path) -> str:
    config = read_json(path)
    named = config.get("pooling_mode")
    modes: list[Any] = [mode for flag, mode in FLAGS.items() if config.get(flag)]
    if named is not None:
        modes = list(named) if isinstance(named, list) else [named]
    if len(modes) > 1 or (modes and modes[0] not in MODES):
        raise StorageError(
            f"{path} pools by {', '.join(map(str, modes))}; served is one of {', '.join(MODES)}"
        )
    if config.get("include_prompt") is False:
        raise StorageError(f"{path} pools without the prompt (include_prompt), which is not served")
    return modes[0] if modes else MEAN


def _prompt(path: Path) -> str:
    if not path.is_file():
        return ""
    config = read_json(path)
    name = config.get("default_prompt_name")
    if name is None:
        return ""
    prompts = config.get("prompts")
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise StorageError(f"{path} has no prompt {name!r}, its default_prompt_name")
    return str(prompts[name])
