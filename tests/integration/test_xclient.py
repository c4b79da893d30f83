"""
XCLIENT: real Postfix hears from the gate who the client is, and from nobody else.
"""

import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from attrs import frozen

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.latency import MEASURED_SESSIONS, assert_unnoticed
from tests.integration.messages import RECIPIENT, SENDER
from tests.integration.postfix import Postfix
from tests.integration.processes import accepts, free_port, private_folder, wait_until
from tests.integration.routes import Mode, Route
from tests.integration.test_backend_tls import Part, Scripted, config, send
from tests.integration.test_proxy import BALANCER, FAR, FAR6, FORGED, LISTENER, LOG_SECONDS, Caller, header, logged
from tests.integration.wire import CLIENT_NAME, Reply, Wire

ATTRIBUTES = b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
OFFERING = (b"PIPELINING", b"8BITMIME", ATTRIBUTES)


@frozen
class Before:
    """
    A gate before a Postfix that takes XCLIENT from it, and where it listens: by family, and without telling.
    """

    postfix: Postfix
    gate: ConfiguredGate
    ports: Mapping[str, int]

    def call(self, source: str, mode: Mode = "starttls", before: bytes = b"") -> Caller:
        """
        Return a client from the loopback address *source*.
        """
        family, host = ("ipv6", "::1") if ":" in source else ("ipv4", "127.0.0.1")
        return Caller(Route(self.ports[family], mode, self.gate.authority, host), source=source, before=before)


