"""The command line: KServe's flags for a transformer, the feature view, and REDIS_URL from the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.features.online import OnlineConfig
from glowplug.serving import Parser, ServerConfig, arguments, serve
from glowplug_feature_lookup.model import FeatureLookup

REDIS_URL = "REDIS_URL"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; the process's exit code."""
    parser = Parser(
        prog="python -m glowplug_feature_lookup",
        description="Looks features up in Redis by entity id and calls the predictor with them.",
        parents=[arguments()],
    )
    parser.add_argument("--feature_view", type=Path, required=True, help="the feature view file (YAML)")
    parser.add_argument(
        "--redis_timeout_s",
        type=float,
        default=OnlineConfig.timeout_s,
        help="how long a request waits for Redis before it is answered 503 (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    url = os.environ.get(REDIS_URL)
    if not url:
        parser.error(f"${REDIS_URL} is not set: redis://, rediss:// or unix://")
    try:
        config = ServerConfig.from_options(options, os.environ)
        if not config.predictor.host:
            parser.error("--predictor_host is missing: name[:port] of the predictor")
        online = OnlineConfig(url, timeout_s=options.redis_timeout_s)
    except GlowplugError as error:
        parser.error(f"{error.message} ({error.hint})" if error.hint else error.message)
    return serve([FeatureLookup(config, options.feature_view, online)], config)


if __name__ == "__main__":
    sys.exit(main())
