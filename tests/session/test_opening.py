"""
The gate's first words to a backend: what is said, in which order, and that nothing but success is success.
"""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.net.identity import ClientIdentity, xclient_commands
from tlsgate.session.opening import BackendTls, Opening, OpeningPlan
from tlsgate.session.steps import Failed, Ready, Send, StartTls, Step
from tlsgate.smtp.reply import BACKEND_TLS, BACKEND_UNREACHABLE, BackendReply, Reply

PROXY = b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\r\n"
GREETING = b"220 mx.example ESMTP\r\n"
TOLD_GREETING = b"220 mx.example ESMTP, pleased to meet the client\r\n"
EHLO = Send(b"EHLO gate.example\r\n")
STARTTLS = Send(b"STARTTLS\r\n")
QUIT = Send(b"QUIT\r\n")
XCLIENT = Send(b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7\r\n")
OFFERS = b"250-mx.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250-XCLIENT NAME ADDR\r\n250 8BITMIME\r\n"
GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"

Xclient = Callable[[frozenset[str]], list[bytes] | None]
tell: Xclient = partial(xclient_commands, who=ClientIdentity(address=IPv4Address("192.0.2.7")))


class Connected:
    """The connection is there."""


class Handshake:
    """A complete handshake, with its fault."""

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault


class Lost:
    """The connection is gone."""


class Identified:
    """It is known who the client is."""


CONNECTED = Connected()
SECURE = Handshake()
IDENTIFIED = Identified()
LOST = Lost()
Event = Connected | Handshake | Lost | Identified | bytes


def plan(tls: BackendTls = BackendTls.NONE) -> OpeningPlan:
    return OpeningPlan("gate.example", tls, reply_octets_max=1000)


def happen(opening: Opening, event: Event) -> list[Step]:
    match event:
        case Connected():
            return opening.connected()
        case Handshake():
            return opening.tls_established(event.fault)
        case Lost():
            return opening.lost("Connection was closed")
        case Identified():
            return opening.identified()
        case bytes():
            return opening.received(event)


def ready(greeting: bytes) -> Ready:
    return Ready(BackendReply(220, greeting))


class Dialogue:
    """
    A good opening: what happens, and what the gate does then.
    """

    def __init__(
        self,
        tls: BackendTls,
        proxy_header: bytes,
        xclient: Xclient | None,
        *exchanges: tuple[Event, list[Step]],
    ) -> None:
        self.tls, self.proxy_header, self.xclient, self.exchanges = tls, proxy_header, xclient, exchanges

    def opening(self) -> Opening:
        return Opening(plan(self.tls), self.proxy_header, self.xclient)


GOOD = {
    "nothing to say": Dialogue(
        BackendTls.NONE,
        b"",
        None,
        (CONNECTED, []),
        (GREETING, [ready(GREETING)]),
    ),
    "a greeting of several lines": Dialogue(
        BackendTls.NONE,
        b"",
        None,
        (CONNECTED, []),
        (b"220-mx.example ESMTP\r\n220 be nice\r\n", [ready(b"220-mx.example ESMTP\r\n220 be nice\r\n")]),
    ),
    "PROXY": Dialogue(
        BackendTls.NONE,
        PROXY,
        None,
        (CONNECTED, [Send(PROXY)]),
        (GREETING, [ready(GREETING)]),
    ),
    "XCLIENT": Dialogue(
        BackendTls.NONE,
        b"",
        tell,
        (CONNECTED, []),
        (GREETING, [EHLO]),
        (OFFERS, [XCLIENT]),
        (TOLD_GREETING, [ready(TOLD_GREETING)]),
    ),
    "XCLIENT in lower case, alone": Dialogue(
        BackendTls.NONE,
        b"",
        tell,
        (CONNECTED, []),
        (GREETING, [EHLO]),
        (b"250-mx.example\r\n250 xclient name addr\r\n", [XCLIENT]),
        (TOLD_GREETING, [ready(TOLD_GREETING)]),
    ),
    "XCLIENT in three commands": Dialogue(
        BackendTls.NONE,
        b"",
        lambda offered: [b"XCLIENT A=1\r\n", b"XCLIENT B=2\r\n", b"XCLIENT C=3\r\n"],
        (CONNECTED, []),
        (GREETING, [EHLO]),
        (OFFERS, [Send(b"XCLIENT A=1\r\n")]),
        (b"220 one\r\n", [Send(b"XCLIENT B=2\r\n")]),
        (b"220 two\r\n", [Send(b"XCLIENT C=3\r\n")]),
        (TOLD_GREETING, [ready(TOLD_GREETING)]),
    ),
    "implicit TLS": Dialogue(
        BackendTls.IMPLICIT,
        b"",
        None,
        (CONNECTED, [StartTls()]),
        (SECURE, []),
        (GREETING, [ready(GREETING)]),
    ),
    "PROXY, implicit TLS, XCLIENT": Dialogue(
        BackendTls.IMPLICIT,
        PROXY,
        tell,
        (CONNECTED, [Send(PROXY), StartTls()]),
        (SECURE, []),
        (GREETING, [EHLO]),
        (OFFERS, [XCLIENT]),
        (TOLD_GREETING, [ready(TOLD_GREETING)]),
    ),
    "STARTTLS": Dialogue(
        BackendTls.STARTTLS,
        b"",
        None,
        (CONNECTED, []),
        (b"220 evil.example in plaintext\r\n", [EHLO]),
        (OFFERS, [STARTTLS]),
        (GO_AHEAD, [StartTls()]),
        (SECURE, [EHLO]),
        (b"250-mx.example Hello gate.example [10.0.0.1]\r\n250 SIZE\r\n", [ready(b"220 mx.example ESMTP\r\n")]),
    ),
    "STARTTLS, a backend without a name": Dialogue(
        BackendTls.STARTTLS,
        b"",
        None,
        (CONNECTED, []),
        (GREETING, [EHLO]),
        (b"250-mx.example\r\n250 starttls\r\n", [STARTTLS]),
        (GO_AHEAD, [StartTls()]),
        (SECURE, [EHLO]),
        (b"250\r\n", [ready(b"220 gate.example ESMTP\r\n")]),
    ),
    "PROXY, STARTTLS, XCLIENT": Dialogue(
        BackendTls.STARTTLS,
        PROXY,
        tell,
        (CONNECTED, [Send(PROXY)]),
        (GREETING, [EHLO]),
        (OFFERS, [STARTTLS]),
        (GO_AHEAD, [StartTls()]),
        (SECURE, [EHLO]),
        (b"250-mx.example\r\n250 XCLIENT ADDR\r\n", [Send(b"XCLIENT ADDR=192.0.2.7\r\n")]),
        (TOLD_GREETING, [ready(TOLD_GREETING)]),
    ),
}
each_good = pytest.mark.parametrize("dialogue", GOOD.values(), ids=GOOD)


@each_good
def test_an_opening_goes_step_by_step(dialogue: Dialogue) -> None:
    opening = dialogue.opening()
    for event, steps in dialogue.exchanges:
        assert happen(opening, event) == steps


@each_good
def test_every_cut_in_two(dialogue: Dialogue) -> None:
    for cut in range(max(len(event) for event, _ in dialogue.exchanges if isinstance(event, bytes)) + 1):
        opening = dialogue.opening()
        for event, steps in dialogue.exchanges:
            if isinstance(event, bytes):
                assert happen(opening, event[:cut]) + happen(opening, event[cut:]) == steps, f"cut at {cut}"
            else:
                assert happen(opening, event) == steps


@each_good
def test_octet_by_octet(dialogue: Dialogue) -> None:
    opening = dialogue.opening()
    for event, steps in dialogue.exchanges:
        if isinstance(event, bytes):
            *early, last = [happen(opening, bytes((octet,))) for octet in event]
            assert not any(early)
            assert last == steps
        else:
            assert happen(opening, event) == steps


@each_good
def test_a_backend_that_is_lost_at_any_step_is_said_to_be(dialogue: Dialogue) -> None:
    for stop in range(len(dialogue.exchanges)):
        opening = dialogue.opening()
        for event, _ in dialogue.exchanges[:stop]:
            happen(opening, event)
        (failed,) = opening.lost("Connection was closed")
        assert isinstance(failed, Failed)
        assert failed.reply in (BACKEND_UNREACHABLE, BACKEND_TLS)
        assert failed.log_reason.startswith("Connection was closed, while ")
        assert failed.refusal is None


@each_good
def test_whatever_the_backend_says_too_much_ends_it(dialogue: Dialogue) -> None:
    """
    3207-07, seen from the client's side: octets behind a 220 to STARTTLS come from somebody in between. And nowhere
    else has the backend anything to add to its reply.
    """
    for extra in (b"2", b"220 mx.example\r\n", b"250 ok\r\n250 ok\r\n", b"\x16\x03\x03", b"\r\n"):
        for stop, (event, _) in enumerate(dialogue.exchanges):
            if not isinstance(event, bytes):
                continue
            opening = dialogue.opening()
            for before, _ in dialogue.exchanges[:stop]:
                happen(opening, before)
            (failed,) = opening.received(event + extra)
            assert isinstance(failed, Failed), f"{extra!r} behind {event!r}"
            assert opening.received(b"220 mx.example\r\n") == []


@each_good
def test_nothing_is_done_after_the_end(dialogue: Dialogue) -> None:
    opening = dialogue.opening()
    for event, _ in dialogue.exchanges:
        happen(opening, event)
    assert opening.received(b"421 bye\r\n") == []
    assert opening.lost("gone") == []
    assert opening.tls_established("fault") == []


def test_octets_before_the_handshake_is_done_are_nobodys() -> None:
    opening = Opening(plan(BackendTls.STARTTLS))
    for event in (CONNECTED, GREETING, OFFERS, GO_AHEAD):
        happen(opening, event)
    (failed,) = opening.received(b"250 ok\r\n")
    assert isinstance(failed, Failed)
    assert failed.reply == BACKEND_TLS
    assert opening.tls_established(None) == []


def test_half_a_reply_in_plaintext_is_not_completed_inside_tls() -> None:
    """
    3207-26: whoever holds the wire can write in plaintext, and must not have the first half of the next reply.
    """
    opening = Opening(plan(BackendTls.STARTTLS))
    for event in (CONNECTED, GREETING, OFFERS):
        happen(opening, event)
    (failed,) = opening.received(GO_AHEAD + b"250-evil.example\r\n")
    assert isinstance(failed, Failed)
    assert failed.reply == BACKEND_TLS


def test_a_name_learnt_in_plaintext_is_shown_to_nobody() -> None:
    """
    3207-15
    """
    opening = Opening(plan(BackendTls.STARTTLS))
    steps = [
        step
        for event in (CONNECTED, b"220 evil.example\r\n", OFFERS, GO_AHEAD, SECURE, b"250 mx.example\r\n")
        for step in happen(opening, event)
    ]
    assert steps[-1] == ready(b"220 mx.example ESMTP\r\n")


@frozen
class Failure:
    """
    What happens, what the client gets, whether QUIT is said, and a word of the reason.
    """

    tls: BackendTls
    xclient: Xclient | None
    events: tuple[Event, ...]
    reply: Reply
    quits: bool
    reason: str

    def opening(self) -> Opening:
        return Opening(plan(self.tls), b"", self.xclient)


STARTTLS_SO_FAR = (CONNECTED, GREETING)
BAD = {
    "greeted with 554": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"554 no\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "greeted with 554 no",
    ),
    "greeted with 451": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"451 no\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "greeted with 451",
    ),
    "greeted with 421": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"421 no\r\n"),
        BACKEND_UNREACHABLE,
        False,
        "greeted with 421",
    ),
    "greeted with 250": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"250 no\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "greeted with 250",
    ),
    "greeted with no SMTP": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"* OK IMAP4\r\n"),
        BACKEND_UNREACHABLE,
        False,
        "not a reply line",
    ),
    "greeted with LF": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"220 mx\n"),
        BACKEND_UNREACHABLE,
        False,
        "not a reply line",
    ),
    "greeted without end": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"220-" + b"x" * 1000),
        BACKEND_UNREACHABLE,
        False,
        "1000 octets",
    ),
    "the PROXY header is refused": Failure(
        BackendTls.NONE,
        None,
        (CONNECTED, b"421 4.3.2 No PROXY here\r\n"),
        BACKEND_UNREACHABLE,
        False,
        "No PROXY here",
    ),
    "EHLO is refused": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, b"502 what\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "answered EHLO with 502 what",
    ),
    "XCLIENT is not offered": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, b"250-mx.example\r\n250-XCLIENTS ADDR\r\n250 XFORWARD NAME ADDR\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "does not offer XCLIENT",
    ),
    "XCLIENT is the name of the backend": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, b"250 XCLIENT NAME ADDR\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "does not offer XCLIENT",
    ),
    "XCLIENT without ADDR": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, b"250-mx.example\r\n250 XCLIENT NAME PROTO HELO\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "XCLIENT without ADDR",
    ),
    "XCLIENT is refused": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, OFFERS, b"550 5.7.0 insufficient authorization\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "answered XCLIENT with 550",
    ),
    "XCLIENT gets 250": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, OFFERS, b"250 ok\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "answered XCLIENT with 250",
    ),
    "XCLIENT gets 421": Failure(
        BackendTls.NONE,
        tell,
        (CONNECTED, GREETING, OFFERS, b"421 bye\r\n"),
        BACKEND_UNREACHABLE,
        False,
        "answered XCLIENT with 421",
    ),
    "the second XCLIENT is refused": Failure(
        BackendTls.NONE,
        lambda offered: [b"XCLIENT A=1\r\n", b"XCLIENT B=2\r\n"],
        (CONNECTED, GREETING, OFFERS, GREETING, b"501 5.5.4 Bad B\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "answered XCLIENT with 501",
    ),
    "EHLO before STARTTLS is refused": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, b"500 what\r\n"),
        BACKEND_TLS,
        True,
        "answered EHLO with 500",
    ),
    "STARTTLS is not offered": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, b"250-mx.example\r\n250-XXXXXXXX\r\n250-STARTTLSX\r\n250 SIZE STARTTLS\r\n"),
        BACKEND_TLS,
        True,
        "does not offer STARTTLS",
    ),
    "STARTTLS gets 454": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, OFFERS, b"454 4.7.0 TLS not available\r\n"),
        BACKEND_TLS,
        True,
        "answered STARTTLS with 454",
    ),
    "STARTTLS gets 250": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, OFFERS, b"250 ok\r\n"),
        BACKEND_TLS,
        True,
        "answered STARTTLS with 250",
    ),
    "plaintext behind the 220 to STARTTLS": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, OFFERS, GO_AHEAD + b"250 mx.example\r\n"),
        BACKEND_TLS,
        False,
        "octets nobody asked for",
    ),
    "the handshake breaks off": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, OFFERS, GO_AHEAD, Lost()),
        BACKEND_TLS,
        False,
        "Connection was closed, while the TLS handshake was awaited",
    ),
    "TLS does not suffice": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, OFFERS, GO_AHEAD, Handshake("certificate has expired")),
        BACKEND_TLS,
        True,
        "certificate has expired",
    ),
    "EHLO inside TLS is refused": Failure(
        BackendTls.STARTTLS,
        None,
        (*STARTTLS_SO_FAR, OFFERS, GO_AHEAD, SECURE, b"503 what\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "answered EHLO with 503",
    ),
    "XCLIENT is offered in plaintext only": Failure(
        BackendTls.STARTTLS,
        tell,
        (*STARTTLS_SO_FAR, OFFERS, GO_AHEAD, SECURE, b"250-mx.example\r\n250 SIZE\r\n"),
        BACKEND_UNREACHABLE,
        True,
        "does not offer XCLIENT",
    ),
    "implicit TLS does not suffice": Failure(
        BackendTls.IMPLICIT,
        None,
        (CONNECTED, Handshake("hostname\r\nmismatch")),
        BACKEND_TLS,
        True,
        "hostname\\r\\nmismatch",
    ),
    "implicit TLS breaks off": Failure(
        BackendTls.IMPLICIT,
        None,
        (CONNECTED, Lost()),
        BACKEND_TLS,
        False,
        "Connection was closed",
    ),
    "no connection at all": Failure(
        BackendTls.IMPLICIT,
        None,
        (Lost(),),
        BACKEND_UNREACHABLE,
        False,
        "while the connection was awaited",
    ),
}
each_bad = pytest.mark.parametrize("failure", BAD.values(), ids=BAD)


