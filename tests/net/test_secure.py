"""
What a connection with TLS delivers, and when: records are of no meaning to SMTP, the end of TLS is.
"""

import gc
import struct
import weakref
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from tests.net.memory import READ_OCTETS, UNLIMITED
from tests.net.world import Client, World, world
from tests.support.handshake import client_context
from tlsgate.net.frontend import FrontendProtocol
from tlsgate.net.relay import Relay

TRAFFIC = b"CLIENT_TRAFFIC_SECRET_0 "


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """
    The lengths of the pieces that sessions are given.
    """
    lengths: list[int] = []
    original = Relay.client_data

    def noting(relay: Relay, data: bytes) -> None:
        lengths.append(len(data))
        original(relay, data)

    monkeypatch.setattr(Relay, "client_data", noting)
    return lengths


def records(client: Client, *pieces: bytes) -> None:
    """
    Put each piece on its way in a record of its own, all at once.
    """
    for piece in pieces:
        client.push(piece)


def close_notify(client: Client) -> None:
    assert client.tls is not None
    client.tls.shutdown()
    client._flush()


def test_records_that_came_together_are_one_piece(w: World, told: list[int]) -> None:
    client = w.inside()
    told.clear()
    records(client, b"NO", b"OP\r\nNOOP", b"\r\n", b"NOOP\r\n")
    client.send(b"")
    assert told == [len(b"NOOP\r\n" * 3)]
    assert client.codes() == [250, 250, 250]


def test_no_interfaces_are_copied(w: World) -> None:
    """
    Ten of them, for each connection, took a twentieth of a session's time.
    """
    client = w.inside()
    (protocol,) = w.service._listening["tcp:25"][0].protocols
    assert not client.closed
    assert "__provides__" not in vars(protocol.transport)


def test_a_piece_has_a_bound(w: World, told: list[int]) -> None:
    """
    However much the client has sent: no more than one read of the socket.
    """
    client = w.inside()
    client.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
    told.clear()
    message = b"x" * 70 + b"\r\n"
    message *= 16_000
    client.send(message + b".\r\n")
    assert client.codes() == [250, 250, 354, 250]
    assert sum(told) == len(message) + 3
    assert max(told) <= READ_OCTETS
    assert w.backend.legacy.messages == [message.removesuffix(b"\r\n")]


def test_what_was_said_before_the_end_of_tls_counts(w: World) -> None:
    """
    A client may say QUIT, and close, in one breath (RFC 8446 section 6.1: all before close_notify was sent).
    """
    client = w.inside()
    records(client, b"NOOP\r\n", b"QUIT\r\n")
    close_notify(client)
    client.send(b"")
    assert b"\r\nNOOP\r\nQUIT\r\n" in w.backend.heard
    w.settle(1)
    assert client.closed


GROUP = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT 5 LAST\r\nhi.\r\n"


def finished(w: World, mode: str, said: bytes) -> Client:
    """
    A client that has said this, in plaintext or inside TLS, and that it will say no more; the backend is silent so far.
    """
    client = w.inside() if mode == "tls" else w.connect().send(b"EHLO client.example\r\n")
    w.backend.silent = True
    client.heard()
    client.push(said)
    if mode == "tls":
        close_notify(client)
    client.end.close()
    client.send(b"")
    return client


@pytest.mark.parametrize("mode", ["plain", "tls"])
@pytest.mark.parametrize(("last", "codes"), [(b"", [250, 250, 250]), (b"QUIT\r\n", [250, 250, 250, 221])])
def test_who_says_no_more_is_answered_first(mode: str, last: bytes, codes: list[int]) -> None:
    """
    Exim sends its last message and QUIT, closes its half, and waits: without the reply it would send the message again.
    """
    with world("offered") as w:
        client = finished(w, mode, GROUP + last)
        assert not client.closed
        w.backend.silent = False
        w.settle(1)
        assert client.codes() == codes
        assert client.tls_over is (mode == "tls")
        assert client.closed
        (entry,) = w.records("session")
        assert f'"outcome":"{"quit" if last else "client-lost"}"' in entry
        assert '"delivered":1' in entry


