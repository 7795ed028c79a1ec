"""The command line: KServe's flags for a transformer, and how images become tensors."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.serving import Parser, ServerConfig, arguments, serve
from glowplug_image.model import ImageTransformer
from glowplug_image.ranking import Ranking, read_labels
from glowplug_image.settings import LAYOUTS, ImageConfig, numbers, thread_count


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal; the exit code of the process."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        config = ServerConfig.from_options(options, os.environ)
        if not config.predictor.host:
            parser.error("--predictor_host is missing: name[:port] of the predictor")
        images = ImageConfig(
            size=options.size,
            resize=options.resize,
            mean=options.mean,
            std=options.std,
            layout=options.layout,
            max_pixels=options.max_pixels,
            max_images=options.max_images,
            is_exact=options.exact,
        )
        threads = thread_count(options.threads, os.environ)
        labels = read_labels(options.labels) if options.labels else ()
        if options.top_k is not None and options.top_k < 0:
            parser.error(f"--top_k={options.top_k}, expected 0 or more")
    except GlowplugError as error:
        parser.error(f"{error.message} ({error.hint})" if error.hint else error.message)
    top_k = options.top_k if options.top_k is not None else int(bool(labels))
    # Pillow warns of oddities in files; callers are told of what matters, and the log is not theirs to fill.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    transformer = ImageTransformer(config, images, threads=threads, ranking=Ranking(top_k, labels))
    return serve([transformer], config)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m glowplug_image",
        description="Turns JPEG and PNG files into tensors and calls the predictor with them.",
        parents=[arguments()],
    )
    add = parser.add_argument_group("images").add_argument
    default = ImageConfig()
    add(
        "--size",
        type=int,
        default=default.size,
        help="side of the middle that is cut out (default: %(default)s)",
    )
    add("--resize", type=int, default=default.resize, help="shorter side before that (default: %(default)s)")
    add(
        "--mean",
        type=numbers,
        default=default.mean,
        help="of red, green, blue, in 0 to 1 (default: ImageNet's)",
    )
    add("--std", type=numbers, default=default.std, help="the same (default: ImageNet's)")
    add("--layout", choices=LAYOUTS, default=default.layout, help="default: %(default)s")
    add("--max_pixels", type=int, default=default.max_pixels, help="largest image (default: %(default)s)")
    add("--max_images", type=int, default=default.max_images, help="largest batch (default: %(default)s)")
    add("--exact", action="store_true", help="decode large JPEGs in full, not at a fraction of their size")
    add("--threads", type=int, help="images decoded at a time (default: $OMP_NUM_THREADS, else the CPUs)")
    add("--labels", type=Path, help="file with a label a line; adds the output `label`")
    add("--top_k", type=int, help="adds the outputs `class` and `score` (default: 1 with --labels, else 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