@each_bad
def test_what_does_not_go_as_planned_fails_closed(failure: Failure) -> None:
    """
    No plaintext where TLS was demanded, no client without its address: QUIT if the channel is in order, and the end.
    """
    opening = failure.opening()
    *before, last = failure.events
    for event in before:
        assert not any(isinstance(step, Failed | Ready) for step in happen(opening, event))
    steps = happen(opening, last)
    *goodbye, failed = steps
    assert isinstance(failed, Failed)
    assert failed.reply == failure.reply
    assert goodbye == ([QUIT] if failure.quits else [])
    assert failure.reason in failed.log_reason
    assert opening.received(GREETING) == []


@each_bad
def test_a_failure_cut_anywhere_is_the_same_failure(failure: Failure) -> None:
    whole = failure.opening()
    expected = [type(step) for event in failure.events for step in happen(whole, event)]
    opening = failure.opening()
    steps: list[Step] = []
    for event in failure.events:
        parts: list[Event] = [bytes((octet,)) for octet in event] if isinstance(event, bytes) else [event]
        for part in parts:
            steps += happen(opening, part)
    if b"220 2.0.0 Ready to start TLS\r\n250 mx.example\r\n" in failure.events:
        expected.insert(-1, StartTls)  # the plaintext comes after we started, and ends it all the same
    assert [type(step) for step in steps] == expected


