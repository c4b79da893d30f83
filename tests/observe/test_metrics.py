"""
The metrics: what is counted, and that no client can make a series of its own.
"""

import random
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from attrs import evolve
from twisted.internet.testing import StringTransport

from tlsgate.observe import metrics as module
from tlsgate.observe.metrics import Metrics, Names
from tlsgate.observe.web import site
from tlsgate.policy.rules import Outcome
from tlsgate.smtp import reply as replies

NAMES = Names({"mx", "submission"}, {"offered", "strong", "partner"}, {"tcp:127.0.0.1:2525"})
SESSION = {"session": "a1", "listener": "mx", "client": "192.0.2.7", "port": 40001}
TLS = {
    "tls": "TLSv1.3",
    "cipher": "TLS_AES_128_GCM_SHA256",
    "bits": 128,
    "group": "x25519",
    "sni": "",
    "resumed": False,
}
VERDICT = {**SESSION, "stage": "handshake", "level": "strong", "outcome": "pass", "reason": "", **TLS}
RANDOM_ROUNDS = 10_000


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.know(NAMES)
    return made


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"tlsgate_{name}", labels)


def series(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in metrics.registry.collect())


class TestCounting:
    def test_verdicts_are_told_apart(self, metrics: Metrics) -> None:
        """
        By listener, level, stage, outcome and TLS version; those of an audited level too.
        """
        metrics.record("verdict", VERDICT)
        metrics.record("verdict", VERDICT)
        metrics.record("verdict", {**VERDICT, "stage": "plaintext", "outcome": "would_refuse", "tls": None})
        labels = {"listener": "mx", "level": "strong"}
        counted = value(metrics, "verdicts_total", **labels, stage="handshake", outcome="pass", tls="TLSv1.3")
        audited = value(metrics, "verdicts_total", **labels, stage="plaintext", outcome="would_refuse", tls="none")
        assert (counted, audited) == (2, 1)

    def test_handshakes_are_counted_once_whatever_is_judged_later(self, metrics: Metrics) -> None:
        metrics.record("verdict", {**VERDICT, "group": "X25519MLKEM768", "resumed": True})
        metrics.record("verdict", {**VERDICT, "group": "X25519MLKEM768", "stage": "recipient"})
        labels = {"listener": "mx", "tls": "TLSv1.3", "group": "X25519MLKEM768", "resumed": "yes"}
        assert value(metrics, "handshakes_total", **labels) == 1

    @pytest.mark.parametrize("name", ["secp256r1", "prime256v1", "P-256"])
    def test_a_group_counts_under_one_name(self, metrics: Metrics, name: str) -> None:
        metrics.record("verdict", {**VERDICT, "group": name})
        labels = {"listener": "mx", "tls": "TLSv1.3", "group": "secp256r1", "resumed": "no"}
        assert value(metrics, "handshakes_total", **labels) == 1

    def test_static_rsa_has_no_group(self, metrics: Metrics) -> None:
        metrics.record("verdict", {**VERDICT, "tls": "TLSv1.2", "group": ""})
        labels = {"listener": "mx", "tls": "TLSv1.2", "group": "none", "resumed": "no"}
        assert value(metrics, "handshakes_total", **labels) == 1

    def test_transactions_and_their_octets(self, metrics: Metrics) -> None:
        for octets in (100, 23):
            metrics.record("transaction", {**SESSION, "outcome": "delivered", "octets": octets})
        metrics.record("transaction", {**SESSION, "outcome": "abandoned", "octets": 7})
        delivered = {"listener": "mx", "outcome": "delivered"}
        assert value(metrics, "transactions_total", **delivered) == 2
        assert value(metrics, "message_octets_total", **delivered) == 123
        assert value(metrics, "message_octets_total", listener="mx", outcome="abandoned") == 7

    def test_sessions_by_their_end(self, metrics: Metrics) -> None:
        metrics.record("session", {**SESSION, "verdict": "refuse", "tls": None, "outcome": "quit"})
        metrics.record("handshake-failed", {**SESSION, "reason": "no shared cipher"})
        metrics.record("proxy-header-invalid", {**SESSION, "reason": "no header in time"})
        assert value(metrics, "sessions_total", listener="mx", verdict="refuse", tls="none", outcome="quit") == 1
        assert value(metrics, "handshakes_failed_total", listener="mx") == 1
        assert value(metrics, "proxy_headers_invalid_total", listener="mx") == 1

    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            (replies.BACKEND_DOWN, "backend-down"),
            (replies.TOO_MANY_SESSIONS, "sessions"),
            (replies.TOO_MANY_SESSIONS_OF_YOURS, "sessions-per-client"),
        ],
    )
    def test_refused_sessions_by_the_limit_they_met(self, metrics: Metrics, reply: replies.Reply, reason: str) -> None:
        metrics.record("refused", {**SESSION, "reason": reply.text})
        assert value(metrics, "sessions_refused_total", listener="mx", reason=reason) == 1

    def test_backends(self, metrics: Metrics) -> None:
        backend = next(iter(NAMES.backends))
        assert value(metrics, "backend_up", backend=backend) == 1
        metrics.record("backend-down", {"backend": backend, "reason": "refused"})
        assert value(metrics, "backend_up", backend=backend) == 0
        metrics.record("backend-up", {"backend": backend})
        assert value(metrics, "backend_up", backend=backend) == 1
        assert value(metrics, "backend_downs_total", backend=backend) == 1

    def test_a_backend_that_is_not_trusted_is_not_up(self, metrics: Metrics) -> None:
        backend = next(iter(NAMES.backends))
        for _ in range(2):
            metrics.record("backend-refused", {"backend": backend, "reason": "relays for strangers"})
        assert value(metrics, "backend_up", backend=backend) == 0
        assert value(metrics, "backend_downs_total", backend=backend) is None

    def test_a_backend_that_left_the_configuration_is_no_longer_up_or_down(self, metrics: Metrics) -> None:
        backend = next(iter(NAMES.backends))
        metrics.know(evolve(NAMES, backends={"unix:/smtp"}))
        metrics.record("backend-up", {"backend": backend})
        assert value(metrics, "backend_up", backend=backend) is None
        assert value(metrics, "backend_up", backend="unix:/smtp") == 1

    def test_sessions_that_had_no_backend(self, metrics: Metrics) -> None:
        metrics.record("backend-failed", {**SESSION, "reason": "?"})
        assert value(metrics, "backend_failures_total", listener="mx", kind="unreachable") == 1

    @pytest.mark.parametrize(
        ("outcome", "kind"), [("backend-lost", "lost"), ("backend-silent", "silent"), ("backend-broken", "broken")]
    )
    def test_sessions_that_lost_their_backend(self, metrics: Metrics, outcome: str, kind: str) -> None:
        metrics.record("session", {**SESSION, "verdict": "pass", "tls": None, "outcome": outcome})
        assert value(metrics, "backend_failures_total", listener="mx", kind=kind) == 1

    def test_a_backend_that_breaks_the_protocol_is_counted_once(self, metrics: Metrics) -> None:
        """
        Whether its reply could not be read, which has an event of its own, or could not be the answer, which has not.
        """
        metrics.record("backend-broken", {**SESSION, "reason": "not a reply line"})
        metrics.record("session", {**SESSION, "verdict": "pass", "tls": None, "outcome": "backend-broken"})
        assert value(metrics, "backend_failures_total", listener="mx", kind="broken") == 1

    @pytest.mark.parametrize(
        ("event", "what", "outcome"),
        [
            ("reloaded", "configuration", "done"),
            ("reload-refused", "configuration", "refused"),
            ("certificates-reloaded", "certificates", "done"),
            ("certificates-refused", "certificates", "refused"),
        ],
    )
    def test_reloads_and_refused_ones(self, metrics: Metrics, event: str, what: str, outcome: str) -> None:
        """
        An alert can be set on the first refused load, as the series begins at 0.
        """
        assert value(metrics, "reloads_total", what=what, outcome=outcome) == 0
        metrics.record(event, {"problems": []})
        assert value(metrics, "reloads_total", what=what, outcome=outcome) == 1

    def test_other_events_count_for_nothing(self, metrics: Metrics) -> None:
        before = series(metrics)
        metrics.record("listening", {"listener": "mx", "endpoint": "tcp:25"})
        metrics.record("no such event", {})
        assert series(metrics) == before

    def test_certificates_of_before_are_forgotten(self, metrics: Metrics) -> None:
        name = "certificate_expiry_timestamp_seconds"
        metrics.certificates({"old.pem": datetime(2026, 12, 1, tzinfo=UTC)})
        metrics.certificates({"mx.pem": datetime(2027, 1, 1, tzinfo=UTC)})
        assert value(metrics, name, certificate="old.pem") is None
        assert value(metrics, name, certificate="mx.pem") == 1798761600

    def test_a_watched_value_is_asked_for_at_every_scrape(self, metrics: Metrics) -> None:
        sessions = [3]
        metrics.watch("sessions_open", "Sessions now", lambda: sessions[0])
        assert value(metrics, "sessions_open") == 3
        sessions[0] = 4
        assert value(metrics, "sessions_open") == 4


