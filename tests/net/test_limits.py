"""
Each bound that sessions share is kept, is told to the client in the right words, and gives back what it counted.
"""

import pytest

from tests.net.world import Client, World, world

TOO_MANY = b"421 4.7.0 Too many sessions, try again later\r\n"
TOO_MANY_OF_YOURS = b"421 4.7.0 Too many sessions from your address, try again later\r\n"


def refused(world: World, address: str) -> bytes:
    """
    Return what a client hears that is hung up at once; empty if it is not.
    """
    client = world.connect(address)
    heard = client.heard()
    if heard.startswith(b"220"):
        client.lose()
        return b""
    assert client.closed
    return heard


class TestSessions:
    def test_no_more_than_so_many_and_again_when_one_is_over(self) -> None:
        with world(limits="sessions = 3") as w:
            clients = [w.connect(f"192.0.2.{number}") for number in range(3)]
            assert [client.codes() for client in clients] == [[220]] * 3
            for _ in range(5):
                assert refused(w, "192.0.2.9") == TOO_MANY
            clients[1].lose()
            fourth = w.connect("192.0.2.9")
            assert fourth.codes() == [220]
            assert refused(w, "192.0.2.10") == TOO_MANY

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_however_a_session_ends_it_is_not_counted_any_more(self, tls: str) -> None:
        with world(tls=tls, limits="sessions = 1\nsessions_per_client = 1\nhandshakes_in_flight = 1") as w:

            def in_tls() -> Client:
                client = w.connect()
                assert not client.closed, client.heard()
                return client.starttls() if tls == "starttls" else client.handshake()

            for _ in range(2):
                w.connect().lose()
                in_tls().lose()
                in_tls().send(b"QUIT\r\n").lose()
                in_tls().end.reset()
                w.settle()
                half = w.connect()
                if tls == "starttls":
                    half.send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
                half.send(b"\x16\x03\x01\x00").lose()
                garbage = w.connect()
                if tls == "starttls":
                    garbage.send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
                garbage.end.sending += b"MAIL FROM:<a@example.org>\r\n" * 10
                w.settle(6)
                assert garbage.closed
                silent = in_tls()
                w.settle(301)
                w.settle(6)
                assert silent.closed
                backend_dies = in_tls().send(b"EHLO x\r\n")
                w.backend.end.close()
                w.settle(6)
                assert backend_dies.closed
            in_tls().send(b"EHLO x\r\n")

    def test_a_session_that_was_refused_was_not_counted(self) -> None:
        with world(limits="sessions = 2\nsessions_per_client = 1") as w:
            first = w.connect("192.0.2.1")
            for _ in range(5):
                assert refused(w, "192.0.2.1") == TOO_MANY_OF_YOURS
            assert w.connect("192.0.2.2").codes() == [220]
            first.lose()
            assert w.connect("192.0.2.1").codes() == [220]

    def test_with_implicit_tls_there_is_no_way_to_say_it(self) -> None:
        """A reply in plaintext would be no TLS record: the connection is closed."""
        with world(tls="implicit", limits="sessions = 1") as w:
            w.connect()
            client = w.connect()
            assert client.closed
            assert client.heard() == b""


class TestSessionsPerClient:
    @pytest.mark.parametrize(
        ("same", "other"),
        [
            (["192.0.2.1"] * 3, "192.0.2.2"),
            (["2001:db8:1:2::1", "2001:db8:1:2:ffff::", "2001:db8:1:2:3:4:5:6"], "2001:db8:1:3::1"),
            (["::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"], "::ffff:192.0.2.2"),
        ],
        ids=["IPv4", "IPv6", "IPv4-in-IPv6"],
    )
    def test_one_address_or_one_slash_64_is_one_client(self, same: list[str], other: str) -> None:
        with world(limits="sessions_per_client = 2") as w:
            first, second = w.connect(same[0]), w.connect(same[1])
            assert first.codes() == second.codes() == [220]
            assert refused(w, same[2]) == TOO_MANY_OF_YOURS
            assert w.connect(other).codes() == [220]
            first.lose()
            assert refused(w, same[2]) == b""

    def test_the_default_leaves_room_for_a_big_sender(self) -> None:
        with world() as w:
            assert [w.connect().codes() for _ in range(100)] == [[220]] * 100
            assert refused(w, "192.0.2.7") == TOO_MANY_OF_YOURS


class TestSessionsPerSecond:
    def test_so_many_in_a_second_and_more_in_the_next(self) -> None:
        with world(limits="sessions_per_second = 3") as w:
            for _ in range(4):
                answers = [refused(w, f"192.0.2.{number}") for number in range(6)]
                assert answers == [b""] * 3 + [TOO_MANY] * 3
                w.settle(1.01)

    def test_one_client_alone_cannot_use_it_up(self) -> None:
        """What it is refused for itself is not taken from the others."""
        with world(limits="sessions_per_second = 3\nsessions_per_client = 1") as w:
            w.connect("192.0.2.1")
            assert [refused(w, "192.0.2.1") for _ in range(9)] == [TOO_MANY_OF_YOURS] * 9
            assert [refused(w, f"192.0.2.{number}") for number in (2, 3, 4)] == [b"", b"", TOO_MANY]

    def test_a_quiet_hour_saves_nothing_up(self) -> None:
        with world(limits="sessions_per_second = 2") as w:
            assert refused(w, "192.0.2.1") == b""
            w.settle(3600)
            assert [refused(w, "192.0.2.1") for _ in range(3)] == [b"", b"", TOO_MANY]


class TestHandshakes:
    def test_starttls_gets_454_while_there_are_too_many(self) -> None:
        """3207-02, 3207-01: and it is not announced either, as it could not be negotiated."""
        with world(limits="handshakes_in_flight = 2") as w:
            under_way = [w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n") for _ in range(2)]
            assert all(client.said.endswith(b"220 2.0.0 Ready to start TLS\r\n") for client in under_way)
            third = w.connect().send(b"EHLO x\r\n")
            assert b"STARTTLS" not in third.heard()
            third.send(b"STARTTLS\r\n")
            assert third.heard() == b"454 4.7.0 TLS not available due to temporary reason\r\n"
            under_way[0].handshake()
            third.send(b"EHLO x\r\n")
            assert b"STARTTLS" in third.heard()
            third.starttls().send(b"EHLO x\r\n")
            assert third.codes()[-1] == 250

    def test_with_implicit_tls_the_connection_is_closed(self) -> None:
        with world(tls="implicit", limits="handshakes_in_flight = 1") as w:
            first = w.connect()
            assert w.connect().closed
            first.handshake()
            w.connect().handshake()

    @pytest.mark.parametrize("how", ["lost", "reset", "silent", "garbage"])
    def test_a_handshake_that_fails_is_not_under_way_any_more(self, how: str) -> None:
        with world(limits="handshakes_in_flight = 1") as w:
            for _ in range(3):
                client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
                assert client.codes()[-1] == 220
                match how:
                    case "lost":
                        client.lose()
                    case "reset":
                        client.end.reset()
                    case "garbage":
                        client.end.sending += b"NOOP\r\n" * 20
                w.settle(31)
            w.inside()


def test_a_refusal_is_written_down() -> None:
    with world(limits="sessions = 1") as w:
        w.connect()
        refused(w, "192.0.2.9")
        (line,) = w.records("refused")
        assert '"client":"192.0.2.9"' in line