@pytest.mark.parametrize(
    "greeting", [b"554 5.7.1 go away\r\n", b"421 4.3.2 busy\r\n", b"554-go\r\n554 away\r\n"], ids=repr
)
def test_a_backend_that_refuses_us_in_its_greeting_is_quoted(greeting: bytes) -> None:
    opening = Opening(plan())
    opening.connected()
    failed = opening.received(greeting)[-1]
    assert isinstance(failed, Failed)
    assert failed.refusal == BackendReply(int(greeting[:3]), greeting)


@pytest.mark.parametrize("said", [b"250 hm\r\n", b"354 go\r\n"], ids=repr)
def test_a_greeting_that_is_no_refusal_is_not_quoted(said: bytes) -> None:
    opening = Opening(plan())
    opening.connected()
    failed = opening.received(said)[-1]
    assert isinstance(failed, Failed)
    assert failed.refusal is None


JUDGED = [
    (None, (CONNECTED, LOST), True),
    (None, (CONNECTED, b"554 go away\r\n"), True),
    (None, (CONNECTED, b"250 hm\r\n"), False),
    (None, (CONNECTED, GREETING[:9], LOST), True),
    (tell, (CONNECTED, LOST), False),
    (tell, (CONNECTED, b"554 go away\r\n"), False),
    (tell, (CONNECTED, GREETING, LOST), False),
    (tell, (CONNECTED, GREETING, b"550 no\r\n"), False),
    (tell, (CONNECTED, GREETING, OFFERS, LOST), True),
    (tell, (CONNECTED, GREETING, OFFERS, b"554 5.7.1 not you\r\n"), True),
    (tell, (CONNECTED, GREETING, OFFERS, b"501 5.5.4 bad ADDR\r\n"), True),
    (tell, (CONNECTED, GREETING, OFFERS, b"550 5.7.0 not yours to say\r\n"), False),
    (tell, (CONNECTED, GREETING, OFFERS, b"250 ok\r\n"), False),
]