def test_an_end_without_close_notify_is_the_end_of_both_halves(w: World) -> None:
    """
    Anybody on the way can close a connection: what came so far may not be all that was said.
    """
    client = w.inside()
    w.backend.silent = True
    client.push(GROUP)
    client.lose()
    assert client.closed
    assert w.backend.end.closed


@pytest.mark.parametrize("mode", ["plain", "tls"])
@pytest.mark.parametrize("said", [GROUP[:-1], b"DATA\r\n"])
def test_half_a_message_is_not_waited_for(mode: str, said: bytes) -> None:
    """
    Whoever owes the next octets, and says no more, is gone.
    """
    with world("offered") as w:
        client = finished(w, mode, said)
        w.backend.silent = False
        w.settle(1)
        assert client.closed
        assert w.backend.end.closed
        assert w.backend.legacy.messages == []


def test_what_follows_the_end_of_tls_is_not_kept(w: World) -> None:
    """
    Nobody will ever read it, and it would have no bound.
    """
    client = w.inside()
    w.backend.silent = True
    records(client, b"NOOP\r\n")
    close_notify(client)
    client.send(b"")
    (protocol,) = w.service._listening["tcp:25"][0].protocols
    for _ in range(3):
        client.end.sending += b"\x17\x03\x03\x40\x00" + bytes(1 << 14)
        w.settle()
    with pytest.raises(SSL.ZeroReturnError):
        protocol.transport.getHandle().recv(1)
    assert not client.closed
    w.backend.silent = False
    w.settle(1)
    assert client.codes()[-1:] == [250]
    assert client.closed


def test_who_says_nothing_is_not_waited_for() -> None:
    """
    Whoever looks whether a port is open has it dial no longer than it looks.
    """
    with world("offered", new_backend=lambda backend: setattr(backend, "silent", True)) as w:
        client = w.connect()
        client.lose()
        assert client.closed
        assert w.backend.end.closed


def test_who_says_nothing_inside_tls_is_not_waited_for(w: World) -> None:
    """
    What was said in plaintext is forgotten inside (RFC 3207 section 4.2): whoever only looks at the certificate has
    asked the backend for nothing.
    """
    w.new_backend = lambda backend: setattr(backend, "silent", True)
    client = w.connect().starttls()
    close_notify(client)
    client.send(b"")
    assert client.closed
    assert w.backend.end.closed


@pytest.mark.parametrize("mode", ["plain", "tls"])
def test_no_timer_outlives_who_is_waited_for_and_gone(mode: str) -> None:
    """
    It would keep all that it knows of.
    """
    with world("offered") as w:
        w.settle(10)
        before = len(w.network.getDelayedCalls())
        finished(w, mode, b"NOOP\r\n")
        (protocol,) = w.service._listening["tcp:25"][0].protocols
        w.backend.silent = False
        protocol.transport.abortConnection()
        w.settle()
        assert w.backend.end.closed
        assert len(w.network.getDelayedCalls()) == before


def test_who_closes_behind_quit_has_quit(w: World) -> None:
    """
    Exim does not wait for the reply; no session of its is lost for that.
    """
    client = w.inside()
    records(client, b"QUIT\r\n")
    close_notify(client)
    client.send(b"")
    w.settle(1)
    (entry,) = w.records("session")
    assert '"outcome":"quit"' in entry


def test_who_has_quit_while_it_was_not_read_is_read_again(w: World) -> None:
    """
    Its close_notify would not be seen: the connection would stay for its time, and be dropped in the end.
    """
    client = w.inside()
    w.backend.silent = True
    client.send(b"NOOP\r\n" * 3000 + b"QUIT\r\n")
    close_notify(client)
    client.send(b"")
    w.backend.silent = False
    w.settle(1)
    assert client.codes()[-2:] == [250, 221]
    assert client.closed
    assert not client.end.aborted


def test_a_local_answer_goes_out_before_the_end_of_tls(w: World) -> None:
    client = w.inside()
    records(client, b"STARTTLS\r\n", b"XCLIENT ADDR=192.0.2.1\r\n")
    close_notify(client)
    client.send(b"")
    assert client.codes() == [503, 502]
    assert client.tls_over


