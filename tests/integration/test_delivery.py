"""
Mail through the gate: what real clients send arrives in real servers byte for byte, over STARTTLS and implicit TLS.

`Mailbox.collect` is half of every assertion here: it fails when something else than a trace header stands before the
message, and the end of the run fails when anything arrived that was not collected.
"""

import itertools
from collections.abc import Callable

import pytest

from tests.integration import messages
from tests.integration.clients import Client
from tests.integration.gate import Gate
from tests.integration.mailserver import DOMAIN, REFUSED, MailServer
from tests.integration.messages import RECIPIENT, SENDER, stuffed
from tests.integration.routes import TLS_MODES, Mode, Route
from tests.integration.servers import SERVERS
from tests.integration.wire import Wire

CAROL = f"carol@{DOMAIN}"
FORWARDED = {"8BITMIME", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SIZE", "SMTPUTF8"}

modes = pytest.mark.parametrize("mode", TLS_MODES)


def offering(keyword: str) -> pytest.MarkDecorator:
    """
    Run the test against those servers that offer *keyword*.
    """
    kinds = [kind for kind in SERVERS if keyword in kind.keywords]
    return pytest.mark.parametrize("server", kinds, ids=[kind.name for kind in kinds], indirect=True)


def send(wire: Wire, message: bytes, *recipients: str, parameters: str = "") -> None:
    """
    Send *message* with DATA, every step acknowledged before the next.
    """
    assert wire.command(f"MAIL FROM:<{SENDER}>{parameters}").code == 250
    for recipient in recipients:
        assert wire.command(f"RCPT TO:<{recipient}>").code == 250
    assert wire.command("DATA").code == 354
    wire.send(stuffed(message))
    assert wire.reply().code == 250


def chunk(octets: bytes, last: str = "") -> bytes:
    """
    One BDAT command with its octets (RFC 3030 section 2).
    """
    return f"BDAT {len(octets)}{last}\r\n".encode() + octets


@modes
@pytest.mark.parametrize(
    "make", [messages.tiny, messages.dotted, messages.eight_bit, messages.big], ids=lambda make: make.__name__
)
def test_every_client_is_served(
    server: MailServer, gate: Gate, client: Client, mode: Mode, make: Callable[[], bytes]
) -> None:
    """
    The clients operators use get their mail through, whatever their TLS library and their manners.
    """
    sent = make()
    client.send(gate.route(mode), [RECIPIENT], sent)
    (arrived,) = server.mailbox.collect(sent)
    # Not compared in the assert: a difference of ten mebibytes is not for printing.
    same = arrived.message == sent
    assert same, (len(arrived.message), len(sent))


@modes
@pytest.mark.parametrize(
    "make", [messages.tiny, messages.empty, messages.dotted, messages.dot_at_the_end], ids=lambda make: make.__name__
)
def test_every_kind_of_message_arrives_unchanged(
    server: MailServer, gate: Gate, mode: Mode, make: Callable[[], bytes]
) -> None:
    """
    Whatever the message looks like, its end is found and its content is not touched (5321-26).
    """
    sent = make()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        send(wire, sent, RECIPIENT)
        wire.quit()
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]


