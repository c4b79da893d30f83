"""
Host names: real Postfix hears from the gate what it would have found itself, in a DNS that may say anything or nothing.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from attrs import frozen
from twisted.names import dns

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.latency import MEASURED_SESSIONS, assert_unnoticed
from tests.integration.messages import RECIPIENT, SENDER
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, private_folder, wait_until
from tests.integration.routes import Route
from tests.integration.test_backend_tls import Part, Scripted, config, send
from tests.integration.test_proxy import LISTENER, Caller, logged
from tests.integration.wire import CLIENT_NAME, Reply
from tests.support.nameserver import Nameserver, Says, address, pointer

LOOKUP_SECONDS = 2


def unknown(code: int, source: str) -> Reply:
    """
    Return how Postfix refuses a client that it does not know by name.
    """
    return Reply(code, (f"{code // 100}.7.25 Client host rejected: cannot find your hostname, [{source}]",))


def reverse_unknown(source: str) -> Reply:
    return Reply(550, (f"5.7.1 Client host rejected: cannot find your reverse hostname, [{source}]",))


# What this Postfix demands of its clients at another port: a reverse name, be it confirmed or not.
LENIENT = """
127.0.0.1:{port} inet n - n - - smtpd
    -o smtpd_client_restrictions=reject_unknown_reverse_client_hostname
