"""
A stage: one session, the world around it, and an eye on the laws that hold at every single step.

The world is a client's connection and a backend's. Whatever a test makes happen, the stage fails it if the session wants
what no world can do, or what no session may want: octets to a backend that is not there, a word after the last one, a
second backend beside the first, a command of a client's that has not reached the level, memory without bound.
"""

from collections.abc import Iterable
from typing import Any

from attrs import define, field

from tests.policy.samples import circumstances
from tlsgate.policy.facts import TlsFacts
from tlsgate.policy.level import BUILT_IN, Level
from tlsgate.policy.rules import Outcome, Rulebook
from tlsgate.session import actions
from tlsgate.session.phases import Leg, Phase, Waiting
from tlsgate.session.session import Session
from tlsgate.session.state import Terms
from tlsgate.smtp import reply as replies
from tlsgate.smtp.framing import ReplyReader
from tlsgate.smtp.reply import BackendReply, Reply

HOSTNAME = "mx.example.org"
SESSION_ID = "s-1"


def terms(level: str | Level = "required", **changes: Any) -> Terms:
    """
    Return the terms of a session under *level*, *changes* made to them.
    """
    rulebook = Rulebook.single(BUILT_IN[level] if isinstance(level, str) else level)
    known: dict[str, Any] = {"rulebook": rulebook, "circumstances": circumstances(), "session_id": SESSION_ID}
    return Terms(**{**known, "hostname": HOSTNAME, **changes})


@define
class Stage:
    """
    A session that is told events and whose actions are performed, in a world without wires.

    *heard* is what the client and the backend got, in order: octets by name, and the words for what was done beside
    them. *said* is what went to the client, *backends* what went to each backend connection.
    """

    terms: Terms
    session: Session = field(init=False)
    heard: list[tuple[str, bytes]] = field(factory=list)
    said: bytes = b""
    backends: list[bytes] = field(factory=list)
    records: list[actions.Record] = field(factory=list)
    leg: str = "none"  # "dialling", "up"
    tls: TlsFacts | None = None
    handshaking: bool = False
    closed: bool = False
    paused: bool = False
    _client_reader: ReplyReader = field(factory=lambda: ReplyReader(1_000_000))
    replies: list[BackendReply] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.session = Session(self.terms)
        self.handshaking = self.terms.implicit
        self._perform(self.session.opened())

    # -- events

    def client(self, *chunks: bytes) -> "Stage":
        """
        The client sends *chunks*.
        """
        for chunk in chunks:
            self._perform(self.session.client_data(chunk))
        return self

    def backend(self, *chunks: bytes) -> "Stage":
        """
        The backend sends *chunks*; the first reply of a connection is its greeting, and comes whole.
        """
        for chunk in chunks:
            if self.leg == "dialling":
                (greeting,) = ReplyReader(1_000_000).feed(chunk)
                self.leg = "up"
                self._perform(self.session.backend_ready(greeting))
            elif self.leg == "up":
                self._perform(self.session.backend_data(chunk))
        return self

    def handshake(self, facts: TlsFacts) -> "Stage":
        """
        The client's handshake is done.
        """
        self.tls = facts
        self.handshaking = False
        self._perform(self.session.tls_established(facts))
        return self

    def backend_lost(self) -> "Stage":
        """
        The backend's connection is gone, or could not be had.
        """
        if self.leg == "up":
            self.leg = "none"
            self._perform(self.session.backend_lost())
        elif self.leg == "dialling":
            self.leg = "none"
            self._perform(self.session.backend_failed())
        return self

    def client_lost(self) -> "Stage":
        """
        The client's connection is gone.
        """
        self.closed = True
        self._perform(self.session.client_lost())
        return self

    def silence(self) -> "Stage":
        """
        Whom the session waits for says nothing for too long.
        """
        self._perform(self.session.timed_out())
        return self

    def drain(self) -> "Stage":
        """
        The service is stopping.
        """
        self._perform(self.session.drain())
        return self

    def refuse(self, reply: Reply) -> "Stage":
        """
        The service ends the session.
        """
        self._perform(self.session.refuse(reply))
        return self

    # -- what the session wants

    def _perform(self, wanted: Iterable[actions.Action]) -> None:
        for action in wanted:
            match action:
                case actions.SendClient(data):
                    self._to_client(data)
                case actions.SendBackend(data):
                    self._to_backend(data)
                case actions.DialBackend():
                    assert self.leg == "none", "a second backend connection beside the first"
                    assert not self.closed, "dialled for a session that is over"
                    self.leg = "dialling"
                    self.backends.append(b"")
                    self.heard.append(("backend", b"\0dial\0"))
                case actions.HangUpBackend(politely):
                    assert self.leg != "none", "hung up what is not there"
                    self.leg = "none"
                    self.heard.append(("backend", b"\0leave\0" if politely else b"\0drop\0"))
                case actions.StartTls():
                    assert not self.closed
                    assert self.tls is None, "TLS inside TLS"
                    assert self.said.endswith(replies.READY_FOR_TLS.encode()), "TLS without a 220"
                    self.handshaking = True
                    self.heard.append(("client", b"\0starttls\0"))
                case actions.CloseClient():
                    assert not self.closed, "closed twice"
                    self.closed = True
                    self.heard.append(("client", b"\0close\0"))
                case actions.PauseClient():
                    assert not self.paused
                    self.paused = True
                case actions.ResumeClient():
                    assert self.paused
                    self.paused = False
                case actions.Record():
                    self.records.append(action)
        self._check_rest()

    def _to_client(self, data: bytes) -> None:
        assert data, "nothing was to be said"
        assert not self.closed, f"said after the last word: {data!r}"
        # Octets that come between 220 and handshake go to the TLS layer of a real connection, not to the session.
        plaintext_behind = replies.PLAINTEXT_BEHIND_STARTTLS.encode()
        assert not self.handshaking or data == plaintext_behind, f"said while the handshake runs: {data!r}"
        self.said += data
        self.replies += self._client_reader.feed(data)
        self.heard.append(("client", data))

    def _to_backend(self, data: bytes) -> None:
        assert data, "nothing was to be said"
        assert self.leg == "up", f"said to a backend that is not there: {data!r}"
        decision = self.terms.rulebook.session(self.terms.circumstances, self.tls)
        heard_of_client = data != b"QUIT\r\n" or self.session.leg is not Leg.NONE  # else it is the gate's own
        insufficient = decision.outcome not in {Outcome.PASS, Outcome.WOULD_REFUSE}
        assert not (insufficient and heard_of_client), f"law 3: reached the backend: {data!r}"
        self.backends[-1] += data
        self.heard.append(("backend", data))

    def _check_rest(self) -> None:
        session, bounds = self.session, self.terms.bounds
        assert not self._client_reader.pending, "half a reply"
        if self.closed:
            assert self.leg == "none", "a backend connection outlives the session"
            assert session.waiting is Waiting.NOBODY
            assert session.phase is Phase.ENDED
            assert session.ending is not None, "ended, and nothing says why"
        else:
            # One action of the world may exceed a bound by what it brought; the session has to answer at once.
            assert len(session._input) <= bounds.held_octets_max
            assert len(session._talk.expectations) <= bounds.pipeline_max + 1
            assert session.waiting is not Waiting.NOBODY
