"""
The trace line that the gate adds where it is told to: one, before the message, and nothing else is different.
"""

import re
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime

import pytest
from attrs import frozen

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.messages import RECIPIENT, SENDER, stuffed
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, private_folder
from tests.integration.routes import TLS_MODES, Mode, Route
from tests.integration.test_backend_tls import Heard, Scripted, config, send
from tests.integration.test_proxy import BALANCER, FAR6, LISTENER, Caller, header
from tests.integration.wire import CLIENT_NAME, Wire

# RFC 5321 section 4.4; the tls clause is RFC 8314 section 4.3.
TRACE = re.compile(
    rb"Received: from (?P<helo>\S+) \((?P<literal>\[\S+\])\)\r\n"
    rb" by gate\.example with (?P<protocol>\S+)(?P<version> \(\S+\))? id [0-9a-f]+(?P<tls>\r\n tls [^;]*)?;\r\n"
    rb" (?P<date>[^\r\n]+)\r\n"
)


@frozen
class Before:
    """
    A gate, once before a recorder and once before a Postfix: name of the listener -> port.
    """

    gate: ConfiguredGate
    recorder: Scripted
    postfix: Postfix
    ports: dict[str, int]

    def call(self, listener: str, mode: Mode = "starttls", source: str = "127.0.0.5", before: bytes = b"") -> Caller:
        """
        Return a client at that listener.
        """
        return Caller(Route(self.ports[listener], mode, self.gate.authority), source=source, before=before)


@pytest.fixture(scope="module")
def before(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    ports = {name: free_port() for name in ("starttls", "implicit", "postfix", "postfix-implicit")}
    listeners = "".join(
        LISTENER.format(name=name, endpoint=f"tcp:{ports[name]}:interface=127.0.0.1", backend=group, keys=keys)
        for name, group, keys in (
            ("implicit", "default", 'tls = "implicit"'),
            ("postfix", "postfix", ""),
            ("postfix-implicit", "postfix", 'tls = "implicit"'),
        )
    )
    with private_folder("received") as folder, Scripted() as recorder:
        postfix = Postfix(folder)
        try:
            postfix.start()
            group = f"""
                [[backend_group]]
                name = "postfix"
                endpoints = ["tcp:127.0.0.1:{postfix.port}"]
                received_header = true
            """
            told = config(
                identity,
                ports["starttls"],
                f'endpoints = ["{recorder.endpoint}"]\naccept_open_relay = true\nreceived_header = true',
                listener=f'level = "offered"\nproxy_protocol_from = ["{BALANCER}"]',
                rest=listeners + group,
            )
            with configured(tmp_path_factory.mktemp("gate"), told, identity.authority) as gate:
                yield Before(gate, recorder, postfix, ports)
        finally:
            postfix.stop()


def chunks(sent: bytes, sizes: Sequence[int]) -> list[bytes]:
    """
    Return *sent* as BDAT commands (RFC 3030) of those sizes, and one with the rest.
    """
    commands = []
    for size in sizes:
        chunk, sent = sent[:size], sent[size:]
        commands.append(b"BDAT %d\r\n" % len(chunk) + chunk)
    return [*commands, b"BDAT %d LAST\r\n" % len(sent) + sent]


def begin(wire: Wire) -> None:
    assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
    assert wire.command(f"RCPT TO:<{RECIPIENT}>").code == 250


def heard(recorder: Scripted, mark: bytes) -> tuple[Heard, bytes]:
    """
    Return the connection by which the message with *mark* came, and the message.
    """
    [found] = [(one, message) for one in recorder.heard() for message in one.messages if mark in message]
    return found


def mark(sent: bytes) -> bytes:
    """
    Return what tells this message from all others.
    """
    return sent[: sent.index(b"\r\n")]


@pytest.mark.parametrize("mode", TLS_MODES)
def test_one_line_stands_before_the_data(before: Before, mode: Mode) -> None:
    """
    5321-17, 8314-05: who, by which protocol, over which TLS, when; and the rest is the message, byte for byte.
    """
    sent = messages.dotted()
    with before.call(mode, mode) as wire:
        wire.greeted()
        send(wire, sent)
        wire.quit()
    _, message = heard(before.recorder, mark(sent))
    trace = TRACE.match(message)
    assert trace, message
    assert message[trace.end() :] == stuffed(sent).removesuffix(b".\r\n")
    assert (trace["helo"], trace["literal"]) == (CLIENT_NAME.encode(), b"[127.0.0.5]")
    assert (trace["protocol"], trace["version"]) == (b"ESMTPS", b" (TLSv1.3)")
    assert re.fullmatch(rb"\r\n tls TLS_[A-Z0-9_]+( group \S+)?", trace["tls"])
    assert parsedate_to_datetime(trace["date"].decode()).tzinfo is not None


def test_in_plaintext_it_says_so(before: Before) -> None:
    """
    No TLS, no clause; and a client that says HELO speaks no ESMTP (RFC 3848). The address is the conveyed one.
    """
    sent = messages.tiny()
    with before.call("starttls", "plain", BALANCER, header(2, FAR6)) as wire:
        assert wire.reply().code == 220
        assert wire.command("HELO old.example").code == 250
        send(wire, sent)
        wire.quit()
    _, message = heard(before.recorder, mark(sent))
    trace = TRACE.match(message)
    assert trace, message
    assert trace.group("helo", "literal", "protocol") == (b"old.example", f"[IPv6:{FAR6}]".encode(), b"SMTP")
    assert (trace["version"], trace["tls"]) == (None, None)
    assert message[trace.end() :] == sent


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (7, 0, 11), (40, 40)])
def test_the_first_chunk_grows_by_the_line(before: Before, sizes: tuple[int, ...]) -> None:
    """
    With BDAT a size says where a chunk ends: the first one's that holds something is of what the backend gets, the
    others' are untouched.
    """
    sent = messages.message(b"a\nb\rc\r\n.\r\n" + bytes(range(256)))
    with before.call("starttls") as wire:
        wire.greeted()
        begin(wire)
        for command in chunks(sent, sizes):
            wire.send(command)
            assert wire.reply().code == 250
        wire.quit()
    session, message = heard(before.recorder, mark(sent))
    trace = TRACE.match(message)
    assert trace, message
    assert message[trace.end() :] == sent
    told = [line for line in session.plain if line.startswith(b"BDAT")]
    expected = [command[: command.index(b"\r\n")].split() for command in chunks(sent, sizes)]
    first = next(words for words in expected if words[1] != b"0")
    first[1] = b"%d" % (int(first[1]) + trace.end())
    assert told == [b" ".join(words) for words in expected]


