"""
Random clients and random backends against the laws: whatever they say, in whatever pieces, in whatever order.
"""

from random import Random

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.samples import TLS13
from tests.session.preludes import GREETED
from tests.session.test_phases import EVENTS, FROM_BACKEND, FROM_CLIENT, PHASES, backend_says
from tests.support.cuts import at
from tests.support.dialogue import play_once
from tests.support.model import MARK, Item, ModelBackend, ModelClient
from tests.support.stage import Stage, terms
from tlsgate.smtp.message import Newlines

STEPS_MAX = 5_000

WORDS = st.integers(0, 99).map(lambda number: b"%d" % number)
MESSAGES = st.lists(
    st.sampled_from(
        [b"text", b"\r\n", b".", b"..", b"\r\n.", b"XCLIENT a\r\n", b"QUIT\r\n", b"\x00\xff", b"\n", b"\r", b"\n.\r\n"]
    ),
    max_size=8,
).map(lambda pieces: ((b"\r\n" + b"".join(pieces) + MARK).partition(MARK)[0] + MARK)[2:])
CHUNKS = st.lists(st.sampled_from([b"\r\n", b".", b"QUIT\r\n", b"BDAT 1\r\n", b"a" * 30, b"\x00"]), max_size=5).map(
    b"".join
)
RESET_NEEDED = b"503 5.5.1 BDAT failed"

ITEMS = st.one_of(
    st.builds(
        lambda verb, word: Item(verb + b" " + word + b"\r\n"),
        st.sampled_from([b"NOOP", b"vrfy", b"HELP", b"FROB"]),
        WORDS,
    ),
    st.builds(lambda word: Item(b"MAIL FROM:<%b@example.org>\r\n" % word, own=RESET_NEEDED), WORDS),
    st.builds(lambda word: Item(b"RCPT TO:<%b@example.org>\r\n" % word, own=RESET_NEEDED), WORDS),
    st.builds(lambda: Item(b"RSET\r\n")),
    st.builds(lambda message: Item(b"DATA\r\n", message=message, own=RESET_NEEDED, ends_group=True), MESSAGES),
    st.builds(lambda chunk: Item(b"BDAT %d LAST\r\n" % len(chunk), chunk=chunk, own=b"503 5.5.1"), CHUNKS),
    st.builds(lambda: Item(b"BDAT x\r\n", own=b"501 5.5.4")),
    st.builds(lambda: Item(b"AUTH LOGIN\r\n", ends_group=True)),
    st.builds(
        lambda line: Item(b"AUTH LOGIN\r\n", sasl=line, ends_group=True), st.sampled_from([b"*\r\n", b"XCLIENT a\r\n"])
    ),
    st.builds(lambda: Item(b"AUTH EXTERNAL =\r\n", own=b"504 5.5.4", ends_group=True)),
    st.builds(lambda word: Item(b"EHLO name-%b\r\n" % word, ends_group=True), WORDS),
    st.builds(lambda word: Item(b"HELO name-%b\r\n" % word, ends_group=True), WORDS),
    st.sampled_from([b"XCLIENT ADDR=::1", b"xforward NAME=a", b"PROXY TCP4", b"TURN", b"XEXCH50 1 1", b"X-EXPS a"]).map(
        lambda line: Item(line + b"\r\n", own=b"502 5.5.1")
    ),
    st.sampled_from([b"STARTTLS", b"starttls x"]).map(lambda line: Item(line + b"\r\n", own=b"503 5.5.1")),
    st.sampled_from(
        [b"\r\n", b" XCLIENT\r\n", b'"XCLIENT"\r\n', b"\tXCLIENT\r\n", b"NOOP\rXCLIENT\r\n", b"NOOP\n", b"\x00\r\n"]
    ).map(lambda line: Item(line, own=b"500 5.5.2")),
    st.just(Item(b"NOOP " + b"a" * 5000 + b"\r\n", own=b"500 5.5.2")),
)
BACKENDS = st.builds(
    ModelBackend,
    pipelining=st.booleans(),
    chunking=st.booleans(),
    auth=st.booleans(),
    knows_ehlo=st.booleans(),
)


