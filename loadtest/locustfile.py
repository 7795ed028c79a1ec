"""The last load test again, under locust's own command: `locust -f loadtest/locustfile.py` (web page on port 8089).

`glowplug loadtest run` leaves in its folder what it sent; GLOWPLUG_LOADTEST names that folder.
"""

from __future__ import annotations

import json
import os
import pathlib

from glowplug_loadtest import plan as plans
from glowplug_loadtest.shapes import shape_of
from glowplug_loadtest.users import user_of

_FOLDER = pathlib.Path(os.environ.get("GLOWPLUG_LOADTEST", "."))
_PLAN = plans.read(_FOLDER / "plan.json")

Load = user_of(_PLAN).prepared(_PLAN, json.loads((_FOLDER / "bodies.json").read_text()), 0)
Shape = shape_of(_PLAN.profile)
