"""The command line of the unit; KServe's flags, and how the model folder is served."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.serving import Parser, ServerConfig, arguments, serve
from glowplug.serving.threads import available_cpus, thread_count
from glowplug_huggingface.backend import exported
from glowplug_huggingface.cache import MODEL
from glowplug_huggingface.eager import OFFLINE
from glowplug_huggingface.folder import read_folder
from glowplug_huggingface.model import HuggingFaceModel
from glowplug_huggingface.settings import BACKENDS, DTYPES, TASKS, TextConfig, default_cache_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the model until a signal, or exports it with --export; the exit code of the process."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        config = ServerConfig.from_options(options, os.environ)
        texts = TextConfig(
            task=options.task,
            backend=options.backend,
            dtype=options.dtype,
            max_length=options.max_length,
            max_batch_size=options.max_batch_size,
            max_rows=options.max_rows,
            max_text_bytes=options.max_text_bytes,
            threads=thread_count(options.threads, os.environ, available_cpus()),
            cache_dir=options.cache_dir or default_cache_dir(os.environ),
        )
    except GlowplugError as error:
        parser.error(f"{error.message} ({error.hint})" if error.hint else error.message)
    # A batch is tokenised on one thread: others would take CPUs from the computation.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.update(OFFLINE)
    if options.export:
        return _export(config, texts)
    return serve([HuggingFaceModel(config.model_name, config.model_dir, texts)], config)


def _export(config: ServerConfig, texts: TextConfig) -> int:
    """Prints the path of the export."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        place, export = exported(read_folder(config.model_dir, texts.task), texts)
    except GlowplugError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    told = f"differs from torch by {export.difference:.1g} (at most {export.tolerance:g} is allowed)"
    print(told, file=sys.stderr)
    print(place / MODEL)
    return 0


def _parser() -> argparse.ArgumentParser:
    default = TextConfig()
    parser = Parser(
        prog="python -m glowplug_huggingface",
        description="Serves a Hugging Face model for text: sequence classification or embeddings.",
        parents=[arguments()],
    )
    add = parser.add_argument_group("texts").add_argument
    add("--task", choices=TASKS, default=default.task, help="default: what config.json says")
    add(
        "--backend",
        choices=BACKENDS,
        default=default.backend,
        help="auto is onnx, and torch where the export fails or disagrees (default: %(default)s)",
    )
    add("--dtype", choices=DTYPES, default=default.dtype, help="of the export (default: %(default)s)")
    add("--max_length", type=int, default=default.max_length, help="tokens of a text (default: %(default)s)")
    add(
        "--max_batch_size",
        type=int,
        default=default.max_batch_size,
        help="rows that are computed at once (default: %(default)s)",
    )
    add("--max_rows", type=int, default=default.max_rows, help="rows of a request (default: %(default)s)")
    add("--max_text_bytes", type=int, default=default.max_text_bytes, help="of a text (default: %(default)s)")
    add("--threads", type=int, help="threads that compute (default: $OMP_NUM_THREADS, else the CPUs)")
    add(
        "--cache_dir",
        type=Path,
        help="of exports (default: glowplug/huggingface in $XDG_CACHE_HOME or ~/.cache)",
    )
    add("--export", action="store_true", help="only make the export, in --cache_dir, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
