"""
How a level grows strict: audited, then 421 for a stable share of the client networks, then 554 for all.
"""

import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from ssl import TLSVersion
from urllib.request import urlopen

import pytest
from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.inbox import Inbox
from tests.integration.processes import free_ports, wait_until
from tests.integration.shapes import Shape
from tests.integration.wire import CLIENT_NAME, Reply, Wire
from tests.net.memory import Network
from tests.net.world import BACKEND_PORT, Client, World, _folder
from tests.policy.samples import TLS10, TLS13, circumstances
from tests.support.legacy import Legacy
from tests.support.stage import Stage, terms
from tlsgate.policy.facts import TlsFacts
from tlsgate.policy.level import Level, Tls
from tlsgate.policy.ramp import Ramp
from tlsgate.policy.rules import Rulebook

START = datetime(2027, 1, 1, tzinfo=UTC)
REJECT = datetime(2027, 3, 1, tzinfo=UTC)
TICK = timedelta(seconds=1)
SHARE = 25
Address = IPv4Address | IPv6Address

# A /32 or a /64 each, half of them neighbours.
NETWORKS: list[Address] = [IPv4Address(0xC0000200 + n * 65_537 % 0x20000000) for n in range(5_000)] + [
    IPv6Address((0x20010DB8 << 96) + (n << 64) + 1) for n in range(5_000)
]


def rulebook(share: int = SHARE) -> Rulebook:
    """
    One level for everybody, ramped.
    """
    ramp = Ramp(START, share, REJECT)
    return Rulebook.single(Level("modern", Tls.REQUIRED, min_version="TLSv1.2", aead=True, enforcement=ramp))


def told(law: Rulebook, client: Address, now: datetime, tls: TlsFacts | None) -> int:
    """
    Return the code that answers MAIL in a whole session of that *client*: over *tls*, or in plaintext.
    """
    stage = Stage(terms(rulebook=law, circumstances=circumstances(client=client, now=now)))
    legacy, fed = Legacy(), 0

    def backend() -> None:
        nonlocal legacy, fed
        if stage.leg == "dialling":
            legacy, fed = Legacy(), 0
            stage.backend(legacy.greeting)
        while stage.leg == "up" and len(stage.backends[-1]) > fed:
            news, fed = stage.backends[-1][fed:], len(stage.backends[-1])
            stage.backend(legacy.feed(news))

    backend()
    script = [b"EHLO client.example\r\n"]
    if tls is not None:
        stage.client(b"EHLO client.example\r\n")
        backend()
        stage.client(b"STARTTLS\r\n").handshake(tls)
        backend()
    for line in [*script, b"MAIL FROM:<alice@client.example>\r\n"]:
        if not stage.closed:
            stage.client(line)
            backend()
    return stage.replies[-1].code


class TestShare:
    """
    10 000 client networks, and a clock that stands still.
    """

    def test_a_quarter_is_refused_for_now_and_always_the_same(self) -> None:
        """
        25 % +- 1.5 % meet 421; a day later, whatever the hour, the address within the network, and the way they
        fall short, they still do.
        """
        law = rulebook()
        first = {client: told(law, client, START, None) for client in NETWORKS}
        assert set(first.values()) == {250, 421}
        refused = [client for client, code in first.items() if code == 421]
        assert abs(len(refused) / len(NETWORKS) - SHARE / 100) <= 0.015
        for client in NETWORKS[::23]:
            neighbour = client if isinstance(client, IPv4Address) else client + 0xFFFF
            later = START + timedelta(days=1, hours=7)
            assert told(law, neighbour, later, None) == told(law, client, later, TLS10) == first[client]

    def test_a_grown_share_holds_on_to_whom_it_had(self) -> None:
        """
        Nobody who was refused at 25 percent gets through at 50.
        """
        sample = NETWORKS[::10]
        quarter, half = (
            {client for client in sample if told(rulebook(share), client, START, None) == 421} for share in (SHARE, 50)
        )
        assert quarter < half

    def test_who_meets_the_level_is_never_refused(self) -> None:
        """
        Before, within and after the ramp.
        """
        law = rulebook()
        for now in (START - TICK, START, REJECT):
            assert {told(law, client, now, TLS13) for client in NETWORKS[::100]} == {250}

    def test_the_dates_turn_250_into_421_into_554(self) -> None:
        """
        To the second: audited before the first date, refused for good from the second on, and then everybody.
        """
        law, sample = rulebook(), NETWORKS[::50]
        assert {told(law, client, START - TICK, TLS10) for client in sample} == {250}
        assert {told(law, client, REJECT - TICK, TLS10) for client in sample} == {250, 421}
        assert {told(law, client, REJECT, TLS10) for client in sample} == {554}
        # In plaintext there is still something the client can do about it (RFC 3207 section 4).
        assert {told(law, client, REJECT, None) for client in sample} == {530}