@define
class World:
    """
    A session between a client and a backend, run in random order.
    """

    stage: Stage
    client: ModelClient
    backend: ModelBackend
    rng: Random
    _to_gate: bytes = b""
    _from_backend: bytes = b""
    _heard: int = field(init=False)
    _read: int = 0

    def __attrs_post_init__(self) -> None:
        self._heard = len(self.stage.replies)
        self.backend.choose = lambda codes: codes[0] if self.rng.random() < 0.6 else self.rng.choice(codes)

    def step(self) -> bool:
        """
        Do one of the things that can be done now; return whether there was any.
        """
        moves = [self._client_speaks, self._client_sends, self._backend_answers, self._backend_sends]
        self.rng.shuffle(moves)
        return any(move() for move in moves)

    def run(self, steps: int = STEPS_MAX) -> None:
        """
        Go on until nobody has anything to say, or for that many steps.
        """
        for _ in range(steps):
            if self.stage.closed or not self.step():
                return
        assert steps < STEPS_MAX, "no end"

    def finish_reply(self) -> None:
        """
        Have the backend send what it has begun.
        """
        while self._backend_sends():
            pass

    def _piece(self, octets: bytes) -> int:
        return self.rng.choice([1, 2, 7, len(octets), len(octets)])

    def _client_speaks(self) -> bool:
        said = self.client.may_say()
        self._to_gate += said
        return bool(said)

    def _client_sends(self) -> bool:
        piece = self._to_gate[: self._piece(self._to_gate)]
        self._to_gate = self._to_gate[len(piece) :]
        if piece:
            self.stage.client(piece)
            self._client_hears()
        return bool(piece)

    def _client_hears(self) -> None:
        for reply in self.stage.replies[self._heard :]:
            self._to_gate += self.client.hear(reply.raw)
        self._heard = len(self.stage.replies)

    def _backend_answers(self) -> bool:
        arrived = self.stage.backends[-1][self._read :]
        self._read += len(arrived)
        self.backend.feed(arrived)
        reply = self.backend.reply()
        if not self.backend.pipelining and reply:
            assert not self._from_backend, "a command before the reply to the one before"
        self._from_backend += reply
        return bool(reply)

    def _backend_sends(self) -> bool:
        piece = self._from_backend[: self._piece(self._from_backend)]
        self._from_backend = self._from_backend[len(piece) :]
        if piece:
            self.stage.backend(piece)
            self._client_hears()
        return bool(piece)


# What a backend says out of turn, the client cannot know from the answer that is due.
LIES = {"backend b'rubbish", "backend b'250 said"}


def begin(items: list[Item], backend: ModelBackend, rng: Random, *, pipelining: bool) -> World:
    """
    Return a world in which the client of *items* is inside TLS, before *backend*.
    """
    stage = play_once(terms(), GREETED).client(b"STARTTLS\r\n").handshake(TLS13).backend(b"220 backend.example.org\r\n")
    stage.replies.clear()
    items = [Item(b"EHLO name-x\r\n", ends_group=True), *(evolve(item, replies=[]) for item in items)]
    return World(stage, ModelClient(items, pipelining), evolve(backend, commands=[], messages=[], queued=[]), rng)


def check_deliveries(world: World) -> None:
    """
    Fail if the client was told of a delivery that the backend did not confirm (law 5).
    """
    told = [reply for item in world.client.items for reply in item.replies if reply.startswith(b"250 message")]
    assert told == world.backend.queued[: len(told)]


