"""
What is measured: the loads put on every gate, and the numbers read from them.
"""

from collections.abc import Callable

import attrs
from measure import Measurement

MIB = 1024 * 1024
LARGE_MESSAGE_OCTETS = 64 * MIB
TLS12 = ("--tls", "1.2")


@attrs.frozen
class Scenario:
    """
    One load; *options* are those of `load.c`. *quick_seconds* is for a run that only shows that all works.
    """

    name: str
    says: str
    options: tuple[str, ...]
    seconds: float
    quick_seconds: float = 0.4
    resumes: bool = False

    def load_options(self, seconds: float) -> list[str]:
        """
        Return the load generator's command line for a load of so many *seconds*.
        """
        return [*self.options, "--seconds", str(seconds)]


def _many(connections: int) -> tuple[str, ...]:
    # One session per connection before the clocks are read: it fills caches, and fetches the ticket to resume with.
    return ("--connections", str(connections), "--warm-up", str(connections))


SCENARIOS = (
    Scenario("tls13", "20 clients, TLS 1.3, full handshakes", _many(20), 1.5),
    Scenario("tls12", "20 clients, TLS 1.2, full handshakes", (*_many(20), *TLS12), 1.2),
    Scenario("tls13-resumed", "20 clients, TLS 1.3, resumed", (*_many(20), "--resume"), 1.0, resumes=True),
    Scenario(
        "tls12-resumed", "20 clients, TLS 1.2, resumed", (*_many(20), "--tls", "1.2", "--resume"), 1.0, resumes=True
    ),
    Scenario("saturated", "150 clients, TLS 1.3, full handshakes", _many(150), 1.5),
    Scenario("alone", "1 client, TLS 1.3, full handshakes", _many(1), 2.0),
    Scenario("large", "1 client, messages of 64 MiB", ("--size", str(LARGE_MESSAGE_OCTETS)), 0.7, 0.1),
)


@attrs.frozen
class Metric:
    """
    One number read from a scenario's measurement; *less_is_better* or more is.
    """

    title: str
    scenario: str
    read: Callable[[Measurement], float]
    less_is_better: bool = True


def _cpu_ms_per_session(measurement: Measurement) -> float:
    return measurement.gate_cpu_seconds * 1000 / float(measurement.load["sessions"])


def _sessions_per_second(measurement: Measurement) -> float:
    return float(measurement.load["sessions"] / measurement.load["seconds"])


def _told(key: str) -> Callable[[Measurement], float]:
    return lambda measurement: float(measurement.load[key])


def _megabytes_per_second(measurement: Measurement) -> float:
    return float(measurement.load["octets"] / measurement.load["message_seconds"] / 1e6)


def _cpu_seconds_per_gib(measurement: Measurement) -> float:
    return measurement.gate_cpu_seconds / (float(measurement.load["octets"]) / (1024 * MIB))


METRICS = (
    Metric("CPU ms per session, TLS 1.3", "tls13", _cpu_ms_per_session),
    Metric("CPU ms per session, TLS 1.2", "tls12", _cpu_ms_per_session),
    Metric("CPU ms per session, TLS 1.3 resumed", "tls13-resumed", _cpu_ms_per_session),
    Metric("CPU ms per session, TLS 1.2 resumed", "tls12-resumed", _cpu_ms_per_session),
    Metric("CPU ms per session, 150 clients", "saturated", _cpu_ms_per_session),
    Metric("sessions per second, 20 clients", "tls13", _sessions_per_second, less_is_better=False),
    Metric("sessions per second, 150 clients", "saturated", _sessions_per_second, less_is_better=False),
    Metric("session ms, 1 client, p50", "alone", _told("p50_ms")),
    Metric("session ms, 1 client, p99", "alone", _told("p99_ms")),
    Metric("of these: connect to greeting, p50", "alone", _told("banner_ms")),
    Metric("of these: STARTTLS to TLS, p50", "alone", _told("handshake_ms")),
    Metric("of these: TLS to 354, p50", "alone", _told("envelope_ms")),
    Metric("of these: 354 to 250, p50", "alone", _told("message_ms")),
    Metric("session ms, 20 clients, p50", "tls13", _told("p50_ms")),
    Metric("session ms, 20 clients, p99", "tls13", _told("p99_ms")),
    Metric("session ms, 150 clients, p99", "saturated", _told("p99_ms")),
    Metric("64 MiB message, MB/s", "large", _megabytes_per_second, less_is_better=False),
    Metric("64 MiB message, CPU s per GiB", "large", _cpu_seconds_per_gib),
)

IDLE_AFTER_EHLO = "KiB per idle session, after EHLO"
IDLE_AFTER_MESSAGE = "KiB per idle session, after a message"
BASE_MEMORY = "MiB with no session"
