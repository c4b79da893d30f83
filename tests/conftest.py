"""
What all tests share: how Hypothesis searches.
"""

import os

from hypothesis import HealthCheck, settings

# In CI the same inputs are tried on every run, so that a red run means that the code has changed. The clock is left out
# of it: machines that are shared stumble.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("developer", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "developer")