@pytest.mark.parametrize(("xclient", "events", "judged"), JUDGED, ids=repr)
def test_what_may_be_about_the_client_is_told_from_what_is_not(
    xclient: Xclient | None, events: tuple[Event, ...], *, judged: bool
) -> None:
    """
    A backend may have something against one client, once it knows who that is; that is no reason to keep others away.
    """
    opening = Opening(plan(), PROXY if xclient is None else b"", xclient)
    *_, failed = [step for event in events for step in happen(opening, event)]
    assert isinstance(failed, Failed)
    assert failed.of_client is judged


@pytest.mark.parametrize("xclient", [None, tell])
def test_time_that_is_over_is_nobodys_fault_but_the_backends(xclient: Xclient | None) -> None:
    opening = Opening(plan(), xclient=xclient)
    opening.connected()
    [failed] = opening.overdue()
    assert failed == Failed(BACKEND_UNREACHABLE, "no answer in time, while the greeting was awaited")
    assert opening.overdue() == []


def test_a_long_refusal_stays_one_short_line_in_the_journal() -> None:
    opening = Opening(plan())
    opening.connected()
    failed = opening.received(b"554-\x1b[2J\xff\r\n" + b"554-x\r\n" * 100 + b"554 x\r\n")[-1]
    assert isinstance(failed, Failed)
    assert failed.log_reason.startswith("greeted with 554-\\x1b[2J\\xff / 554-x / ")
    assert failed.log_reason.isprintable()
    assert len(failed.log_reason) < 250


