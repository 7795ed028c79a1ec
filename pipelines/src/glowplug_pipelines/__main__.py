"""`python -m glowplug_pipelines STEP ...`: what the image runs, the same commands as `glowplug pipelines`.

The one module here that imports the command line: it is an end of its own, and nothing imports it.
"""

from __future__ import annotations

from glowplug.cli.pipelines import main

if __name__ == "__main__":
    main()