"""


@frozen
class Before:
    """
    A gate before a Postfix that wants to know everybody by name (*ports*: "strict", "strict6"), or by reverse name
    ("lenient"), with the DNS; and once without telling names ("untold", "untold-lenient").
    """

    postfix: Postfix
    gate: ConfiguredGate
    names: Nameserver
    ports: Mapping[str, int]

    def call(self, source: str, listener: str = "strict") -> Caller:
        """
        Return a client from the loopback address *source*.
        """
        return Caller(
            Route(self.ports[listener], "starttls", self.gate.authority, "::1" if ":" in source else "127.0.0.1"),
            source=source,
        )

    def answer(self, source: str, listener: str = "strict") -> Reply:
        """
        Return how such a client's recipient is answered; the session goes on, whatever that is.
        """
        with self.call(source, listener) as wire:
            wire.greeted()
            assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
            reply = wire.command(f"RCPT TO:<{RECIPIENT}>")
            assert wire.command("RSET").code == 250
            wire.quit()
        return reply

    def refusal(self, source: str, listener: str = "strict") -> Reply:
        """
        Return how it is answered where it must not be accepted; Postfix says what it minds for good with 550.
        """
        reply = self.answer(source, listener)
        assert reply.code in {450, 550}
        return reply


@pytest.fixture(scope="module")
def before(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    ports = {name: free_port() for name in ("strict", "strict6", "lenient", "untold", "untold-lenient")}
    groups = {"strict6": "default", "lenient": "lenient", "untold": "untold", "untold-lenient": "untold-lenient"}
    endpoints = {name: f"tcp:{port}:interface=127.0.0.1" for name, port in ports.items()}
    endpoints["strict6"] = rf"tcp6:{ports['strict6']}:interface=\\:\\:1"
    lenient = free_port()
    settings = {
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "inet_protocols": "all",
        # So that it would find a name for the gate itself.
        "smtpd_peername_lookup": "yes",
        "smtpd_client_restrictions": "reject_unknown_client_hostname",
        "unknown_client_reject_code": "550",
        "in_flow_delay": "0",
    }
    with private_folder("names") as folder, Nameserver() as names:
        postfix = Postfix(folder, settings=settings, services=LENIENT.format(port=lenient))
        try:
            postfix.start()

            def backend(port: int, name: str) -> str:
                return f'endpoints = ["tcp:127.0.0.1:{port}"]\nclient_address = "xclient"\nclient_name = "{name}"\n'

            text = config(
                identity,
                ports["strict"],
                backend(postfix.port, "dns"),
                rest="\n".join(
                    [
                        *(
                            LISTENER.format(name=name, endpoint=endpoints[name], backend=groups[name], keys="")
                            for name in groups
                        ),
                        f'[[backend_group]]\nname = "lenient"\n{backend(lenient, "dns")}',
                        f'[[backend_group]]\nname = "untold"\n{backend(postfix.port, "none")}',
                        f'[[backend_group]]\nname = "untold-lenient"\n{backend(lenient, "none")}',
                        f'[dns]\nservers = ["127.0.0.1:{names.port}"]',
                        f"[limits]\nclient_name_timeout_seconds = {LOOKUP_SECONDS}",
                    ]
                ),
            )
            with configured(tmp_path_factory.mktemp("gate"), text, identity.authority) as gate:
                yield Before(postfix, gate, names, ports)
                assert gate.journal("backend-down") == []
        finally:
            postfix.stop()


@pytest.mark.parametrize("source", ["127.0.0.51", "::1"])
def test_postfix_knows_the_client_by_name(before: Before, source: str) -> None:
    """
    In its log, in its trace header, and where it lets nobody in without.
    """
    before.names.has(source, "mx.client.example")
    sent = messages.tiny()
    with before.call(source, "strict6" if ":" in source else "strict") as wire:
        wire.greeted()
        send(wire, sent)
        wire.quit()
    [arrived] = before.postfix.mailbox.collect(sent)
    literal = f"[IPv6:{source}]" if ":" in source else f"[{source}]"
    assert f"Received: from {CLIENT_NAME} (mx.client.example {literal})" in arrived.trace
    assert logged(before.postfix, f"client=mx.client.example[{source}]")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("127.0.0.52", dns.ENAME),
        ("127.0.0.53", []),
        ("127.0.0.54", [pointer("another.example")]),
        ("127.0.0.55", [pointer("192.0.2.7")]),
    ],
    ids=["no such name", "no record", "another's name", "an address"],
)
def test_a_client_without_a_name_is_refused_in_postfixs_own_words(before: Before, source: str, said: Says) -> None:
    pointers = f"PTR {'.'.join(reversed(source.split('.')))}.in-addr.arpa"
    before.names.says[pointers] = said
    before.names.says["A another.example"] = [address("127.0.0.99")]
    assert before.refusal(source) == unknown(550, source)


def test_a_name_that_is_not_confirmed_is_a_reverse_name(before: Before) -> None:
    before.names.says["PTR 56.0.0.127.in-addr.arpa"] = [pointer("another.example")]
    before.names.says["A another.example"] = [address("127.0.0.99")]
    assert before.answer("127.0.0.56", "lenient").code == 250
    assert before.refusal("127.0.0.56", "strict") == unknown(550, "127.0.0.56")
    assert before.refusal("127.0.0.57", "lenient") == reverse_unknown("127.0.0.57")


@pytest.mark.parametrize("said", [None, dns.ESERVER], ids=["silent", "SERVFAIL"])
@pytest.mark.parametrize("what", ["PTR", "A"])
def test_a_dns_that_does_not_answer_puts_the_client_off(before: Before, said: Says, what: str) -> None:
    """
    It may come again: 450, not 550, and no later than the time that a lookup has.
    """
    source = f"127.0.0.{60 + 2 * (said is None) + (what == 'A')}"
    pointers = f"PTR {source.rpartition('.')[2]}.0.0.127.in-addr.arpa"
    before.names.says[pointers] = [pointer("slow.example")] if what == "A" else said
    before.names.says["A slow.example"] = said
    began = time.monotonic()
    assert before.refusal(source) == unknown(450, source)
    assert time.monotonic() - began < LOOKUP_SECONDS + 1


INJECTED = [
    b"a.example\r\nMAIL FROM:<x>",
    b"evil.example ADDR=127.0.0.1",
    b"evil.example+0D+0AQUIT",
    b"\xff\xfe.evil",
    b"*.evil",
]


@pytest.mark.parametrize("name", INJECTED, ids=repr)
def test_what_is_no_name_never_comes_near_postfix(before: Before, name: bytes) -> None:
    """
    CVE-2026-28753: a PTR record that says more than a name, put into XCLIENT, says it to the mail server.
    """
    source = f"127.0.0.{70 + INJECTED.index(name)}"
    before.names.says[f"PTR {source.rpartition('.')[2]}.0.0.127.in-addr.arpa"] = [pointer(name)]
    assert before.refusal(source) == unknown(550, source)
    assert "evil" not in before.postfix.said()


def test_without_names_nobody_is_known(before: Before) -> None:
    """
    And the gate's own reverse name, which this Postfix knows, is nobody else's.
    """
    before.names.has("127.0.0.80", "known.example")
    asked = len(before.names.asked)
    assert before.refusal("127.0.0.80", "untold") == unknown(550, "127.0.0.80")
    assert before.refusal("127.0.0.80", "untold-lenient") == reverse_unknown("127.0.0.80")
    assert before.names.asked[asked:] == []


def test_a_name_is_remembered_until_the_gate_reads_its_configuration_anew(before: Before) -> None:
    before.names.has("127.0.0.81", "late.example")
    for _ in range(3):
        assert before.answer("127.0.0.81").code == 250
    question = "PTR 81.0.0.127.in-addr.arpa"
    assert before.names.asked.count(question) == 1
    assert before.gate.reload()["event"] == "reloaded"
    assert before.answer("127.0.0.81").code == 250
    assert before.names.asked.count(question) == 2


def test_where_there_is_no_dns_the_client_is_put_off_at_once(before: Before) -> None:
    """
    And found again when there is one: HUP is enough to say where.
    """
    usual = before.gate.config
    before.names.has("127.0.0.82", "mx.client.example")
    elsewhere = usual.replace(f"127.0.0.1:{before.names.port}", f"127.0.0.1:{free_port()}")
    assert before.gate.reload(elsewhere)["event"] == "reloaded"
    try:
        began = time.monotonic()
        assert before.refusal("127.0.0.82") == unknown(450, "127.0.0.82")
        assert time.monotonic() - began < LOOKUP_SECONDS
    finally:
        assert before.gate.reload(usual)["event"] == "reloaded"
    assert before.answer("127.0.0.82").code == 250


def test_a_lookup_takes_no_time_that_a_client_notices(
    before: Before, record_property: Callable[[str, object], None]
) -> None:
    """
    It runs beside the client's handshake. Each client is a new one; those whose name is not told are measured in turn.
    """
    context = ssl.create_default_context(cafile=before.gate.authority)

    def measured(number_of_round: int) -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {"untold": [], "strict": []}
        asked = len(before.names.asked)
        for number in range(MEASURED_SESSIONS):
            source = f"127.0.{1 + number_of_round}.{number}"
            before.names.has(source, f"mx{number}.client.example")
            for listener, taken in seconds.items():
                route = Route(before.ports[listener], "starttls")
                began = time.perf_counter()
                with Caller(route, context, source=source) as wire:
                    wire.greeted()
                    assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
                    assert wire.command("RSET").code == 250
                    wire.quit()
                taken.append(time.perf_counter() - began)
        assert len(before.names.asked) - asked == 2 * MEASURED_SESSIONS
        return seconds

    assert_unnoticed(measured, record_property)


def test_a_gate_that_is_stopped_while_it_looks_up_a_name_ends_in_order(identity: Identity, tmp_path: Path) -> None:
    """
    It leaves no word of complaint in its log (see `ConfiguredGate.stop`).
    """
    port = free_port()
    part = Part(keywords=(b"XCLIENT NAME ADDR",), answers={b"XCLI": b"220 told.example ESMTP\r\n"})
    with Nameserver({"PTR 1.0.0.127.in-addr.arpa": None}) as names, Scripted(part) as backend:
        lines = (
            f'endpoints = ["{backend.endpoint}"]\nclient_address = "xclient"\nclient_name = "dns"\nprobe_seconds = 0'
        )
        text = config(
            identity,
            port,
            lines,
            rest=f'[dns]\nservers = ["127.0.0.1:{names.port}"]\n[limits]\ndrain_timeout_seconds = 0',
        )
        with configured(tmp_path, text, identity.authority) as gate:
            backend.wait(1)
            with Caller(Route(port, "starttls", gate.authority)) as wire:
                wire.reply()
                wire.command(f"EHLO {CLIENT_NAME}")
                wire.command("STARTTLS")
                wire.handshake()
                wire.send(f"EHLO {CLIENT_NAME}\r\n".encode())
                wait_until(lambda: names.asked, 5, lambda: "nothing was asked")
                gate.terminate()
                gate.wait_for(1, "stopped")
        heard = [line for one in backend.heard() for line in one.lines]
    assert b"XCLIENT" not in b" ".join(heard)