class TestCardinality:
    def test_ten_thousand_random_clients_make_no_series(self, metrics: Metrics) -> None:
        """
        HELO names, SNIs, ciphers, subjects, groups, senders, reasons: whatever a client chooses is no label.
        """
        chance = random.Random(1)

        def word() -> str:
            return f"{chance.getrandbits(64):x}"

        def entries() -> list[tuple[str, Mapping[str, object]]]:
            who = {**SESSION, "session": word(), "client": word()}
            tls = {"tls": "TLSv1.3", "cipher": word(), "bits": 128, "group": word(), "sni": word(), "resumed": False,
                   "client_certificate": word()}  # fmt: skip
            return [
                (
                    "verdict",
                    {**who, **tls, "stage": "handshake", "level": "strong", "outcome": "pass", "reason": word()},
                ),
                ("transaction", {**who, "outcome": "delivered", "sender": word(), "octets": 1, "reply": word()}),
                ("session", {**who, **tls, "helo": word(), "level": "strong", "verdict": "pass", "outcome": "quit"}),
                ("handshake-failed", {**who, "reason": word()}),
                ("refused", {**who, "reason": word()}),
                ("backend-failed", {**who, "reason": word()}),
            ]

        for event, fields in entries():
            metrics.record(event, fields)
        once = series(metrics)
        for _ in range(RANDOM_ROUNDS - 1):
            for event, fields in entries():
                metrics.record(event, fields)
        assert series(metrics) == once
        labels = {"listener": "mx", "verdict": "pass", "tls": "TLSv1.3", "outcome": "quit"}
        assert value(metrics, "sessions_total", **labels) == RANDOM_ROUNDS

    @pytest.mark.parametrize("hostile", ["{}\n", "tlsgate_x 1\n", ["mx"], {"a": 1}, 7, b"mx", object()])
    def test_what_is_no_known_name_is_other(self, metrics: Metrics, hostile: object) -> None:
        metrics.record("verdict", dict.fromkeys(VERDICT, hostile))
        metrics.record("session", {"listener": hostile, "verdict": hostile, "tls": hostile, "outcome": hostile})
        metrics.record("refused", {"listener": hostile, "reason": hostile})
        metrics.record("transaction", {"listener": hostile, "outcome": hostile, "octets": hostile})
        metrics.record("backend-down", {"backend": hostile})
        labels = dict.fromkeys(("listener", "verdict", "tls", "outcome"), "other")
        assert value(metrics, "sessions_total", **labels) == 1
        assert value(metrics, "sessions_refused_total", listener="other", reason="other") == 1
        assert value(metrics, "transactions_total", listener="other", outcome="other") == 1

    def test_an_entry_without_fields_is_counted(self, metrics: Metrics) -> None:
        for event in ("verdict", "session", "refused", "transaction", "backend-up", "handshake-failed"):
            metrics.record(event, {})
        assert value(metrics, "sessions_total", listener="none", verdict="none", tls="none", outcome="none") == 1

    def test_the_outcomes_of_the_law_are_known(self) -> None:
        assert {outcome.name.lower() for outcome in Outcome} == module.OUTCOMES