@modes
def test_eight_bits_survive(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    BODY=8BITMIME is passed on with the MAIL command, and so are the octets above 127 (6152-01).
    """
    sent = messages.eight_bit()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        send(wire, sent, RECIPIENT, parameters=" BODY=8BITMIME")
        wire.quit()
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]


@modes
@offering("SMTPUTF8")
def test_internationalized_mail_arrives(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    UTF-8 in header, body and recipient, where the server offers SMTPUTF8 (6531-01).
    """
    sent = messages.internationalized()
    recipient = f"grüße@{DOMAIN}"
    with Wire(gate.route(mode)) as wire:
        assert "SMTPUTF8" in wire.greeted().keywords
        send(wire, sent, recipient, parameters=" BODY=8BITMIME SMTPUTF8")
        wire.quit()
    assert [(one.recipient, one.message) for one in server.mailbox.collect(sent)] == [(recipient, sent)]


@modes
def test_ten_mebibytes_arrive(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    A big message goes through in chunks of any size, none lost, none twice.
    """
    sent = messages.big()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        send(wire, sent, RECIPIENT, parameters=f" SIZE={len(sent)}")
        wire.quit()
    arrived = server.mailbox.collect(sent)
    assert len(arrived) == 1
    # Not compared in the assert: a difference of ten mebibytes is not for printing.
    same = arrived[0].message == sent
    assert same, (len(arrived[0].message), len(sent))


@modes
def test_a_refused_recipient_does_not_disturb_the_others(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    The client sees the server's own 550 for that recipient, and the others have their copy (5321-16).
    """
    sent = messages.tiny()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
        assert [wire.command(f"RCPT TO:<{to}>").code for to in (RECIPIENT, REFUSED, CAROL)] == [250, 550, 250]
        assert wire.command("DATA").code == 354
        wire.send(stuffed(sent))
        assert wire.reply().code == 250
        wire.quit()
    arrived = server.mailbox.collect(sent, copies=2)
    assert [(one.recipient, one.message) for one in arrived] == [(RECIPIENT, sent), (CAROL, sent)]


@modes
def test_several_messages_in_one_session(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    A session serves one mail transaction after the other, also behind one that was abandoned with RSET (5321-09).
    """
    sent = [messages.tiny(), messages.empty(), messages.dotted()]
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        for one in sent:
            send(wire, one, RECIPIENT)
            assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
            assert wire.command("RSET").code == 250
        wire.quit()
    assert [[copy.message for copy in server.mailbox.collect(one)] for one in sent] == [[one] for one in sent]


@modes
@offering("PIPELINING")
def test_pipelined_commands_are_answered_in_order(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    Whole groups in one piece, a message and the next transaction together: every reply comes, in its place (2920-01).
    """
    first, second = messages.dotted(), messages.tiny()
    envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nRCPT TO:<{REFUSED}>\r\nDATA\r\n".encode()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        wire.send(envelope)
        assert wire.replies(4) == [250, 250, 550, 354]
        wire.send(stuffed(first) + envelope)
        assert wire.replies(5) == [250, 250, 250, 550, 354]
        wire.send(stuffed(second) + b"RSET\r\nQUIT\r\n")
        assert wire.replies(3) == [250, 250, 221]
        assert wire.line() == ""
    assert [one.message for one in server.mailbox.collect(first)] == [first]
    assert [one.message for one in server.mailbox.collect(second)] == [second]


@modes
@offering("PIPELINING")
def test_data_that_is_refused_has_no_message_behind_it(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    Without a valid recipient the server refuses DATA; what was sent behind it are commands (5321-27, 2920-03).
    """
    sent = messages.tiny()
    group = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{REFUSED}>\r\nDATA\r\nRSET\r\n".encode()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        wire.send(group)
        codes = wire.replies(4)
        assert codes[:2] == [250, 550]
        assert codes[2] in {503, 554}
        assert codes[3] == 250
        send(wire, sent, RECIPIENT)
        wire.quit()
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]


@modes
@offering("CHUNKING")
def test_chunks_arrive_as_one_message(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    BDAT: cut inside CRLF, one octet, none at all, and lines a DATA message would have to stuff (3030-03).
    """
    sent = messages.dot_at_the_end()
    cuts = [0, 1, sent.index(b"\r\n") + 1, sent.index(b"\r\n\r\n") + 3, len(sent) - 4, len(sent)]
    chunks = [sent[start:end] for start, end in itertools.pairwise(cuts)]
    envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\n".encode()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        wire.send(envelope + b"".join(chunk(octets) for octets in chunks) + chunk(b"", " LAST") + b"NOOP\r\n")
        assert wire.replies(2 + len(chunks) + 2) == [250] * (2 + len(chunks) + 2)
        wire.quit()
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]


@modes
@offering("CHUNKING")
def test_bare_newlines_in_chunks_are_left_to_the_server(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    Whatever the server makes of bare CR and LF in BDAT octets, it makes the same of them through the gate (3030-08).
    """
    body = b"bare\rCR, bare\nLF, \n.\n and \r.\r and \r\n.\n and \n.\r\n: " + bytes(range(128, 256)) + b"\r\n"
    arrived = []
    for route in (Route(server.port, "plain"), gate.route(mode)):
        sent = messages.message(body)
        with Wire(route) as wire:
            wire.greeted()
            wire.send(
                f"MAIL FROM:<{SENDER}> BODY=8BITMIME\r\nRCPT TO:<{RECIPIENT}>\r\n".encode() + chunk(sent, " LAST")
            )
            assert wire.replies(3) == [250, 250, 250]
            wire.quit()
        copies = server.mailbox.collect(sent)
        arrived.append([copy.message.split(b"\r\n", 1)[1] for copy in copies])
    direct, through_the_gate = arrived
    assert through_the_gate == direct


@modes
def test_the_servers_own_keywords_are_offered(server: MailServer, gate: Gate, mode: Mode) -> None:
    """
    Inside TLS a client is offered what this server can do, nothing more, and no STARTTLS (3207-20, 5321-15).
    """
    with Wire(gate.route(mode)) as wire:
        offered = wire.greeted().keywords
        wire.quit()
    assert offered & FORWARDED == server.keywords & FORWARDED
    assert offered <= server.keywords


@pytest.mark.parametrize("mode", ["plain", *TLS_MODES])
def test_level_offered_takes_mail_with_and_without_tls(server: MailServer, open_gate: Gate, mode: Mode) -> None:
    """
    What a public MX needs: plaintext is served as if the gate were not there (3207-03, 3207-24).
    """
    sent = messages.dotted()
    with Wire(open_gate.route(mode)) as wire:
        wire.greeted()
        send(wire, sent, RECIPIENT)
        wire.quit()
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]