@pytest.fixture(scope="module")
def before(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    """
    The gate has two groups of backends, both that Postfix: the one is told of the client, the other is not.
    """
    ports = {"ipv4": free_port(), "ipv6": free_port(), "none": free_port()}
    endpoints = {
        "ipv4": f"tcp:{ports['ipv4']}:interface=127.0.0.1",
        "ipv6": rf"tcp6:{ports['ipv6']}:interface=\\:\\:1",
        "none": f"tcp:{ports['none']}:interface=127.0.0.1",
    }
    groups = {"ipv4": "default", "ipv6": "default", "none": "untold"}
    listeners = "".join(
        LISTENER.format(name=name, endpoint=endpoints[name], backend=groups[name], keys="") for name in ("ipv6", "none")
    )
    settings = {
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "inet_protocols": "all",
        # Otherwise it makes those wait a second who begin more messages than are delivered.
        "in_flow_delay": "0",
    }
    with private_folder("xclient") as folder:
        postfix = Postfix(folder, settings=settings)
        try:
            postfix.start()
            endpoint = f'endpoints = ["tcp:127.0.0.1:{postfix.port}"]'
            told = config(
                identity,
                ports["ipv4"],
                f'{endpoint}\nclient_address = "xclient"',
                listener=f'proxy_protocol_from = ["{BALANCER}"]',
                rest=f'{listeners}\n[[backend_group]]\nname = "untold"\n{endpoint}',
            )
            with configured(tmp_path_factory.mktemp("gate"), told, identity.authority) as gate:
                yield Before(postfix, gate, ports)
                assert gate.journal("backend-down") == []
        finally:
            postfix.stop()


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.42", "::1"])
def test_postfix_sees_the_clients_own_address(before: Before, source: str) -> None:
    """
    In its log and in its trace header, as the host that said this EHLO by this protocol.
    """
    sent = messages.tiny()
    with before.call(source) as wire:
        wire.greeted()
        send(wire, sent)
        wire.quit()
    [arrived] = before.postfix.mailbox.collect(sent)
    literal = f"[IPv6:{source}]" if ":" in source else f"[{source}]"
    assert f"Received: from {CLIENT_NAME} (unknown {literal})" in arrived.trace
    assert "with ESMTP id" in arrived.trace
    assert logged(before.postfix, f"client=unknown[{source}]")


@pytest.mark.parametrize("conveyed", [FAR, FAR6])
@pytest.mark.parametrize("version", [1, 2])
def test_postfix_sees_the_address_that_a_balancer_conveyed(before: Before, conveyed: str, version: int) -> None:
    sent = messages.tiny()
    with before.call(BALANCER, before=header(version, conveyed)) as wire:
        wire.greeted()
        send(wire, sent)
        wire.quit()
    assert conveyed in before.postfix.mailbox.collect(sent)[0].trace
    assert logged(before.postfix, f"client=unknown[{conveyed}]")


def test_this_postfix_can_be_lied_to(before: Before) -> None:
    """
    The control of what follows.
    """
    sent = messages.tiny()
    with Wire(Route(before.postfix.port, "plain")) as wire:
        assert "XCLIENT" in wire.greeted().keywords
        assert wire.command(f"XCLIENT ADDR={FORGED}").code == 220
        assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
        send(wire, sent)
        wire.quit()
    assert FORGED in before.postfix.mailbox.collect(sent)[0].trace


FORGERIES: dict[str, Callable[[Wire], None]] = {
    "a command": lambda wire: wire.send(f"XCLIENT ADDR={FORGED}\r\n".encode()),
    "in lower case": lambda wire: wire.send(f"xclient addr={FORGED}\r\n".encode()),
    "behind the attributes told": lambda wire: wire.send(f"XCLIENT NAME=x ADDR={FORGED}\r\n".encode()),
    "with a tab": lambda wire: wire.send(f"XCLIENT\tADDR={FORGED}\r\n".encode()),
    "XFORWARD": lambda wire: wire.send(f"XFORWARD ADDR={FORGED}\r\n".encode()),
    "behind a bare LF": lambda wire: wire.send(f"NOOP\nXCLIENT ADDR={FORGED}\r\n".encode()),
    "behind a bare CR": lambda wire: wire.send(f"NOOP\rXCLIENT ADDR={FORGED}\r\n".encode()),
}


def refused_before(wire: Wire, code: int) -> set[int]:
    """
    Return the codes of the replies before the first with that *code*, of which there must be one.
    """
    codes = {wire.reply().code}
    assert code not in codes
    while code not in codes:
        codes.add(wire.reply().code)
    return codes - {code}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_xclient_changes_nothing(before: Before, forgery: str) -> None:
    """
    However it is written, in plaintext or inside TLS; nor is it shown that anybody could give it.
    """
    sent = messages.tiny()
    mentioned = before.postfix.said().count(FORGED)
    with before.call("127.0.0.43") as wire:
        assert wire.reply().code == 220
        assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
        FORGERIES[forgery](wire)
        wire.send(b"STARTTLS\r\n")
        assert refused_before(wire, 220) <= {500, 502, 530}
        wire.handshake()
        hello = wire.command(f"EHLO {CLIENT_NAME}")
        assert not {"XCLIENT", "XFORWARD"} & hello.keywords
        FORGERIES[forgery](wire)
        wire.send(b"RSET\r\n")
        assert refused_before(wire, 250) <= {500, 502}
        send(wire, sent)
        wire.quit()
    [arrived] = before.postfix.mailbox.collect(sent)
    assert "127.0.0.43" in arrived.trace
    assert before.postfix.said().count(FORGED) == mentioned


def test_everything_that_is_known_is_told(identity: Identity, tmp_path: Path) -> None:
    """
    Address and port of both ends; and that the client's name is not known, or the gate's own would be taken for it.
    """
    port = free_port()
    with Scripted(Part(keywords=OFFERING, answers={b"XCLI": b"220 told.example ESMTP\r\n"})) as backend:
        lines = f'endpoints = ["{backend.endpoint}"]\nclient_address = "xclient"\nprobe_seconds = 0'
        with configured(tmp_path, config(identity, port, lines), identity.authority) as gate:
            backend.wait(1)
            with Caller(Route(port, "starttls", gate.authority), source="127.0.0.44") as wire:
                wire.greeted()
                assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
                wire.quit()
                [heard] = backend.wait(2)[1:]
    assert heard.plain == [
        b"EHLO gate.example",
        b"XCLIENT NAME=[UNAVAILABLE] ADDR=127.0.0.44 PORT=%d DESTADDR=127.0.0.1 DESTPORT=%d" % (wire.port, port),
        f"EHLO {CLIENT_NAME}".encode(),
        f"MAIL FROM:<{SENDER}>".encode(),
        b"QUIT",
    ]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Part(), "does not offer XCLIENT (to us)"),
        (Part(keywords=(b"XCLIENT NAME PROTO HELO",)), "offers XCLIENT without ADDR"),
        (Part(keywords=OFFERING, answers={b"XCLI": b"550 5.7.0 No\r\n"}), "answered XCLIENT with 550 5.7.0 No"),
        (Part(keywords=OFFERING, answers={b"XCLI": b"501 5.5.4 What?\r\n"}), "answered XCLIENT with 501 5.5.4 What?"),
        (Part(keywords=OFFERING, answers={b"XCLI": b"421 4.3.2 Bye\r\n"}), "answered XCLIENT with 421 4.3.2 Bye"),
        (Part(keywords=OFFERING, answers={b"XCLI": b"250 Thanks\r\n"}), "answered XCLIENT with 250 Thanks"),
        (Part(keywords=OFFERING, answers={b"XCLI": None}), "while the reply to XCLIENT was awaited"),
        (Part(answers={b"EHLO": b"502 What?\r\n"}), "answered EHLO with 502 What?"),
    ],
    ids=["not offered", "without ADDR", "550", "501", "421", "250", "hangs up", "no EHLO"],
)
def test_a_backend_that_cannot_be_told_gets_no_mail(
    identity: Identity, tmp_path: Path, part: Part, reason: str
) -> None:
    """
    The gate's own address must not count instead: the client is told to come again, and nothing it said goes on.
    """
    port = free_port()
    with Scripted(part) as backend:
        lines = f'endpoints = ["{backend.endpoint}"]\nclient_address = "xclient"\nprobe_seconds = 0'
        with configured(tmp_path, config(identity, port, lines), identity.authority) as gate:
            backend.wait(1)
            with Caller(Route(port, "starttls", gate.authority)) as wire:
                assert closed_to(wire)
            assert reason in gate.wait_for(1, "backend-failed")[0]["reason"]
        heard = [line for one in backend.heard() for line in one.lines]
    assert {line.split()[0] for line in heard} <= {b"EHLO", b"XCLIENT", b"QUIT"}
    assert CLIENT_NAME not in str(heard)


