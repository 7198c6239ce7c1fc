from __future__ import annotations

from hypothesis import settings

# No deadline: the machine that runs the tests may be busy.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
