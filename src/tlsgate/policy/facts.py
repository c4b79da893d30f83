"""
What is known about a session, as plain values: the only thing the law looks at.

Everything here is frozen and comparable. Nothing here knows where a fact came from.
"""

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen


@frozen
class CertificateFacts:
    """
    The certificate a client has shown.

    *fault* is empty when the chain was verified against the client CA, else a short ASCII phrase saying why not
    ("certificate has expired"). Fingerprints are lower-case hexadecimal SHA-256, without colons.
    """

    subject: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    certificate_sha256: str
    public_key_sha256: str
    fault: str = ""


@frozen
class TlsFacts:
    """
    What a handshake achieved; *version*, *cipher*: OpenSSL names ("TLSv1.3", "ECDHE-RSA-AES128-GCM-SHA256").

    *bits* is the strength of the cipher, *group* the key exchange group ("X25519MLKEM768"), empty when there was none
    (static RSA) or OpenSSL does not say. *sni* is the name the client asked for, empty when it asked for none.
    """

    version: str
    cipher: str
    bits: int
    group: str = ""
    sni: str = ""
    alpn: str = ""
    resumed: bool = False
    certificate: CertificateFacts | None = None

    @property
    def forward_secrecy(self) -> bool:
        """
        Whether a stolen key cannot decrypt this session later (ephemeral key exchange; always so in TLS 1.3).
        """
        return self.version == "TLSv1.3" or self.cipher.startswith(("ECDHE-", "DHE-", "ADH-", "AECDH-"))

    @property
    def aead(self) -> bool:
        """
        Whether the cipher is authenticated encryption with associated data.
        """
        # TLS 1.3 is no answer by itself: it has suites that do not encrypt (RFC 9150).
        return any(mark in self.cipher for mark in ("GCM", "CCM", "CHACHA20"))

    @property
    def anonymous(self) -> bool:
        """
        Whether the client could not know whom it talked to (aNULL suites).
        """
        return self.cipher.startswith(("ADH-", "AECDH-"))


@frozen
class Circumstances:
    """
    What a rule may look at. `None` means "not known (yet)": a condition on an unknown fact does not match.

    *helo* is the name given in EHLO or HELO, *sender* and *recipient* are mailboxes as in MAIL and RCPT ("" is the null
    sender), *sni* is "" when the client sent none.
    """

    listener: str
    client: IPv4Address | IPv6Address | None
    now: datetime
    helo: str | None = None
    sni: str | None = None
    sender: str | None = None
    recipient: str | None = None