def asked(metrics: Metrics, request: bytes, *, ready: bool = True) -> bytes:
    transport = StringTransport()
    protocol = site(metrics.registry, lambda: ready).buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(request.replace(b"\n", b"\r\n"))
    answer: bytes = transport.value()
    protocol.connectionLost(None)
    return answer


class TestPages:
    def test_metrics(self, metrics: Metrics) -> None:
        metrics.record("session", {**SESSION, "verdict": "pass", "tls": "TLSv1.2", "outcome": "quit"})
        answer = asked(metrics, b"GET /metrics HTTP/1.0\n\n")
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"Content-Type: text/plain; version=" in answer
        assert b'tlsgate_sessions_total{listener="mx",outcome="quit",tls="TLSv1.2",verdict="pass"} 1.0\n' in answer

    def test_open_metrics_for_who_asks_for_them(self, metrics: Metrics) -> None:
        answer = asked(metrics, b"GET /metrics HTTP/1.0\nAccept: application/openmetrics-text; version=1.0.0\n\n")
        assert b"Content-Type: application/openmetrics-text" in answer
        assert answer.endswith(b"# EOF\n")

    def test_health_and_readiness(self, metrics: Metrics) -> None:
        assert asked(metrics, b"GET /healthz HTTP/1.0\n\n", ready=False).startswith(b"HTTP/1.0 200")
        assert asked(metrics, b"GET /readyz HTTP/1.0\n\n").startswith(b"HTTP/1.0 200")
        assert asked(metrics, b"GET /readyz HTTP/1.0\n\n", ready=False).startswith(b"HTTP/1.0 503")

    @pytest.mark.parametrize("path", [b"/", b"/metrics2", b"/../etc/passwd", b"/%2e%2e"])
    def test_there_is_nothing_else(self, metrics: Metrics, path: bytes) -> None:
        answer = asked(metrics, b"GET " + path + b" HTTP/1.0\n\n")
        assert answer.startswith(b"HTTP/1.0 404")

    def test_only_reading(self, metrics: Metrics) -> None:
        assert asked(metrics, b"POST /metrics HTTP/1.0\nContent-Length: 0\n\n").startswith(b"HTTP/1.0 405")
