"""
Tests of `tlsgate.smtp.extensions`: what of a backend's EHLO reply a client may see.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.ehlo_replies import RECORDED, Recorded
from tlsgate.smtp.extensions import NEVER, RELAYED, Offer, ehlo_reply, filtered, mechanism_usable
from tlsgate.smtp.framing import ReplyReader
from tlsgate.smtp.reply import BackendReply

BEFORE_TLS = Offer(starttls=True, auth=False)
INSIDE_TLS = Offer(starttls=False, auth=True)


def reply(*texts: bytes) -> BackendReply:
    """
    Return the EHLO reply with these *texts*, read as from a backend.
    """
    (read,) = ReplyReader(10_000).feed(ehlo_reply(texts[0], list(texts[1:])))
    return read


def seen(raw: bytes) -> list[bytes]:
    """
    Return the texts of a reply that a client reads, which must be one reply and no more.
    """
    (read,) = ReplyReader(10_000).feed(raw)
    assert read.code == 250
    assert read.raw == raw
    return read.lines()


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.server)
class TestRecorded:
    def test_inside_tls(self, recorded: Recorded) -> None:
        """3207-20, 8689-01: STARTTLS, REQUIRETLS and whatever is not known are hidden, and the rest is the backend's."""
        offered = filtered(reply(*recorded.texts), INSIDE_TLS)
        assert seen(offered.raw) == [recorded.texts[0], *recorded.shown]
        assert offered.keywords == {text.split(b" ")[0].upper() for text in recorded.shown}

    def test_before_tls(self, recorded: Recorded) -> None:
        """3207-17, 4954-03: STARTTLS is offered once, without parameters (3207-01), and AUTH not at all."""
        offered = filtered(reply(*recorded.texts), BEFORE_TLS)
        shown = [text for text in recorded.shown if not text.upper().startswith(b"AUTH")]
        assert seen(offered.raw) == [recorded.texts[0], *shown, b"STARTTLS"]
        assert b"STARTTLS" not in offered.keywords

    def test_what_is_never_relayed_cannot_be_listed(self, recorded: Recorded) -> None:
        """Even an operator who lists everything gets no STARTTLS, XCLIENT or the like through the gate."""
        listed = frozenset(text.split(b" ")[0].upper() for text in recorded.texts[1:])
        names = {
            text.split(b" ")[0].upper()
            for text in seen(filtered(reply(*recorded.texts), Offer(keywords=listed)).raw)[1:]
        }
        assert not names & NEVER
        assert b"REQUIRETLS" not in names


def test_there_are_enough_of_them() -> None:
    """The table has many different servers in it, each once."""
    assert len({recorded.server for recorded in RECORDED}) == len(RECORDED) >= 20


def test_a_listed_keyword_is_shown() -> None:
    """An operator may let a keyword through whose framing we do not know."""
    backend = reply(b"x", b"XVERP", b"PRDR")
    assert seen(filtered(backend, Offer(keywords=frozenset({b"PRDR"}))).raw) == [b"x", b"PRDR"]


def test_requiretls_over_a_verified_leg() -> None:
    """8689-01: REQUIRETLS is shown only where its promise can be kept, listed or not."""
    backend = reply(b"x", b"REQUIRETLS")
    listed = frozenset({b"REQUIRETLS"})
    assert seen(filtered(backend, Offer(requiretls=True)).raw) == [b"x", b"REQUIRETLS"]
    assert seen(filtered(backend, Offer(keywords=listed)).raw) == [b"x"]


def test_the_single_line_reply() -> None:
    """A reply of one line has a blank behind its code; of several, only the last has."""
    assert ehlo_reply(b"mx", []) == b"250 mx\r\n"
    assert ehlo_reply(b"mx", [b"SIZE", b"HELP"]) == b"250-mx\r\n250-SIZE\r\n250 HELP\r\n"


@pytest.mark.parametrize(
    ("mechanism", "usable"),
    [
        (b"PLAIN", True),
        (b"scram-sha-256", True),
        (b"SCRAM-SHA-256-PLUS", False),
        (b"scram-sha-1-plus", False),
        (b"External", False),
        (b"EXTERNALISED", True),
        (b"PLUS", True),
    ],
)
def test_mechanisms(mechanism: bytes, usable: bool) -> None:  # noqa: FBT001 - the table's
    """Channel bindings and EXTERNAL speak of a TLS session that the backend does not see."""
    assert mechanism_usable(mechanism) is usable


def test_the_lists_do_not_overlap() -> None:
    """What is never relayed is not also relayed; both are in upper case, as they are compared."""
    assert not NEVER & RELAYED
    assert all(name == name.upper() for name in NEVER | RELAYED)


KEYWORDS = st.sampled_from(sorted(NEVER | RELAYED)) | st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
LINES = st.tuples(
    KEYWORDS | KEYWORDS.map(bytes.lower),
    st.sampled_from([b"", b" ", b"=", b" PLAIN", b"=PLAIN", b"\t", b" EXTERNAL", b"\xff"]),
).map(b"".join)


@given(st.lists(LINES, max_size=8), st.builds(Offer, st.booleans(), st.booleans(), st.booleans()))
def test_any_reply(lines: list[bytes], offer: Offer) -> None:
    """Law 6: whatever a backend offers, the client reads one well-formed reply, without injected keywords."""
    backend = reply(b"mx.example.org", *lines)
    shown = seen(filtered(backend, offer).raw)
    assert shown[0] == b"mx.example.org"
    names = [text.split(b" ")[0].upper() for text in shown[1:]]
    assert names.count(b"STARTTLS") == offer.starttls
    assert not set(names) & (NEVER - {b"STARTTLS"})
    assert offer.auth or not any(name.startswith(b"AUTH") for name in names)
    assert not any(b"EXTERNAL" in text for text in shown if text.upper().startswith(b"AUTH"))
