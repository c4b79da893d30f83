"""
No spelling of a mailbox hides its domain, and only those who are exempt are.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsgate.policy.mailbox import ExemptRecipients, Mailbox
from tlsgate.policy.names import DOMAINLESS, NOTHING


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("joe@example.org", "joe", "example.org"),
        ("Joe@EXAMPLE.org.", "Joe", "example.org"),
        ("jörg@bücher.example", "jörg", "xn--bcher-kva.example"),
        ("joe@[192.0.2.1]", "joe", "[192.0.2.1]"),
        ("joe@[IPv6:2001:db8:0::1]", "joe", "[2001:db8::1]"),
        ("joe", "joe", None),
        ("", "", None),
        ("joe@", "joe", ""),
        ("@example.org", "", "example.org"),
        # An "@" inside quotes does not separate; the last one outside does.
        ('"joe@clinic.example"@example.org', "joe@clinic.example", "example.org"),
        ('"joe\\"@clinic.example"@example.org', 'joe"@clinic.example', "example.org"),
        ('"joe\\\\"@example.org', "joe\\", "example.org"),
        ('"a"@"b@clinic.example"@example.org', '"a"@"b@clinic.example"', "example.org"),
        ("joe@clinic.example@example.org", "joe@clinic.example", "example.org"),
        ('"joe@clinic.example"', "joe@clinic.example", None),
        ('""@example.org', "", "example.org"),
        # Quotes never closed hide nothing.
        ('"joe@clinic.example', '"joe', "clinic.example"),
        ('joe\\"@clinic.example', 'joe\\"', "clinic.example"),
        ('"joe\\"@clinic.example', '"joe\\"', "clinic.example"),
        # A backslash is an escape inside quotes only.
        ("joe\\@clinic.example", "joe\\", "clinic.example"),
        ('joe\\"x@example.org"@clinic.example', 'joe\\"x@example.org"', "clinic.example"),
        ('joe\\"x@example.org"', 'joe\\"x@example.org"', None),
        # Source routes are dropped, and nothing but source routes.
        ("@relay.example:joe@example.org", "joe", "example.org"),
        ("@a.example,@b.example:joe@example.org", "joe", "example.org"),
        ("@[IPv6:2001:db8::1],@[192.0.2.1]:joe@[IPv6:::1]", "joe", "[::1]"),
        ('@relay.example:"joe@clinic.example"@example.org', "joe@clinic.example", "example.org"),
        ("@a.example:joe", "joe", None),
        ("@a.example:", "", None),
        ("@[::1:joe@clinic.example", "@[::1:joe", "clinic.example"),
        ("joe@[IPv6:::1]:@clinic.example", "joe@[IPv6:::1]:", "clinic.example"),
        ("joe@a.example:b@clinic.example", "joe@a.example:b", "clinic.example"),
        # 5321-18: case matters in local parts, but not in this one.
        ("PostMaster@Example.org", "postmaster", "example.org"),
        ('"POSTMASTER"@example.org', "postmaster", "example.org"),
        ("Postmaster", "postmaster", None),
    ],
)
def test_a_mailbox_is_taken_apart(text: str, local: str, domain: str | None) -> None:
    assert Mailbox.parse(text) == Mailbox(local, domain)


@pytest.mark.parametrize(
    ("text", "key"),
    [("", NOTHING), ("joe", DOMAINLESS), ("joe@", DOMAINLESS), ("joe@.", DOMAINLESS), ("joe@A.example", "a.example")],
)
def test_only_the_null_sender_is_nothing(text: str, key: str) -> None:
    assert Mailbox.parse(text).key == key


@pytest.mark.parametrize(
    ("text", "unambiguous"),
    [
        ("joe@example.org", True),
        ("joe@BÜCHER.example.", True),
        ("joe@[192.0.2.1]", True),
        ("joe@[IPv6:::1]", True),
        ("joe", False),
        ("", False),
        ("joe@", False),
        ("joe@.example.org", False),
        ("joe@example..org", False),
        ("joe@[192.0.2.010]", False),
        ("joe@[3221225985]", False),
        ("joe@[tag:thing]", False),
        ("joe@exam\u200dple.org", False),
        ("joe@" + "\xad" * 256 + "example.org", False),
    ],
)
def test_a_domain_that_servers_may_read_differently_is_told(text: str, unambiguous: bool) -> None:  # noqa: FBT001
    assert Mailbox.parse(text).unambiguous is unambiguous


@settings(derandomize=True, deadline=None)
@given(st.text('a"\\@:[],. ', max_size=30))
def test_an_unquoted_domain_at_the_end_is_always_found(text: str) -> None:
    """
    Whatever stands before it, as long as it does not open quotes that end behind it.
    """
    domain = Mailbox.parse(f"{text}@clinic.example").domain
    assert domain == "clinic.example"


LONG = 20_000


@pytest.mark.parametrize("text", ['"' + '\\"' * LONG, '"' * LONG + "@", "@" * LONG, "@[" * LONG, "@a," * LONG])
def test_a_long_mailbox_is_taken_apart_in_one_pass(text: str) -> None:
    """
    A quadratic scan of this would not end within the test run's patience.
    """
    assert isinstance(Mailbox.parse(text), Mailbox)


EXEMPT = ExemptRecipients.of(["postmaster", "tlsrpt@example.org", "Reports@bücher.example"])


@pytest.mark.parametrize(
    "recipient",
    [
        "postmaster",
        "Postmaster",
        '"postmaster"',
        "POSTMASTER@example.org",
        "postmaster@anything.example",
        "tlsrpt@example.org",
        "tlsrpt@EXAMPLE.ORG",
        '"tlsrpt"@example.org',
        '"tls\\rpt"@example.org',
        "Reports@xn--bcher-kva.example",
        "@relay.example:tlsrpt@example.org",
    ],
)
def test_exempt_recipients_are_exempt_in_every_spelling(recipient: str) -> None:
    """
    5321-18, 8460-01.
    """
    assert recipient in EXEMPT


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "joe@example.org",
        "tlsrpt",
        "tlsrpt@example.com",
        "TLSRPT@example.org",
        "reports@bücher.example",
        '"postmaster@example.org"@clinic.example',
        '"tlsrpt@example.org"@clinic.example',
        "tlsrpt@example.org@clinic.example",
        "postmaster@example.org:joe@clinic.example",
        "@postmaster:joe@clinic.example",
        "postmaster%clinic.example@example.org",
    ],
)
def test_nobody_else_is_exempt(recipient: str) -> None:
    assert recipient not in EXEMPT


def test_the_postmaster_of_one_domain_is_not_that_of_another() -> None:
    exempt = ExemptRecipients.of(["Postmaster@example.org"])
    assert "postmaster@EXAMPLE.org" in exempt
    assert "postmaster@clinic.example" not in exempt
    assert "postmaster" not in exempt


def test_without_recipients_there_is_no_exemption() -> None:
    assert not ExemptRecipients.of([])
    assert "postmaster" not in ExemptRecipients.of([])
    assert EXEMPT


@pytest.mark.parametrize("recipient", ["", "joe", "@example.org", "joe@", "joe@a b", "joe@*.example.org"])
def test_what_is_no_mailbox_cannot_be_exempt(recipient: str) -> None:
    with pytest.raises(ValueError, match=r"neither local-part@domain nor postmaster") as caught:
        ExemptRecipients.of(["postmaster", recipient])
    assert str(caught.value).startswith(f"{recipient!a}: ")
