"""
The backend, or the client, dies at every octet of a session (law 5).
"""

from itertools import product
from random import Random

import pytest
from attrs import define

from tests.session.test_random import World, begin, check_deliveries
from tests.support.model import Item, ModelBackend
from tests.support.stage import Stage

MESSAGE = b"Subject: x\r\n\r\n..\r\ntext\r\n.\r\n"

SESSIONS = {
    "DATA": [
        Item(b"MAIL FROM:<1@example.org>\r\n"),
        Item(b"RCPT TO:<2@example.org>\r\n"),
        Item(b"DATA\r\n", message=MESSAGE, ends_group=True),
        Item(b"MAIL FROM:<3@example.org>\r\n"),
        Item(b"RCPT TO:<4@example.org>\r\n"),
        Item(b"DATA\r\n", message=b".\r\n", ends_group=True),
        Item(b"QUIT\r\n", ends_group=True),
    ],
    "BDAT": [
        Item(b"MAIL FROM:<1@example.org>\r\n"),
        Item(b"RCPT TO:<2@example.org>\r\n"),
        Item(b"BDAT 6\r\n", chunk=b"\r\n.\r\nx"),
        Item(b"BDAT 3 LAST\r\n", chunk=b"y\r\n"),
        Item(b"BDAT 0 LAST\r\n"),
        Item(b"QUIT\r\n", ends_group=True),
    ],
    "AUTH": [
        Item(b"AUTH LOGIN\r\n", ends_group=True),
        Item(b"NOOP 1\r\n"),
        Item(b"MAIL FROM:<1@example.org>\r\n"),
        Item(b"DATA\r\n", message=MESSAGE, ends_group=True),
        Item(b"QUIT\r\n", ends_group=True),
    ],
}
BACKENDS = {
    "modern": ModelBackend(),
    "one command at a time": ModelBackend(pipelining=False),
    "RFC 821": ModelBackend(pipelining=False, knows_ehlo=False, chunking=False, auth=False),
}


@define
class Mortal(World):
    """
    A world in which octets are counted, and something happens when they are used up.
    """

    from_backend_octets: int = 0
    from_client_octets: int = 0

    def step(self) -> bool:
        """
        Let everybody go on, the client first, in an order that never changes.
        """
        return self._client_speaks() or self._client_sends() or self._backend_answers() or self._backend_sends()

    def _piece(self, octets: bytes) -> int:
        if octets is self._to_gate:
            piece = min(len(octets), self.from_client_octets)
            self.from_client_octets -= piece
        else:
            piece = min(len(octets), self.from_backend_octets)
            self.from_backend_octets -= piece
        return piece


NO_LIMIT = 1_000_000


def live(
    session: str, backend: str, *, from_backend_octets: int = NO_LIMIT, from_client_octets: int = NO_LIMIT
) -> Mortal:
    """
    Return the world in which *session* ran before *backend* until so many octets of one of them were used up.
    """
    world = begin(SESSIONS[session], BACKENDS[backend], Random(0), pipelining=True)
    mortal = Mortal(world.stage, world.client, world.backend, world.rng)
    mortal.from_backend_octets = from_backend_octets
    mortal.from_client_octets = from_client_octets
    mortal.backend.choose = lambda codes: 334 if 334 in codes else codes[0]
    mortal.run()
    return mortal


def taken(stage: Stage) -> list[bytes]:
    """
    Return the replies by which the client believes that a message is delivered.
    """
    return [reply.raw for reply in stage.replies if reply.raw.startswith(b"250 message")]


# A backend of RFC 821 knows neither BDAT nor AUTH.
@pytest.mark.parametrize(
    ("session", "backend"), [pair for pair in product(SESSIONS, BACKENDS) if pair[1] != "RFC 821" or pair[0] == "DATA"]
)
class TestDeaths:
    def test_it_lives_if_nobody_dies(self, session: str, backend: str) -> None:
        """The sessions of these tests are whole ones, from greeting to QUIT."""
        world = live(session, backend)
        assert world.client.answered
        assert world.stage.closed
        assert taken(world.stage) == world.backend.queued != []

    def test_the_backend_dies_after_every_octet_it_says(self, session: str, backend: str) -> None:
        """5321-05, 5321-06, 5321-23: never a 250 that it did not give; otherwise 421, or 451 before there was a session."""
        octets = 0
        while True:
            world = live(session, backend, from_backend_octets=octets)
            if world.stage.closed:
                break
            confirmed = [reply for reply in world.backend.queued if reply in world.stage.said]
            world.stage.backend_lost()
            assert world.stage.closed, octets
            assert taken(world.stage) == confirmed, octets
            assert world.stage.replies[-1].code in {421, 221}, octets
            assert world.stage.replies[-1].code == 421 or world.backend.quit, octets
            check_deliveries(world)
            octets += 1
        assert octets > 100

    def test_the_backend_dies_after_every_octet_of_the_client(self, session: str, backend: str) -> None:
        """5321-06: the same, wherever the client is: between commands, in the message, in a chunk, in an exchange."""
        octets = 0
        while True:
            world = live(session, backend, from_client_octets=octets)
            if world.stage.closed:
                break
            before = taken(world.stage)
            world.stage.backend_lost()
            assert world.stage.closed, octets
            assert taken(world.stage) == before, octets
            assert world.stage.replies[-1].code in {421, 221}, octets
            octets += 1
        assert octets > 60

    def test_the_client_dies_after_every_octet(self, session: str, backend: str) -> None:
        """5321-06: a message that the client has not finished is not delivered, and does not look finished."""
        octets = 0
        while True:
            world = live(session, backend, from_client_octets=octets)
            if world.stage.closed:
                break
            complete = len(world.backend.messages)
            sent = len(world.stage.backends[-1])
            world.stage.client_lost()
            assert world.stage.leg == "none", octets
            assert world.stage.backends[-1][sent:] in {b"", b"QUIT\r\n"}, octets
            world.backend.feed(world.stage.backends[-1][world._read :])
            while world.backend.reply():
                pass
            assert len(world.backend.messages) == complete, octets
            octets += 1
        assert octets > 60
