"""What is imported once, in the zygote where there is one: it remembers which process that was."""

import os
import random

IMPORTED_IN = os.getpid()
MODE = os.environ.get("WARM_MODE", "")
VERSION = 1
DRAWN = random.random()
