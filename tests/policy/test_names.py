"""
One spelling for each name, and patterns that match it.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsgate.policy.names import DOMAINLESS, NOTHING, NamePatterns, canonical, is_name, key_of

LABELS = st.text("abcxyz019-_", min_size=1, max_size=8)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)


@pytest.mark.parametrize(
    ("spellings", "spelling"),
    [
        (["example.org", "EXAMPLE.Org", "example.org.", "example.org.."], "example.org"),
        (
            ["bücher.example", "BÜCHER.example", "bu\u0308cher.example", "bücher。example.", "XN--BCHER-KVA.example"],
            "xn--bcher-kva.example",
        ),
        (["straße.example"], "xn--strae-oqa.example"),
        (["a_b.bücher.example"], "a_b.xn--bcher-kva.example"),
        (["[192.0.2.1]", "[192.0.2.1"], "[192.0.2.1]"),
        (["[IPv6:::ffff:192.0.2.1]", "[IPv6:::ffff:c000:201]", "[192.0.2.1]"], "[192.0.2.1]"),
        (["[IPv6:2001:db8::1]", "[ipv6:2001:DB8:0::1]", "[2001:db8::1]"], "[2001:db8::1]"),
        (["[Tag:thing]"], "[tag:thing]"),
        ([".", ""], ""),
        (["-ü.example"], "-ü.example"),
        (["a\udc80b.example"], "a\udc80b.example"),
        (["\ufffd.Example"], "\ufffd.example"),
        (["ü" * 256], "ü" * 256),
        (["ü" * 70], "ü" * 70),
    ],
)
def test_every_spelling_of_a_name_becomes_one(spellings: list[str], spelling: str) -> None:
    assert {canonical(name) for name in spellings} == {spelling}


@settings(derandomize=True, deadline=None)
@given(st.one_of(st.text(), st.text(".[]:üÄ\u3002xn-1\u200d*"), NAMES))
def test_any_text_has_one_spelling(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)
    assert not canonical(text).endswith(".")


@pytest.mark.parametrize(
    ("pattern", "matched", "not_matched"),
    [
        (
            "clinic.example",
            ["clinic.example", "CLINIC.example."],
            ["a.clinic.example", "xclinic.example", "example", ""],
        ),
        (
            "*.clinic.example",
            ["a.clinic.example", "a.b.clinic.example", "A.CLINIC.EXAMPLE"],
            ["clinic.example", "xclinic.example", "clinic.example.org", ""],
        ),
        (".clinic.example", ["a.clinic.example", "a.b.clinic.example"], ["clinic.example", "xclinic.example"]),
        ("*.Bücher.example", ["a.xn--bcher-kva.example", "a.bücher.example"], ["bücher.example"]),
        ("xn--bcher-kva.example", ["bücher.example"], ["bucher.example"]),
        ("[192.0.2.1]", ["[192.0.2.1]"], ["192.0.2.1", "[192.0.2.11]", "a.[192.0.2.1]"]),
        ("[IPv6:2001:db8::1]", ["[IPv6:2001:0db8::1]"], ["[IPv6:2001:db8::2]"]),
        ("printer", ["printer", "PRINTER"], ["printer.example"]),
        ("*", ["clinic.example", "[192.0.2.1]", ".", "no name at all"], [""]),
        ("<>", [""], [".", "a.example", "<>"]),
    ],
)
def test_a_pattern_matches(pattern: str, matched: list[str], not_matched: list[str]) -> None:
    patterns = NamePatterns.of([pattern])
    assert [name for name in matched + not_matched if patterns.match(key_of(name))] == matched


def test_of_several_patterns_one_is_enough() -> None:
    patterns = NamePatterns.of(["a.example", "*.b.example", "*.c.example", "<>"])
    names = ["", "a.example", "x.b.example", "x.y.c.example", "b.example", "x.a.example", "d"]
    assert [patterns.match(key_of(name)) for name in names] == [True, True, True, True, False, False, False]


def test_no_pattern_matches_nothing() -> None:
    patterns = NamePatterns.of([])
    assert not any(map(patterns.match, [NOTHING, DOMAINLESS, "a.example"]))


BAD_PATTERNS = ["", " ", ".", "*.", "**", "*a.example", "a.*.example", "joe@a.example", "a..example", "[192.0.2.1"]
BAD_PATTERNS += [
    "[a.example]",
    "*.[192.0.2.1]",
    "a b",
    "192.0.2.0/24",
    "<a>",
    "\u2028.example",
    "[]",
    "[IPv6:]",
    "a.example,b",
]


@pytest.mark.parametrize("pattern", set(BAD_PATTERNS) - {"[192.0.2.1"})
def test_what_is_no_pattern_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a domain name") as caught:
        NamePatterns.of(["good.example", pattern, "-*-"])
    assert ascii(pattern) in str(caught.value)
    assert "'-*-'" in str(caught.value)
    assert "good" not in str(caught.value)


@settings(derandomize=True, deadline=None)
@given(NAMES, NAMES)
def test_exact_patterns_match_equal_names_and_parents_match_what_ends_in_them(pattern: str, name: str) -> None:
    assert NamePatterns.of([pattern]).match(key_of(name)) == (pattern == name)
    assert NamePatterns.of([f"*.{pattern}"]).match(key_of(name)) == name.endswith(f".{pattern}")
    assert NamePatterns.of([f".{pattern}"]).match(key_of(f"{name}.{pattern}"))
    assert is_name(name)


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_no_text_of_a_clients_breaks_the_matching(text: str) -> None:
    patterns = NamePatterns.of(["a.example", "*.b.example", "<>"])
    assert patterns.match(key_of(text)) in (True, False)
    assert (key_of(text) == NOTHING) == (text == "")