class Later:
    """
    An opening whose client is not known when the backend has offered XCLIENT.
    """

    def __init__(self) -> None:
        self.commands: list[bytes] | None = None
        self.opening = Opening(plan(), xclient=lambda _: self.commands)
        for event in (CONNECTED, GREETING):
            happen(self.opening, event)
        assert happen(self.opening, OFFERS) == []


def test_the_backend_waits_for_who_the_client_is() -> None:
    later = Later()
    later.commands = [b"XCLIENT A=1\r\n", b"XCLIENT B=2\r\n"]
    assert later.opening.identified() == [Send(b"XCLIENT A=1\r\n")]
    assert later.opening.identified() == []
    assert later.opening.received(b"220 one\r\n") == [Send(b"XCLIENT B=2\r\n")]
    assert later.opening.received(TOLD_GREETING) == [ready(TOLD_GREETING)]
    assert later.opening.identified() == []


def test_a_backend_that_cannot_be_told_is_one_also_later() -> None:
    later = Later()
    later.commands = []
    [quit_, failed] = later.opening.identified()
    assert quit_ == QUIT
    assert isinstance(failed, Failed)
    assert "XCLIENT without ADDR" in failed.log_reason


@pytest.mark.parametrize("event", [TOLD_GREETING, b"421 4.4.2 timeout\r\n", Lost()], ids=repr)
def test_nothing_is_told_when_the_backend_is_gone_by_then(event: Event) -> None:
    later = Later()
    later.commands = [b"XCLIENT A=1\r\n"]
    [failed] = happen(later.opening, event)
    assert isinstance(failed, Failed)
    assert failed.reply == BACKEND_UNREACHABLE
    assert failed.refusal is None
    assert failed.of_client
    assert "while the client's host name was awaited" in failed.log_reason
    assert later.opening.identified() == []


