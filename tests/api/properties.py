"""How hypothesis runs here: without deadlines, since the machine may be busy with other tests."""

from hypothesis import HealthCheck, settings

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
