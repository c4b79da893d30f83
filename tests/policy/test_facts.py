"""
What a handshake's names mean; traits are forward secrecy, AEAD, anonymous.
"""

import ssl

import pytest

from tests.policy import samples
from tlsgate.policy.facts import TlsFacts


@pytest.mark.parametrize(
    ("facts", "traits"),
    [
        (samples.TLS13, (True, True, False)),
        (samples.TLS13_HYBRID, (True, True, False)),
        (samples.TLS13_INTEGRITY_ONLY, (True, False, False)),
        (samples.TLS12, (True, True, False)),
        (samples.TLS12_CHACHA, (True, True, False)),
        (samples.TLS12_CCM, (True, True, False)),
        (samples.TLS12_CBC, (True, False, False)),
        (samples.TLS12_STATIC_RSA, (False, True, False)),
        (samples.TLS12_ANONYMOUS, (True, True, True)),
        (samples.TLS12_ANONYMOUS_EC, (True, False, True)),
        (samples.TLS10, (True, False, False)),
    ],
    ids=str,
)
def test_a_suite_is_what_its_name_says(facts: TlsFacts, traits: tuple[bool, bool, bool]) -> None:
    assert (facts.forward_secrecy, facts.aead, facts.anonymous) == traits


def test_every_suite_is_what_openssl_says_it_is() -> None:
    """
    9325-03, 9325-04: no suite there is, down to the lowest floor, gets past a level by an odd name; those with a shared
    secret are never negotiated.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:COMPLEMENTOFALL:!PSK:!SRP:@SECLEVEL=0")
    suites = context.get_ciphers()
    assert len(suites) > 50
    for suite in suites:
        facts = TlsFacts(suite["protocol"], suite["name"], suite["strength_bits"])
        kept = suite["kea"] in {"kx-ecdhe", "kx-dhe", "kx-any"}
        traits = (kept, suite["aead"], suite["auth"] == "auth-null")
        assert (facts.forward_secrecy, facts.aead, facts.anonymous) == traits, suite["description"]
