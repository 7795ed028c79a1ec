"""The command line: KServe's flags for a transformer, and how texts become tensors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.serving import Parser, ServerConfig, arguments, serve
from glowplug_text.model import TextTransformer
from glowplug_text.settings import PADDINGS, TextConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal; the exit code of the process."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        config = ServerConfig.from_options(options, os.environ)
        if not config.predictor.host:
            parser.error("--predictor_host is missing: name[:port] of the predictor")
        texts = TextConfig(
            max_length=options.max_length,
            padding=options.padding,
            pad_id=options.pad_id,
            max_rows=options.max_rows,
            max_text_bytes=options.max_text_bytes,
        )
    except GlowplugError as error:
        parser.error(f"{error.message} ({error.hint})" if error.hint else error.message)
    # The texts of a request are tokenised on one thread: others would take CPUs from the predictor.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformer = TextTransformer(config, texts, options.tokenizer or Path(config.model_dir))
    return serve([transformer], config)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m glowplug_text",
        description="Turns texts into tokens and calls the predictor with them.",
        parents=[arguments()],
    )
    add = parser.add_argument_group("texts").add_argument
    default = TextConfig()
    add("--tokenizer", type=Path, help="tokenizer.json, or its folder (default: --model_dir)")
    add("--max_length", type=int, default=default.max_length, help="tokens of a text (default: %(default)s)")
    add(
        "--padding",
        choices=PADDINGS,
        default=default.padding,
        help="to --max_length, or to the longest text of a request (default: %(default)s)",
    )
    add("--pad_id", type=int, help="the padding's token (default: as the tokenizer says)")
    add("--max_rows", type=int, default=default.max_rows, help="texts of a request (default: %(default)s)")
    add("--max_text_bytes", type=int, default=default.max_text_bytes, help="of a text (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
