"""What every test shares: Hypothesis without clocks, since the machines that run the suite are busy with real parts."""

from hypothesis import HealthCheck, settings

settings.register_profile("boardlet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("boardlet")