WORLD = """
hostname = "mx.example.org"
[[listener]]
name = "mx"
endpoint = "tcp:25"
level = "ramped"
acknowledge_rfc3207 = true
[[level]]
name = "ramped"
enforce = {{ from = {start:%Y-%m-%dT%H:%M:%SZ}, share = 50, reject_from = {reject:%Y-%m-%dT%H:%M:%SZ} }}
[tls]
certificates = [{{ chain = "mx.pem", key = "mx.key" }}]
reload_seconds = 0
[backend]
endpoints = ["tcp:127.0.0.1:{port}"]
probe_seconds = 0
accept_open_relay = true
[observe]
journal = "./journal"
"""


@pytest.fixture
def handlers() -> Iterator[None]:
    """
    Leave signals handled as they were.
    """
    usual = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, usual)


@pytest.mark.usefixtures("handlers")
class TestWires:
    """
    The service as configured, on wires in memory, and a clock that only the test moves.
    """

    def test_the_clock_alone_makes_it_strict(self) -> None:
        """
        The same clients, three times; nothing is reloaded between.
        """
        (_folder()[1] / "journal").unlink(missing_ok=True)
        now = datetime.fromtimestamp(time.time(), UTC)  # noqa: TID251 - that is when the world begins
        start, reject = now + timedelta(days=1), now + timedelta(days=3)
        world = World(WORLD.format(start=start, reject=reject, port=BACKEND_PORT), Network())
        clients = [f"198.51.100.{n}" for n in range(1, 41)]

        def codes() -> list[int]:
            return [self._mail(world.connect(address)) for address in clients]

        assert set(codes()) == {250}
        world.settle(timedelta(days=1, minutes=1).total_seconds())
        deferred = codes()
        assert set(deferred) == {250, 421}
        world.settle(timedelta(days=1).total_seconds())
        assert codes() == deferred
        world.settle(timedelta(days=1).total_seconds())
        assert set(codes()) == {530}
        outcomes = Counter(re.search(r'"outcome":"(\w+)"', line)[1] for line in world.records("verdict"))  # type: ignore[index]
        refused = deferred.count(421)
        assert outcomes == {"would_refuse": 40 + 2 * (40 - refused), "defer": 2 * refused, "refuse": 40}

    @staticmethod
    def _mail(client: Client) -> int:
        client.send(b"EHLO client.example\r\n").heard()
        client.send(b"MAIL FROM:<alice@client.example>\r\n")
        code: int = client.codes()[0]
        if not client.closed:
            client.send(b"QUIT\r\n")
        return code


AUDIT = """
hostname = "gate.example"
{listeners}

[[level]]
name = "enforced"
{demands}

[[level]]
name = "audited"
enforce = false
{demands}

[[level]]
name = "clinic-enforced"
client_certificate = "verified"
client_fingerprints = ["{nobody}"]

[[level]]
name = "clinic-audited"
enforce = false
client_certificate = "verified"
client_fingerprints = ["{nobody}"]

[[rule]]
listeners = ["enforced", "enforced-implicit"]
recipients = ["clinic.example"]
level = "clinic-enforced"

[[rule]]
listeners = ["audited", "audited-implicit"]
recipients = ["clinic.example"]
level = "clinic-audited"

[tls]
certificates = [{{ chain = "{certificate}", key = "{key}" }}]
legacy = true

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
probe_seconds = 0

[observe]
metrics = "tcp:{metrics}:interface=127.0.0.1"
"""
# What tells of verdicts; what tells of mail differs, as it should.
COUNTERS = ("verdicts_total", "handshakes_total", "sessions_total")
# What is different in any two sessions.
OF_ONE_SESSION = {"time", "session", "port"}
LISTENER = """
[[listener]]
name = "{name}"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "{tls}"
level = "{level}"
"""
DEMANDS = 'min_version = "TLSv1.2"\naead = true'

