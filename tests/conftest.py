"""
What all tests share: how Hypothesis searches, and what the processes they start make of a signal.
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# In CI the same inputs are tried on every run, so that a red run means that the code has changed. The clock is left out
# of it: machines that are shared stumble.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("developer", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# `nohup` and "&" start a program that ignores these, and so would whatever it starts. A handler is not handed on.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda _number, _frame: None)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """
    Leave word of how it ended, for .ci/again.
    """
    if session.config.cache is not None:
        session.config.cache.set("tlsgate/status", int(exitstatus))