@given(st.lists(ITEMS, max_size=12), BACKENDS, st.integers(0, 2**32), st.booleans())
def test_every_command_gets_its_own_reply(
    items: list[Item],
    backend: ModelBackend,
    seed: int,
    pipelining: bool,  # noqa: FBT001 - drawn
) -> None:
    """
    Laws 1, 4 and 5, 5321-13: each command is answered once, in order, by whom it is due; each message arrives as it was
    sent, its bare newlines made CRLF.
    """
    world = begin([*items, Item(b"QUIT\r\n", ends_group=True)], backend, Random(seed), pipelining=pipelining)
    world.run()
    assert world.client.closing == b""
    assert world.client.answered
    assert world.stage.closed
    check_deliveries(world)
    sent = [
        item.chunk if item.chunk or item.line.startswith(b"BDAT") else Newlines().feed(item.message, last=True)
        for item in world.client.items
        if b"message " in item.replies[-1]
    ]
    assert world.backend.messages == sent
    assert len(world.backend.queued) == sum(item.replies[-1].startswith(b"250 message") for item in world.client.items)


@pytest.mark.parametrize(
    "fault",
    [
        "backend lost",
        "client lost",
        "silence",
        "refuse",
        "drain",
        "backend b'rubbish",
        "backend b'421",
        "backend b'250 said",
    ],
)
@given(st.lists(ITEMS, max_size=8), BACKENDS, st.integers(0, 2**32), st.integers(0, 120))
def test_whatever_happens_in_between(
    fault: str, items: list[Item], backend: ModelBackend, seed: int, steps: int
) -> None:
    """
    Law 5: whoever dies, falls silent or talks nonsense, and whenever: no delivery that was not confirmed, and the last
    word is a 421.
    """
    world = begin(items, backend, Random(seed), pipelining=True)
    world.run(steps)
    world.finish_reply()
    (name,) = [name for name in EVENTS if name.startswith(fault) and "221" not in name]
    EVENTS[name](world.stage)
    heard = len(world.stage.replies)
    if fault not in LIES:
        world._client_hears()
        world.run()
    check_deliveries(world)
    if fault in {"refuse", "backend lost", "silence"} and heard:
        assert world.stage.closed
    if world.stage.closed and fault != "client lost" and fault not in LIES:
        assert world.client.closing.startswith(b"421") or world.stage.replies[-1].code == 221


@given(st.sampled_from(sorted(PHASES)), st.lists(st.sampled_from(sorted(EVENTS)), max_size=12))
def test_any_events(beginning: str, events: list[str]) -> None:
    """Law 6: any inputs, from any phase, in any order."""
    stage = PHASES[beginning][0]()
    for event in events:
        EVENTS[event](stage)


@given(st.sampled_from(sorted(PHASES)), st.lists(st.tuples(st.booleans(), st.binary(max_size=30)), max_size=12))
def test_any_octets(beginning: str, pieces: list[tuple[bool, bytes]]) -> None:
    """Law 6: any octets from either side, in any phase."""
    stage = PHASES[beginning][0]()
    for from_client, octets in pieces:
        if from_client:
            stage.client(octets)
        elif stage.leg == "up":
            stage.backend(octets)


# STARTTLS in plaintext is the one command after which it matters what has arrived already.
CUTTABLE = sorted(name for name, (build, _) in PHASES.items() if build().tls is not None and not build().closed)
# A backend that answers twice at once is caught; one that does so in two pieces may have been asked in between.
SINGLE_ANSWERS = [
    octets for octets in FROM_BACKEND[:-1] if not octets.endswith(b" b\r\n") or octets.startswith(b"250-a")
]


@given(
    st.sampled_from(CUTTABLE),
    st.lists(st.sampled_from(FROM_CLIENT), max_size=8).map(b"".join),
    st.lists(st.sampled_from(SINGLE_ANSWERS), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=3),
)
def test_any_cut(beginning: str, sent: bytes, answers: list[bytes], cuts: list[int], answer_cuts: list[int]) -> None:
    """All laws: whatever the client says, and whatever it is answered, how the octets were cut makes no difference."""
    whole, cut = PHASES[beginning][0](), PHASES[beginning][0]()
    whole.client(sent)
    cut.client(*at(sent, cuts))
    assert (whole.said, whole.backends) == (cut.said, cut.backends)
    for answer in answers:
        backend_says(answer, whole)
        if cut.leg == "up":
            cut.backend(*at(answer, answer_cuts))
        else:
            backend_says(answer, cut)
        assert (whole.said, whole.backends, whole.closed) == (cut.said, cut.backends, cut.closed), answer