HELLO = f"EHLO {CLIENT_NAME}"
MAIL = "MAIL FROM:<alice@client.example>"
# TLS shapes, and what is said over them; `*` is the handshake.
TRAFFIC: Sequence[tuple[Shape, Sequence[str]]] = (
    (Shape(TLSVersion.TLSv1_3), [HELLO, MAIL, "QUIT"]),
    (Shape(TLSVersion.TLSv1_3), [HELLO, "NOOP", "QUIT"]),
    (Shape(TLSVersion.TLSv1_3), ["*", HELLO, MAIL, "RCPT TO:<bob@inbox.example>", "QUIT"]),
    (
        Shape(TLSVersion.TLSv1_3),
        ["*", HELLO, MAIL, "RCPT TO:<dr@clinic.example>", "RCPT TO:<bob@inbox.example>", "QUIT"],
    ),
    (Shape(TLSVersion.TLSv1), ["*", HELLO, MAIL, "RCPT TO:<bob@inbox.example>", "QUIT"]),
    (Shape(TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA"), ["*", HELLO, MAIL, "NOOP", "RSET", "QUIT"]),
    (Shape(TLSVersion.TLSv1_2, "AES128-GCM-SHA256"), ["*", HELLO, MAIL, "QUIT"]),
)


@frozen
class Trial:
    """
    A gate with listeners that enforce, and listeners that audit the same.
    """

    gate: ConfiguredGate
    ports: dict[str, int]
    metrics_port: int

    def replies(self, listener: str, shape: Shape, script: Sequence[str]) -> list[Reply]:
        """
        Return what answers the *script*.
        """
        implicit = listener.endswith("-implicit")
        route = self.gate.route(self.ports[listener], "implicit" if implicit else "starttls")
        assert route.authority is not None
        with Wire(route, shape.context(route.authority, {})) as wire:
            said = [wire.reply()]
            for line in script:
                if line != "*":
                    said.append(wire.command(line))
                elif not implicit:
                    said += [wire.command(HELLO), wire.command("STARTTLS")]
                    wire.handshake()
            return said

    def over(self, listener: str) -> int:
        """
        Return how many sessions of that listener are over.
        """
        return len([entry for entry in self.gate.journal("session") if entry["listener"] == listener])

    def scraped(self) -> list[Sample]:
        """
        Return all series.
        """
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as page:
            families = text_string_to_metric_families(page.read().decode())
            return [sample for family in families for sample in family.samples]


@pytest.fixture(scope="module")
def trial(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """
    All traffic has gone through both kinds of listener.
    """
    names = [f"{level}{way}" for level in ("enforced", "audited") for way in ("", "-implicit")]
    metrics_port, *others = free_ports(1 + len(names))
    ports = dict(zip(names, others, strict=True))
    listeners = "".join(
        LISTENER.format(
            name=name,
            port=port,
            tls="implicit" if name.endswith("-implicit") else "starttls",
            level=name.removesuffix("-implicit"),
        )
        for name, port in ports.items()
    )
    with Inbox() as inbox:
        config = AUDIT.format(
            listeners=listeners, demands=DEMANDS, nobody="00" * 32, certificate=identity.certificate,
            key=identity.key, backend=inbox.port, metrics=metrics_port,
        )  # fmt: skip
        with configured(tmp_path_factory.mktemp("trial"), config, identity.authority) as gate:
            yield Trial(gate, ports, metrics_port)


class TestAudit:
    """
    An audited level says and counts what an enforced one does, and refuses nobody.
    """

    @pytest.mark.parametrize("way", ["", "-implicit"], ids=["starttls", "implicit"])
    def test_the_same_traffic_differs_in_refusals_only(self, trial: Trial, way: str) -> None:
        """
        Replies are the same but where one refuses; verdicts and counters are equal, outcome for outcome, and so is what
        the journal says of each verdict.
        """
        refused = 0
        for shape, script in TRAFFIC:
            if way and "*" not in script:
                continue
            enforced = trial.replies("enforced" + way, shape, script)
            audited = trial.replies("audited" + way, shape, script)
            assert [each.code for each in audited if each.code >= 400] == [], (shape, script, audited)
            differing = [one.code for one, other in zip(enforced, audited, strict=True) if one.code != other.code]
            assert set(differing) <= {530, 554}, (shape, script, enforced, audited)
            refused += len(differing)
            if way and not differing:
                # Nothing was refused, nor said by the gate itself: it is the backend's word from beginning to end.
                assert enforced == audited
        assert refused >= 5
        sessions = len([1 for _, script in TRAFFIC if not way or "*" in script])
        for listener in ("enforced" + way, "audited" + way):
            wait_until(partial(self._over, trial, listener, sessions), 10, lambda: "sessions do not end")
        assert self._counted(trial, "enforced" + way) == self._counted(trial, "audited" + way)
        verdicts = self._verdicts(trial, "enforced" + way)
        assert verdicts == self._verdicts(trial, "audited" + way)
        assert len([verdict for verdict in verdicts if verdict["reason"]]) >= 3

    @staticmethod
    def _verdicts(trial: Trial, listener: str) -> list[dict[str, str]]:
        """
        Return what the journal says of the verdicts of a listener, "enforced" and "audited" told as one.
        """
        told = []
        for entry in trial.gate.journal("verdict"):
            if entry["listener"] == listener:
                fields = {key: str(value) for key, value in entry.items() if key not in OF_ONE_SESSION}
                fields = {key: value.replace("enforced", "audited") for key, value in fields.items()}
                told.append({key: value.replace("would_refuse", "refuse") for key, value in fields.items()})
        return told

    @staticmethod
    def _over(trial: Trial, listener: str, sessions: int) -> bool:
        return trial.over(listener) == sessions

    @staticmethod
    def _counted(trial: Trial, listener: str) -> dict[tuple[tuple[str, str], ...], float]:
        """
        Return the counters of a listener as Prometheus gets them, "enforced" and "audited" told as one.
        """
        counted = {}
        for sample in trial.scraped():
            if sample.labels.get("listener") != listener or not sample.name.endswith(COUNTERS):
                continue
            labels = {**sample.labels, "listener": "", "name": sample.name}
            told = {key: value.replace("enforced", "audited") for key, value in labels.items()}
            told = {key: value.replace("would_refuse", "refuse") for key, value in told.items()}
            counted[tuple(sorted(told.items()))] = sample.value
        assert len(counted) > 5
        return counted