def test_who_the_client_is_may_be_known_before_anybody_asks() -> None:
    opening = Opening(plan(), xclient=tell)
    assert opening.identified() == []
    for event in (CONNECTED, GREETING):
        happen(opening, event)
        assert opening.identified() == []
    assert happen(opening, OFFERS) == [XCLIENT]


events = st.one_of(
    st.sampled_from(
        [CONNECTED, SECURE, Handshake("fault"), Lost(), IDENTIFIED, GREETING, OFFERS, GO_AHEAD, TOLD_GREETING]
    ),
    st.binary(max_size=60),
    st.builds(lambda code, text: b"%d %s\r\n" % (code, text), st.integers(200, 599), st.binary(max_size=9)),
)


@given(
    st.sampled_from(BackendTls),
    st.sampled_from([b"", PROXY]),
    st.sampled_from([None, tell]),
    st.sampled_from(["at once", "late"]),
    st.lists(events, max_size=12),
)
def test_no_backend_gets_more_out_of_us(
    tls: BackendTls, proxy_header: bytes, xclient: Xclient | None, when: str, happening: list[Event]
) -> None:
    """
    Whatever happens in whatever order: nothing raises, it ends once, and it is not ready without TLS and XCLIENT where
    they are demanded.
    """
    known = when == "at once"
    opening = Opening(plan(tls), proxy_header, xclient and (lambda offered: tell(offered) if known else None))
    steps: list[Step] = []
    secure = False
    for event in [CONNECTED, *(event for event in happening if event is not CONNECTED)]:
        known = known or event is IDENTIFIED
        new = happen(opening, event)
        secure = secure or (isinstance(event, Handshake) and event.fault is None and StartTls() in steps)
        if any(isinstance(step, Ready) for step in new):
            assert secure or tls is BackendTls.NONE
            assert xclient is None or XCLIENT in steps
        steps += new
    assert len([step for step in steps if isinstance(step, Failed | Ready)]) <= 1
    assert not steps or not any(isinstance(step, Failed | Ready) for step in steps[:-1])
    assert [step for step in steps if isinstance(step, Send)][:1] == (
        [Send(proxy_header)] if proxy_header else []
    ) or not proxy_header
