"""
What the tests of the law are about: sessions as handshakes leave them.
"""

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attrs import evolve

from tlsgate.policy.facts import CertificateFacts, Circumstances, TlsFacts

NOW = datetime(2027, 2, 1, 12, tzinfo=UTC)
CLIENT = IPv4Address("192.0.2.7")
CLIENT6 = IPv6Address("2001:db8:1:2::7")

CERTIFICATE_SHA256 = "ce" * 32
PUBLIC_KEY_SHA256 = "4b" * 32

VERIFIED = CertificateFacts(
    subject="CN=mail.partner.example",
    dns_names=("mail.partner.example",),
    ip_addresses=("192.0.2.7", "2001:db8::7"),
    certificate_sha256=CERTIFICATE_SHA256,
    public_key_sha256=PUBLIC_KEY_SHA256,
)
SELF_SIGNED = evolve(VERIFIED, fault="self-signed certificate")

TLS13 = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, group="X25519")
TLS13_HYBRID = evolve(TLS13, group="X25519MLKEM768")
TLS13_INTEGRITY_ONLY = TlsFacts("TLSv1.3", "TLS_SHA256_SHA256", 0, group="X25519")
TLS12 = TlsFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128, group="X25519")
TLS12_CHACHA = TlsFacts("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", 256, group="X25519")
TLS12_CCM = TlsFacts("TLSv1.2", "DHE-RSA-AES128-CCM", 128, group="ffdhe2048")
TLS12_CBC = TlsFacts("TLSv1.2", "ECDHE-RSA-AES128-SHA256", 128, group="X25519")
TLS12_STATIC_RSA = TlsFacts("TLSv1.2", "AES128-GCM-SHA256", 128)
TLS12_ANONYMOUS = TlsFacts("TLSv1.2", "ADH-AES256-GCM-SHA384", 256)
TLS12_ANONYMOUS_EC = TlsFacts("TLSv1.2", "AECDH-AES128-SHA", 128)
TLS12_CCM8 = TlsFacts("TLSv1.2", "ECDHE-ECDSA-AES128-CCM8", 64, group="X25519")
TLS11 = TlsFacts("TLSv1.1", "ECDHE-RSA-AES256-SHA", 256, group="X25519")
TLS10 = TlsFacts("TLSv1", "ECDHE-RSA-AES256-SHA", 256, group="X25519")
SSL3 = TlsFacts("SSLv3", "ECDHE-RSA-AES256-SHA", 256)
UNHEARD_OF = TlsFacts("TLSv9", "TLS_AES_256_GCM_SHA384", 256)


def circumstances(listener: str = "mx", **known: Any) -> Circumstances:
    """
    Return a session at *listener* of which nothing is known but the client's address, and what *known* says.
    """
    return Circumstances(**{"listener": listener, "client": CLIENT, "now": NOW, **known})


def with_certificate(certificate: CertificateFacts, **changes: Any) -> TlsFacts:
    """
    Return a TLS 1.3 session in which the client showed *certificate*, *changes* made to it.
    """
    return evolve(TLS13, certificate=evolve(certificate, **changes))
