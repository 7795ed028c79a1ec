"""The command line of the unit; KServe's flags, and a few of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from glowplug.errors import GlowplugError
from glowplug.serving import Parser, ServerConfig, arguments, onnx_form, serve
from glowplug.serving.onnx_form import Forms
from glowplug.serving.threads import available_cpus, thread_count
from glowplug_onnx.int8 import cache_folder
from glowplug_onnx.model import MAX_BATCH_SIZE, OnnxModel


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the model until a signal; the exit code of the process."""
    parser = Parser(
        prog="python -m glowplug_onnx", description="Serves an ONNX model.", parents=[arguments()]
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=None,
        help="threads that compute (default: $OMP_NUM_THREADS, else the CPUs that the process may use)",
    )
    parser.add_argument(
        "--accept_missing",
        action="store_true",
        help="let null and NaN in floating-point inputs through to the model",
    )
    parser.add_argument(
        "--max_batch_size",
        type=int,
        default=MAX_BATCH_SIZE,
        help="rows of several requests computed at once, where that is faster; 1: never (default: %(default)s)",
    )
    parser.add_argument(
        "--quantize",
        choices=("off", "auto"),
        default="off",
        help="auto: weights in int8, where a trial finds that faster and nearly as exact (default: %(default)s)",
    )
    parser.add_argument(
        "--cache_dir", default=None, help="where int8 forms are kept (default: the user's cache)"
    )
    options = parser.parse_args(argv)
    try:
        config = ServerConfig.from_options(options, os.environ)
        threads = thread_count(options.threads, os.environ, available_cpus())
    except GlowplugError as error:
        parser.error(f"{error.message} ({error.hint})" if error.hint else error.message)
    forms = onnx_form.cache_folder(os.environ, "onnx-forms")
    model = OnnxModel(
        config.model_name,
        config.model_dir,
        threads=threads,
        accepts_missing=options.accept_missing,
        max_batch_size=options.max_batch_size,
        forms=Forms(forms, threads) if forms else None,
        int8_folder=cache_folder(options.cache_dir, os.environ) if options.quantize == "auto" else None,
    )
    return serve([model], config)


if __name__ == "__main__":
    sys.exit(main())
