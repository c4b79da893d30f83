"""
Nothing but short, printable ASCII gets into a reply.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsgate.policy.wording import clipped, listed, printable


@pytest.mark.parametrize(
    ("parts", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_enumerations_read_well(parts: list[str], words: str) -> None:
    assert listed(parts) == words


@pytest.mark.parametrize(("text", "fitted"), [("12345", "12345"), ("123456", "12..."), ("", "")])
def test_only_what_is_too_long_is_cut(text: str, fitted: str) -> None:
    assert clipped(text, 5) == fitted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mail.example.org", "mail.example.org"),
        ("a\r\n250 ok", "a\\r\\n250 ok"),
        ("\x00\x1b\x7f", "\\x00\\x1b\\x7f"),
        ("bücher", "b\\xfccher"),
        ("\N{SNOWMAN}\U0001f4e7", "\\u2603\\U0001f4e7"),
        ("\udc80", "\\udc80"),
        ("\\r", "\\\\r"),
    ],
)
def test_what_is_not_printable_ascii_is_escaped_and_stays_distinguishable(text: str, shown: str) -> None:
    assert printable(text, 60) == shown


@settings(derandomize=True, deadline=None)
@given(st.text(), st.integers(min_value=3, max_value=40))
def test_any_text_becomes_printable_ascii_within_its_bound(text: str, octets_max: int) -> None:
    shown = printable(text, octets_max)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= octets_max
    if text.isascii() and text.isprintable() and "\\" not in text and len(text) <= octets_max:
        assert shown == text
