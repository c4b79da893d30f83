"""
What the configuration lets through, the parts it is for can use; where both name a default, it is the same one.
"""

import contextlib
from typing import get_args

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.corpus import BASE, completed
from tlsgate.config import BUILT_IN_LEVELS, Level, Limits, Tls, parse, values
from tlsgate.config.faults import Fault
from tlsgate.config.tree import TlsVersion
from tlsgate.policy.certificate import KnownClients
from tlsgate.policy.level import BUILT_IN, HELP_OCTETS_MAX, NAME_OCTETS_MAX, VERSIONS, ClientCertificate
from tlsgate.policy.level import Level as PolicyLevel
from tlsgate.policy.level import Tls as PolicyTls
from tlsgate.policy.mailbox import ExemptRecipients
from tlsgate.policy.names import NamePatterns
from tlsgate.session.bounds import Bounds
from tlsgate.session.opening import BackendTls
from tlsgate.tls.context import TlsTerms

SHARED = ("min_version", "min_bits", "aead", "forward_secrecy", "authenticated", "groups", "client_names")


def as_policy(level: Level) -> PolicyLevel:
    """
    Return *level* as the law has it.
    """
    return PolicyLevel(
        name=level.name,
        tls=PolicyTls(level.tls),
        client_certificate=ClientCertificate(level.client_certificate),
        client_fingerprints=level.client_fingerprints,
        help=level.help or "",
        **{key: getattr(level, key) for key in SHARED},
    )


def test_the_built_in_levels_are_those_of_the_law() -> None:
    assert list(BUILT_IN_LEVELS) == list(BUILT_IN)
    for name, level in BUILT_IN_LEVELS.items():
        assert as_policy(level) == BUILT_IN[name]


@pytest.mark.parametrize(
    "keys",
    [
        'tls = "none"',
        'tls = "offered"\nmin_version = "TLSv1.3"',
        'groups = ["X25519MLKEM768", "x25519", "P-256"]',
        f'help = "https://example.org/{"a" * (HELP_OCTETS_MAX - 20)}"',
        f'client_certificate = "verified"\nclient_fingerprints = ["{":".join(["AB"] * 32)}"]',
        'client_certificate = "verified"\nclient_names = ["mail.partner.example", "bücher.example", "192.0.2.1", "::1"]',
        'client_certificate = "verified"\nclient_names = ["localhost", "mail_1.partner.example"]',
    ],
)
def test_a_level_that_is_let_through_is_one_to_the_law(keys: str) -> None:
    text = f'[[level]]\nname = "{"n" * NAME_OCTETS_MAX}"\n{keys}\n'
    tls = '[tls]\ncertificates = [{ chain = "mx.pem", key = "mx.key" }]\nclient_ca = "ca.pem"\n'
    (level,) = parse(completed(text + tls), BASE).levels
    as_policy(level)


def test_patterns_that_are_let_through_are_patterns_to_the_law() -> None:
    text = """
        [[listener]]
        exempt_recipients = ["postmaster", "Postmaster", "tlsrpt@example.org", "tlsrpt@bücher.example"]
        [[rule]]
        helo = ["*", "printer", "192.168.1.5", "[192.168.1.5]", "[IPv6:2001:db8::1]", "_x.example"]
        sni = ["*", "<>", "mx.example.org", "*.tenant.example", ".tenant.example"]
        senders = ["*", "<>", "partner.example", "*.bücher.example", "EXAMPLE.org"]
        recipients = ["*", "clinic.example", "[192.0.2.1]"]
        level = "strong"
    """
    config = parse(completed(text), BASE)
    (rule,) = config.rules
    for patterns in (rule.helo, rule.sni, rule.senders, rule.recipients):
        assert NamePatterns.of(patterns)
    assert "tlsrpt@xn--bcher-kva.example" in ExemptRecipients.of(config.listeners[0].exempt_recipients)


PIECES = [
    "*",
    ".",
    "a",
    "-",
    "_",
    "1",
    "example",
    "xn--",
    "bücher",
    "ß",
    "[",
    "]",
    "192.0.2.1",
    "IPv6:",
    "::1",
    "<>",
    " ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_is_let_through_as_a_pattern_is_one(text: str) -> None:
    for check in (values.helo_pattern, values.sni_pattern, values.sender_pattern, values.domain_pattern):
        with contextlib.suppress(Fault):
            NamePatterns.of([check(text)])


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_is_let_through_as_a_name_is_one(text: str) -> None:
    with contextlib.suppress(Fault):
        KnownClients.of([values.certificate_name(text)], ())
    with contextlib.suppress(Fault):
        ExemptRecipients.of([values.exempt_recipient(f"tlsrpt@{text}")])


def test_the_words_are_the_same() -> None:
    assert get_args(TlsVersion) == VERSIONS
    kinds = attrs.fields_dict(Level)
    assert get_args(kinds["tls"].type) == tuple(each.value for each in PolicyTls)
    assert get_args(kinds["client_certificate"].type) == tuple(each.value for each in ClientCertificate)
    backend = attrs.fields_dict(type(parse(completed(""), BASE).backend))
    assert get_args(backend["tls"].type) == tuple(each.value for each in BackendTls)


def test_the_bounds_of_a_session_have_one_default() -> None:
    bounds, limits = attrs.asdict(Bounds()), attrs.asdict(Limits())
    shared = bounds.keys() & limits.keys()
    assert len(shared) >= 6
    assert {key: limits[key] for key in shared} == {key: bounds[key] for key in shared}


def test_the_terms_of_the_handshake_have_one_default() -> None:
    terms, tls = TlsTerms(certificates=()), Tls()
    for key in ("floor", "legacy", "client_ca", "client_crls", "alpn", "unknown_sni", "resumption"):
        assert getattr(terms, key) == getattr(tls, key)
