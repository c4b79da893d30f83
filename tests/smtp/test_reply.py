"""
Tests of `tlsgate.smtp.reply`.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.smtp import reply as catalogue
from tlsgate.smtp.reply import LINE_OCTETS_MAX, BackendReply, Reply, printable

OWN = {name: value for name, value in vars(catalogue).items() if isinstance(value, Reply)}

# The codes in the IANA registry that the gate has a use for (5248-01).
REGISTERED = {"2.0.0", "4.3.2", "4.4.1", "4.4.2", "4.7.0", "4.7.5", "5.5.0", "5.5.1", "5.5.2", "5.5.4", "5.5.6"}
REGISTERED |= {"4.6.0", "5.6.0", "5.7.0", "5.7.11"}


@pytest.mark.parametrize("name", sorted(OWN))
class TestCatalogue:
    def test_is_one_line_within_the_limit(self, name: str) -> None:
        """5321-19: a reply line of ours has at most 512 octets, and it is printable ASCII."""
        line = OWN[name].encode()
        assert re.fullmatch(rb"[245][0-9][0-9] [ -~]+\r\n", line)
        assert len(line) <= LINE_OCTETS_MAX
        assert not line.endswith(b"...\r\n")

    def test_carries_an_enhanced_code_of_its_class(self, name: str) -> None:
        """2034-01, 2034-02, 5248-01: every reply has a registered enhanced code whose class is that of the reply code."""
        own = OWN[name]
        assert own.enhanced in REGISTERED
        assert own.enhanced[0] == str(own.code)[0]
        assert own.encode() == f"{own.code} {own.enhanced} {own.text}\r\n".encode()

    def test_has_none_in_answer_to_ehlo(self, name: str) -> None:
        """2034-01: a reply to EHLO or HELO carries no enhanced code."""
        own = OWN[name]
        assert own.encode(to_ehlo=True) == f"{own.code} {own.text}\r\n".encode()


def test_the_words_of_rfc_3207() -> None:
    """3207-05, 3207-06, 3207-12: the refusals say what the RFC says."""
    assert catalogue.MUST_ISSUE_STARTTLS.encode() == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
    assert catalogue.LACK_OF_SECURITY.encode() == b"554 5.7.0 Command refused due to lack of security\r\n"
    assert catalogue.TLS_UNAVAILABLE.encode() == b"454 4.7.0 TLS not available due to temporary reason\r\n"


def test_without_an_enhanced_code() -> None:
    """A greeting is a reply that has no enhanced code (2034-01)."""
    assert Reply(220, "", "mx.example.org ESMTP").encode() == b"220 mx.example.org ESMTP\r\n"


def test_saying_changes_the_words_alone() -> None:
    """Other words, same codes, and the catalogue's own value stays as it was."""
    said = catalogue.LACK_OF_SECURITY.saying("TLSv1 is too old")
    assert said == Reply(554, "5.7.0", "TLSv1 is too old")
    assert catalogue.LACK_OF_SECURITY.text == "Command refused due to lack of security"


class TestPrintable:
    def test_plain_text_stays_as_it_is(self) -> None:
        """Printable ASCII within the limit is not touched."""
        assert printable("a ~ b", 5) == "a ~ b"

    def test_a_longer_text_ends_in_dots(self) -> None:
        """What had to be cut says so."""
        assert printable("\x00" * 10, 12) == "\\x00\\x00\\..."

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\r\nb", "a\\r\\nb"),
            ("\x00\x7f", "\\x00\\x7f"),
            ("gr\u00fcn", "gr\\xfcn"),
            ("\u2028", "\\u2028"),
            ("\U0001f600", "\\U0001f600"),
            ("\ud800", "\\ud800"),
        ],
    )
    def test_what_is_not_printable_is_escaped(self, text: str, shown: str) -> None:
        """No line end, control character or other script gets into a reply."""
        assert printable(text, 100) == shown

    @given(st.text(alphabet=st.characters()), st.integers(min_value=3, max_value=600))
    def test_is_always_one_harmless_line(self, text: str, characters_max: int) -> None:
        """Whatever the text, it stays within the limit and within printable ASCII."""
        shown = printable(text, characters_max)
        assert len(shown) <= characters_max
        assert re.fullmatch(r"[ -~]*", shown)

    @given(st.text(alphabet=st.characters(), max_size=2000), st.booleans())
    def test_any_text_makes_one_reply_line(self, text: str, to_ehlo: bool) -> None:  # noqa: FBT001 - drawn
        """Whatever a refusal says, it is one line of at most 512 octets with its code in front."""
        line = catalogue.LACK_OF_SECURITY.saying(text).encode(to_ehlo=to_ehlo)
        assert re.fullmatch(rb"554 [ -~]*\r\n", line)
        assert len(line) <= LINE_OCTETS_MAX


class TestBackendReply:
    @pytest.mark.parametrize(
        ("code", "positive"),
        [(199, False), (200, True), (250, True), (299, True), (300, False), (354, False), (550, False)],
    )
    def test_positive_is_2yz(self, code: int, positive: bool) -> None:  # noqa: FBT001 - the table's
        """Only a positive completion reply is positive; 354 is not."""
        assert BackendReply(code, b"%d x\r\n" % code).positive is positive

    def test_lines_are_the_texts(self) -> None:
        """The texts of the lines, also of lines that have none."""
        reply = BackendReply(250, b"250-mx.example.org at your service\r\n250-\r\n250-SIZE 10\r\n250\r\n")
        assert reply.lines() == [b"mx.example.org at your service", b"", b"SIZE 10", b""]
