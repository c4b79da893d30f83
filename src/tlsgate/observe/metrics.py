# ruff: noqa: SLF001 - the table at the end names methods of the class above it
"""
The metrics: what the journal tells, counted, for Prometheus.

Clients choose much of what happens here, and a series once made is kept for good. So a label's value is a name from the
configuration or a member of a closed set; whatever else turns up is counted as "other".
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

from attrs import define, field, frozen
from prometheus_client import CollectorRegistry, Counter, Gauge

OTHER = "other"
NONE = "none"

STAGES = frozenset({"plaintext", "handshake", "helo", "sender", "recipient"})
OUTCOMES = frozenset({"pass", "would_refuse", "defer", "refuse"})
VERSIONS = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})
# How sessions end (tlsgate.session.endings), and which of these ends mean that the backend failed one.
SESSION_OUTCOMES = frozenset(
    {
        "quit", "client-lost", "client-silent", "handshake-failed", "backend-lost", "backend-closed", "backend-silent",
        "backend-broken", "backend-down", "injection", "message-refused", "limit", "deferred", "shutdown",
    }
)  # fmt: skip
BACKEND_FAILURES = {"backend-lost": "lost", "backend-silent": "silent", "backend-broken": "broken"}
TRANSACTION_OUTCOMES = frozenset({"delivered", "refused", "abandoned"})
# Why a session was turned away, by the reply that said so.
REFUSALS = {
    "The mail server is not available, try again later": "backend-down",
    "Too many sessions, try again later": "sessions",
    "Too many sessions from your address, try again later": "sessions-per-client",
}
# Key exchange groups as OpenSSL, NIST and IANA call them, in lower case, and the name they are counted under.
GROUPS = {
    "x25519mlkem768": "X25519MLKEM768",
    "secp256r1mlkem768": "SecP256r1MLKEM768",
    "secp384r1mlkem1024": "SecP384r1MLKEM1024",
    "mlkem512": "MLKEM512",
    "mlkem768": "MLKEM768",
    "mlkem1024": "MLKEM1024",
    "x25519": "x25519",
    "x448": "x448",
    **dict.fromkeys(("secp256r1", "prime256v1", "p-256"), "secp256r1"),
    **dict.fromkeys(("secp384r1", "p-384"), "secp384r1"),
    **dict.fromkeys(("secp521r1", "p-521"), "secp521r1"),
    **{f"ffdhe{bits}": f"ffdhe{bits}" for bits in (2048, 3072, 4096, 6144, 8192)},
}


def _set(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@frozen
class Names:
    """
    What the configuration calls its listeners, levels and backends.
    """

    listeners: frozenset[str] = field(default=frozenset(), converter=_set)
    levels: frozenset[str] = field(default=frozenset(), converter=_set)
    backends: frozenset[str] = field(default=frozenset(), converter=_set)


def _one_of(closed: Collection[str], value: object) -> str:
    if value is None or value == "":
        return NONE
    # Not every value can be looked up: an entry may hold a list.
    return value if isinstance(value, str) and value in closed else OTHER


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


@define(eq=False)
class Metrics:
    """
    All metrics of one gate, in a *registry* of their own.

    `record` is told every journal entry. What cannot be read off those is handed in: `know`, `certificates`, `watch`.
    """

    registry: CollectorRegistry = field(factory=CollectorRegistry)
    _names: Names = Names()
    _sessions: Counter = field(init=False)
    _refused: Counter = field(init=False)
    _handshakes: Counter = field(init=False)
    _handshakes_failed: Counter = field(init=False)
    _verdicts: Counter = field(init=False)
    _transactions: Counter = field(init=False)
    _octets: Counter = field(init=False)
    _proxy_headers: Counter = field(init=False)
    _backend_up: Gauge = field(init=False)
    _backend_downs: Counter = field(init=False)
    _backend_failures: Counter = field(init=False)
    _reloads: Counter = field(init=False)
    _listening_failed: Counter = field(init=False)
    _certificates: Gauge = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sessions = self._counter("sessions", "Sessions that are over", "listener", "verdict", "tls", "outcome")
        self._refused = self._counter("sessions_refused", "Sessions that could not begin", "listener", "reason")
        self._handshakes = self._counter(
            "handshakes", "TLS handshakes completed with clients", "listener", "tls", "group", "resumed"
        )
        self._handshakes_failed = self._counter("handshakes_failed", "TLS handshakes broken off", "listener")
        self._verdicts = self._counter(
            "verdicts", "Verdicts, audited ones too", "listener", "level", "stage", "outcome", "tls"
        )
        self._transactions = self._counter("transactions", "Mail transactions", "listener", "outcome")
        self._octets = self._counter("message_octets", "Octets of messages", "listener", "outcome")
        self._proxy_headers = self._counter("proxy_headers_invalid", "Invalid PROXY headers", "listener")
        self._backend_up = Gauge("tlsgate_backend_up", "1: mail may go there", ["backend"], registry=self.registry)
        self._backend_downs = self._counter("backend_downs", "Times it went down", "backend")
        self._backend_failures = self._counter(
            "backend_failures", "Sessions that got no backend, or lost it", "listener", "kind"
        )
        self._reloads = self._counter("reloads", "Reloads", "what", "outcome")
        # A rate can be told only of a series that is there before it first grows.
        for what in ("configuration", "certificates"):
            for outcome in ("done", "refused"):
                self._reloads.labels(what, outcome)
        self._listening_failed = self._counter("listening_failed", "Listeners that could not be opened", "listener")
        self._certificates = Gauge(
            "tlsgate_certificate_expiry_timestamp_seconds", "When it ends", ["certificate"], registry=self.registry
        )

    def record(self, event: str, fields: Mapping[str, object]) -> None:
        """
        Count one journal entry; most kinds of entries count for something, others are let pass. Never raises.
        """
        count = _COUNTED.get(event)
        if count is not None:
            count(self, fields)

    def know(self, names: Names) -> None:
        """
        Take *names* for those that may be labels from now on. The gauges of backends no longer named are gone.
        """
        for backend in self._names.backends - names.backends:
            self._backend_up.remove(backend)
        for backend in names.backends:
            # In rotation until it has failed, whatever it did under the configuration before.
            self._backend_up.labels(backend).set(1)
        self._names = names

    def certificates(self, not_after: Mapping[str, datetime]) -> None:
        """
        Tell when the certificates in use end: *not_after* has each one's file.
        """
        self._certificates.clear()
        for certificate, end in not_after.items():
            self._certificates.labels(certificate).set(end.timestamp())

    def watch(self, gauge: str, meaning: str, value: Callable[[], float]) -> None:
        """
        Show under tlsgate_*gauge* what *value* returns whenever it is asked.
        """
        Gauge(f"tlsgate_{gauge}", meaning, registry=self.registry).set_function(value)

    # -- inside

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"tlsgate_{name}", meaning, labels, registry=self.registry)

    def _listener(self, fields: Mapping[str, object]) -> str:
        return _one_of(self._names.listeners, fields.get("listener"))

    def _session(self, fields: Mapping[str, object]) -> None:
        verdict = _one_of(OUTCOMES, fields.get("verdict"))
        outcome = _one_of(SESSION_OUTCOMES, fields.get("outcome"))
        self._sessions.labels(self._listener(fields), verdict, _one_of(VERSIONS, fields.get("tls")), outcome).inc()
        failure = BACKEND_FAILURES.get(outcome)
        if failure is not None:
            self._backend_failure(fields, failure)

    def _session_refused(self, fields: Mapping[str, object]) -> None:
        reason = fields.get("reason")
        known = REFUSALS.get(reason, OTHER) if isinstance(reason, str) else OTHER
        self._refused.labels(self._listener(fields), known).inc()

    def _verdict(self, fields: Mapping[str, object]) -> None:
        listener, stage = self._listener(fields), _one_of(STAGES, fields.get("stage"))
        level, outcome = _one_of(self._names.levels, fields.get("level")), _one_of(OUTCOMES, fields.get("outcome"))
        version = _one_of(VERSIONS, fields.get("tls"))
        self._verdicts.labels(listener, level, stage, outcome, version).inc()
        if stage == "handshake":
            group = fields.get("group")
            group = _one_of(GROUPS, group.lower() if isinstance(group, str) else group)
            resumed = "yes" if fields.get("resumed") is True else "no"
            self._handshakes.labels(listener, version, GROUPS.get(group, group), resumed).inc()

    def _handshake_failed(self, fields: Mapping[str, object]) -> None:
        self._handshakes_failed.labels(self._listener(fields)).inc()

    def _transaction(self, fields: Mapping[str, object]) -> None:
        listener, outcome = self._listener(fields), _one_of(TRANSACTION_OUTCOMES, fields.get("outcome"))
        self._transactions.labels(listener, outcome).inc()
        self._octets.labels(listener, outcome).inc(_number(fields.get("octets")))

    def _proxy_header_invalid(self, fields: Mapping[str, object]) -> None:
        self._proxy_headers.labels(self._listener(fields)).inc()

    def _backend_went_down(self, fields: Mapping[str, object]) -> None:
        self._backend_downs.labels(_one_of(self._names.backends, fields.get("backend"))).inc()
        self._backend_is(0, fields)

    def _backend_is(self, up: int, fields: Mapping[str, object]) -> None:
        backend = fields.get("backend")
        # A session of an earlier configuration may still hear of a backend that is named no more.
        if isinstance(backend, str) and backend in self._names.backends:
            self._backend_up.labels(backend).set(up)

    def _backend_failure(self, fields: Mapping[str, object], kind: str) -> None:
        self._backend_failures.labels(self._listener(fields), kind).inc()

    def _reload(self, what: str, outcome: str) -> None:
        self._reloads.labels(what, outcome).inc()

    def _not_listening(self, fields: Mapping[str, object]) -> None:
        self._listening_failed.labels(self._listener(fields)).inc()


_COUNTED: Mapping[str, Callable[[Metrics, Mapping[str, object]], None]] = {
    "session": Metrics._session,
    "refused": Metrics._session_refused,
    "verdict": Metrics._verdict,
    "handshake-failed": Metrics._handshake_failed,
    "transaction": Metrics._transaction,
    "proxy-header-invalid": Metrics._proxy_header_invalid,
    "backend-up": lambda metrics, fields: metrics._backend_is(1, fields),
    "backend-down": Metrics._backend_went_down,
    # It answers, but relays for everybody: as good as down, again and again for as long as that is so.
    "backend-refused": lambda metrics, fields: metrics._backend_is(0, fields),
    # Not "backend-broken": the end of that session is counted (see BACKEND_FAILURES).
    "backend-failed": lambda metrics, fields: metrics._backend_failure(fields, "unreachable"),
    "reloaded": lambda metrics, _: metrics._reload("configuration", "done"),
    "reload-refused": lambda metrics, _: metrics._reload("configuration", "refused"),
    "certificates-reloaded": lambda metrics, _: metrics._reload("certificates", "done"),
    "certificates-refused": lambda metrics, _: metrics._reload("certificates", "refused"),
    "listening-failed": Metrics._not_listening,
}