def test_a_record_that_was_changed_on_the_way_ends_it(w: World) -> None:
    """
    What came before it counts; it does not, nor what follows.
    """
    client = w.inside()
    records(client, b"NOOP\r\n")
    good = len(client.end.sending)
    records(client, b"RSET\r\n", b"VRFY x\r\n")
    client.end.sending[good + 10] ^= 1
    w.settle()
    with pytest.raises(SSL.Error):
        client._hear()
    assert b"NOOP" in w.backend.heard
    assert not {b"RSET", b"VRFY"} & set(w.backend.heard.split())
    assert client.closed


def test_a_connection_that_is_dropped_says_no_more(w: World) -> None:
    """
    Not even that TLS is over: a last word would look as if all was said.
    """
    client = w.inside()
    (protocol,) = w.service._listening["tcp:25"][0].protocols
    assert isinstance(protocol, FrontendProtocol)
    client.end.heard.clear()
    protocol.transport.abortConnection()
    w.settle()
    assert client.end.aborted
    assert not client.end.heard


@pytest.fixture
def uncollected() -> Iterator[None]:
    """
    What is kept by nobody goes, and what is kept in a circle stays.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def changed(client: Client) -> None:
    client.push(b"NOOP\r\n")
    client.end.sending[10] ^= 1


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(close_notify, id="close_notify"),
        pytest.param(lambda client: client.end.close(), id="closed"),
        pytest.param(lambda client: client.end.reset(), id="reset"),
        pytest.param(changed, id="changed on the way"),
    ],
)
@pytest.mark.usefixtures("uncollected")
def test_nothing_is_kept_of_tls_that_is_over(w: World, end: Callable[[Client], None]) -> None:
    """
    It is the largest part of a session, and garbage that is old is looked for seldom.
    """
    client = w.inside()
    (protocol,) = w.service._listening["tcp:25"][0].protocols
    kept = weakref.ref(protocol.transport.getHandle())
    end(client)
    w.settle()
    assert client.closed
    assert kept() is None


def _expanded(secret: bytes, label: bytes, octets: int) -> bytes:
    """
    HKDF-Expand-Label of RFC 8446 section 7.1, without a context.
    """
    label = b"tls13 " + label
    return HKDFExpand(SHA384(), octets, struct.pack("!HB", octets, len(label)) + label + b"\0").derive(secret)


def key_updates(secret: bytes, said: int, count: int) -> bytes:
    """
    Return so many records that ask for new keys, each the first under the keys of the one before (RFC 8446 section
    4.6.3), by a client that has said so many records with those of its *secret*.
    """
    records = b""
    content = bytes([24, 0, 0, 1, 1, 22])  # KeyUpdate, one octet: update_requested; a handshake record's
    for number in [said] + [0] * (count - 1):
        header = struct.pack("!BHH", 23, 0x0303, len(content) + 16)
        iv = int.from_bytes(_expanded(secret, b"iv", 12), "big") ^ number
        records += header + AESGCM(_expanded(secret, b"key", 32)).encrypt(iv.to_bytes(12, "big"), content, header)
        secret = _expanded(secret, b"traffic upd", 48)
    return records


def test_what_tls_says_for_itself_goes_out_whole(w: World) -> None:
    """
    A client may ask for new keys with every record, and is answered as often. Those answers must not pile up where
    nobody counts them: they wait for room like all else, and the client with them.
    """
    secrets: list[bytes] = []
    context = client_context()
    context.set_keylog_callback(lambda _, line: secrets.extend(line.split()[2:] if line.startswith(TRAFFIC) else []))
    client = w.connect().starttls(context)
    assert client.tls is not None
    assert client.tls.get_cipher_name() == "TLS_AES_256_GCM_SHA384"
    (protocol,) = w.service._listening["tcp:25"][0].protocols
    asked = key_updates(bytes.fromhex(secrets[0].decode()), 0, 14_000)
    client.end.room = 0
    client.end.sending += asked
    w.settle()
    with pytest.raises(SSL.WantReadError):
        protocol.transport.getHandle().bio_read(1)
    assert client.end.sending, "the client is not read from"
    client.end.room = UNLIMITED
    w.settle()
    assert not client.end.sending
    assert len(client.end.heard) > 0.9 * len(asked), "OpenSSL keeps an answer back at most"