def closed_to(wire: Wire) -> bool:
    """
    Whether a client that has done everything right is told to come again.
    """
    assert wire.reply().code == 220
    assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
    assert wire.command("STARTTLS").code == 220
    wire.handshake()
    assert wire.command(f"EHLO {CLIENT_NAME}") == Reply(451, ("The mail server cannot be reached, try again later",))
    refused = wire.command(f"MAIL FROM:<{SENDER}>")
    wire.quit()
    return refused.code == 451 and refused.lines[0].startswith("4.4.1 ")


def test_a_client_that_the_backend_refuses_hears_it(identity: Identity, tmp_path: Path) -> None:
    """
    A backend that was told who the client is may want none of it (Postfix: smtpd_delay_reject = no); that is not for
    the gate to soften, and no reason to think that the backend is down.
    """
    port = free_port()
    part = Part(keywords=OFFERING, answers={b"XCLI": b"554 5.7.1 You are on a list\r\n"})
    with Scripted(part) as backend:
        lines = f'endpoints = ["{backend.endpoint}"]\nclient_address = "xclient"\nprobe_seconds = 0'
        with configured(tmp_path, config(identity, port, lines), identity.authority) as gate:
            backend.wait(1)
            for _ in range(2):
                with Caller(Route(port, "starttls", gate.authority)) as wire:
                    wire.reply()
                    wire.command(f"EHLO {CLIENT_NAME}")
                    wire.command("STARTTLS")
                    wire.handshake()
                    assert wire.command(f"EHLO {CLIENT_NAME}") == Reply(554, ("5.7.1 You are on a list",))
                    wire.quit()
            assert gate.journal("backend-down") == []


