"""How Hypothesis runs the unit tests: it holds none to a time, which a busy machine or a first run exceeds.

The first text it makes on a machine takes seconds: tables of Unicode are built, and kept in ``.hypothesis``.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
