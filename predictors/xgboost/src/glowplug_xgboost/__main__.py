"""The command line of the unit; KServe's flags, and a few of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from glowplug.errors import GlowplugError
from glowplug.serving import Parser, ServerConfig, arguments, serve
from glowplug_xgboost.choice import AUTO, FORMS
from glowplug_xgboost.model import MAX_BATCH_SIZE, XgboostModel


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the model until a signal; the exit code of the process."""
    parser = Parser(
        prog="python -m glowplug_xgboost", description="Serves an XGBoost model.", parents=[arguments()]
    )
    parser.add_argument("--nthread", type=int, default=1, help="threads a prediction (default: %(default)s)")
    parser.add_argument(
        "--accept_missing",
        action="store_true",
        help="take null and NaN as missing values (else only where the model's attributes say so)",
    )
    parser.add_argument(
        "--max_batch_size",
        type=int,
        default=MAX_BATCH_SIZE,
        help="rows of several requests that are predicted at once; 1 for each on its own (default: %(default)s)",
    )
    parser.add_argument(
        "--trees",
        choices=FORMS,
        default=AUTO,
        help="what predicts: libxgboost, the trees compiled for onnxruntime, or the faster (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    try:
        config = ServerConfig.from_options(options, os.environ)
    except GlowplugError as error:
        parser.error(f"{error.message} ({error.hint})" if error.hint else error.message)
    model = XgboostModel(
        config.model_name,
        config.model_dir,
        nthread=options.nthread,
        accepts_missing=options.accept_missing,
        max_batch_size=options.max_batch_size,
        trees=options.trees,
    )
    return serve([model], config)


if __name__ == "__main__":
    sys.exit(main())