def test_a_postfix_that_takes_no_xclient_from_us_gets_no_mail(identity: Identity, tmp_path: Path) -> None:
    """
    It trusts the gate's address, but not so far; there is no transaction in its log, refused or not.
    """
    settings = {"smtpd_authorized_xclient_hosts": "192.0.2.1", "mynetworks": "127.0.0.0/8"}
    port = free_port()
    with private_folder("deaf") as folder:
        postfix = Postfix(folder, settings=settings)
        try:
            postfix.start()
            lines = f'endpoints = ["tcp:127.0.0.1:{postfix.port}"]\nclient_address = "xclient"\nprobe_seconds = 0'
            with configured(tmp_path, config(identity, port, lines), identity.authority) as gate:
                with Caller(Route(port, "starttls", gate.authority)) as wire:
                    assert closed_to(wire)
                assert "does not offer XCLIENT" in gate.wait_for(1, "backend-failed")[0]["reason"]
            # It says this of every session, and of what was said in it.
            said = wait_until(lambda: re.findall(r"disconnect from .*", postfix.said())[2:], LOG_SECONDS, postfix.said)
            assert "client=" not in postfix.said()
            assert "mail=" not in str(said)
        finally:
            postfix.stop()


@pytest.mark.parametrize("how", ["xclient", "proxy-v2"])
def test_a_client_that_a_postfix_cannot_be_told_of_takes_it_from_nobody(
    identity: Identity, tmp_path: Path, how: str
) -> None:
    """
    Without IPv6 it has a 501, or a 421 for a greeting, for an IPv6 client; the next client finds it up.
    """
    settings = {
        "xclient": {"smtpd_authorized_xclient_hosts": "127.0.0.1"},
        "proxy-v2": {"smtpd_upstream_proxy_protocol": "haproxy"},
    }[how]
    port, sent = free_port(), messages.tiny()
    with private_folder("ipv4") as folder:
        postfix = Postfix(folder, settings=settings, ready=accepts)
        try:
            postfix.start()
            lines = f'endpoints = ["tcp:127.0.0.1:{postfix.port}"]\nclient_address = "{how}"\nprobe_seconds = 0'
            told = config(identity, port, lines, listener=f'proxy_protocol_from = ["{BALANCER}"]')
            with configured(tmp_path, told, identity.authority) as gate:
                route = Route(port, "starttls", gate.authority)
                with Caller(route, source=BALANCER, before=header(2, FAR6)) as wire:
                    assert closed_to(wire)
                with Caller(route, source=BALANCER, before=header(2, FAR)) as wire:
                    wire.greeted()
                    send(wire, sent)
                    wire.quit()
                assert gate.journal("backend-down") == []
            [arrived] = postfix.mailbox.collect(sent)
            assert FAR in arrived.trace
        finally:
            postfix.stop()


def test_telling_takes_no_time_that_a_client_notices(
    before: Before, record_property: Callable[[str, object], None]
) -> None:
    """
    The preamble is spoken while the client's handshake runs.
    """
    context = ssl.create_default_context(cafile=before.gate.authority)

    def measured(_: int) -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {"none": [], "xclient": []}
        for _ in range(MEASURED_SESSIONS):
            for how, port in (("none", before.ports["none"]), ("xclient", before.ports["ipv4"])):
                begin = time.perf_counter()
                with Caller(Route(port, "starttls"), context) as wire:
                    wire.greeted()
                    for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "RSET"):
                        assert wire.command(command).code == 250
                    wire.quit()
                seconds[how].append(time.perf_counter() - begin)
        return seconds

    assert_unnoticed(measured, record_property)
