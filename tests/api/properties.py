"""Hypothesis without deadlines, since other tests may keep the machine busy."""

from hypothesis import HealthCheck, settings

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