def test_each_message_has_one(before: Before) -> None:
    """
    The second of a session, and one that begins anew after a transaction given up.
    """
    first, given_up, second, third = (messages.tiny() for _ in range(4))
    with before.call("starttls") as wire:
        wire.greeted()
        send(wire, first)
        begin(wire)
        wire.send(b"BDAT %d\r\n" % len(given_up) + given_up)
        assert wire.reply().code == 250
        assert wire.command("RSET").code == 250
        send(wire, second)
        begin(wire)
        wire.send(b"BDAT %d LAST\r\n" % len(third) + third)
        assert wire.reply().code == 250
        wire.quit()
    for sent in (first, second, third):
        _, message = heard(before.recorder, mark(sent))
        trace = TRACE.match(message)
        assert trace, message
        assert message[trace.end() :] == sent


def test_nothing_a_client_says_gets_out_of_its_place(before: Before) -> None:
    """
    What is no host name is not repeated, or it could write a line of its own.
    """
    sent = messages.tiny()
    with before.call("starttls") as wire:
        wire.greeted()
        assert wire.command("EHLO x) by evil.example (y; Thu, 1 Jan 1970 00:00:00 +0000").code == 250
        send(wire, sent)
        wire.quit()
    _, message = heard(before.recorder, mark(sent))
    assert b"evil" not in message
    assert TRACE.match(message), message


@pytest.mark.parametrize("mode", TLS_MODES)
@pytest.mark.parametrize("how", ["DATA", "BDAT"])
def test_a_real_server_takes_it_for_a_trace_line(before: Before, mode: Mode, how: str) -> None:
    """
    Postfix puts its own above it and delivers the rest as it was sent.
    """
    sent = messages.dotted()
    listener = "postfix" if mode == "starttls" else "postfix-implicit"
    with before.call(listener, mode) as wire:
        wire.greeted()
        if how == "BDAT":
            begin(wire)
            for command in chunks(sent, (33, 100)):
                wire.send(command)
                assert wire.reply().code == 250
        else:
            send(wire, sent)
        wire.quit()
    [arrived] = before.postfix.mailbox.collect(sent)
    assert arrived.message == sent
    own, ours = re.findall(r"^Received: from \S+ \(.*?\]\)", arrived.trace, re.MULTILINE)
    assert "127.0.0.1" in own
    assert ours == f"Received: from {CLIENT_NAME} ([127.0.0.5])"
    assert re.search(r"^ by gate\.example with ESMTPS \(TLSv1\.3\) id \w+$", arrived.trace, re.MULTILINE)
