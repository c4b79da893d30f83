"""
A level: a named set of demands on the TLS of a session, and its verdict on what a handshake achieved.

The floor (what the handshake itself lets in) is not the level's business: a level judges what came through. Every
demand that is not met is named, in words, because the client's operator reads them in the refusal.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cached_property
from types import MappingProxyType

from attrs import evolve, field, frozen

from tlsgate.policy.certificate import KnownClients, fingerprints
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.facts import TlsFacts
from tlsgate.policy.ramp import Ramp
from tlsgate.policy.wording import clipped, listed, printable

VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

# A reply line has 512 octets (RFC 5321 section 4.5.3.1.5); codes, fixed text and a session id stand around a reason.
REASON_OCTETS_MAX = 300
NAME_OCTETS_MAX = 40
HELP_OCTETS_MAX = 100
FACT_OCTETS_MAX = 50

# OpenSSL, NIST and IANA call these groups differently.
_GROUP_ALIASES = {
    "prime256v1": "secp256r1",
    "p-256": "secp256r1",
    "p-384": "secp384r1",
    "p-521": "secp521r1",
}


class Tls(Enum):
    """
    Whether a session may use TLS, or must.
    """

    NONE = "none"
    OFFERED = "offered"
    REQUIRED = "required"


class ClientCertificate(Enum):
    """
    What is done about a client's certificate: nothing, it is asked for and recorded, or it is demanded.
    """

    IGNORED = "ignored"
    REQUESTED = "requested"
    VERIFIED = "verified"


@frozen
class Verdict:
    """
    What a level says of a session.

    *reason* (printable ASCII, at most `REASON_OCTETS_MAX`) names what was achieved, what was demanded, and where to
    find help.
    *must_start_tls* tells "no TLS yet" (RFC 3207 section 4: 530) from "this TLS is not enough" (section 4.1: 554).
    """

    sufficient: bool
    reason: str = ""
    must_start_tls: bool = False
    enhanced: str = "5.7.0"


SUFFICIENT = Verdict(sufficient=True)


def _texts(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


def _group(name: str) -> str:
    name = name.lower()
    return _GROUP_ALIASES.get(name, name)


@frozen
class Level:
    """
    A named set of demands.

    `NONE` offers no STARTTLS and is content with anything. `OFFERED` is content with plaintext and puts its other
    demands to TLS sessions only. *client_names* and *client_fingerprints* are alternatives: a certificate passes that
    verifies and is for one of the names, or that has one of the fingerprints (of certificate or public key), verified
    or not; without either, any certificate that verifies passes.

    Raises:
        PolicyError: Demands that cannot be judged, or that would never be put to anybody.
    """

    name: str
    tls: Tls
    min_version: str | None = None
    min_bits: int = 0
    aead: bool = False
    forward_secrecy: bool = False
    authenticated: bool = False
    groups: tuple[str, ...] = field(default=(), converter=_texts)
    client_certificate: ClientCertificate = ClientCertificate.IGNORED
    client_names: tuple[str, ...] = field(default=(), converter=_texts)
    client_fingerprints: frozenset[str] = field(default=frozenset(), converter=fingerprints)
    enforcement: Ramp | bool = True
    help: str = ""
    plaintext_auth: bool = False

    def __attrs_post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise PolicyError(problems)

    def judge(self, facts: TlsFacts | None) -> Verdict:
        """
        Return the verdict on a session whose handshake achieved *facts*; `None` is a session in plaintext.
        """
        if self.tls is Tls.NONE or (facts is None and self.tls is Tls.OFFERED):
            return SUFFICIENT
        if facts is None:
            return self._no_tls
        unmet = self._unmet(facts)
        return Verdict(sufficient=False, reason=self._reason(unmet)) if unmet else SUFFICIENT

    @cached_property
    def demands(self) -> str:
        """
        The demands in words: "TLSv1.2 or later with 128 bits, forward secrecy and AEAD".
        """
        extras = [f"{self.min_bits} bits"] if self.min_bits else []
        if self.authenticated:
            extras.append("server authentication")
        if self.forward_secrecy:
            extras.append("forward secrecy")
        if self.aead:
            extras.append("AEAD")
        if self.groups:
            extras.append(f"key exchange by {' or '.join(self.groups)}")
        # Whose certificates are known is between the operator and them: strangers read refusals too.
        if self.client_certificate is ClientCertificate.VERIFIED:
            known = bool(self.client_names or self.client_fingerprints)
            extras.append("a known client certificate" if known else "a verified client certificate")
        version = f"{self.min_version} or later" if self.min_version else "TLS"
        return f"{version} with {listed(extras)}" if extras else version

    @cached_property
    def _no_tls(self) -> Verdict:
        return Verdict(sufficient=False, reason=self._reason("this session has no TLS"), must_start_tls=True)

    @cached_property
    def _known_clients(self) -> KnownClients:
        return KnownClients.of(self.client_names, self.client_fingerprints)

    @cached_property
    def _group_names(self) -> frozenset[str]:
        return frozenset(map(_group, self.groups))

    def _unmet(self, facts: TlsFacts) -> str:
        """
        Return what *facts* lack, gravest first; empty if nothing.
        """
        traits, lacks = [], []
        if self.authenticated and facts.anonymous:
            traits.append("anonymous")
        if self.min_version is not None and not _at_least(facts.version, self.min_version):
            traits.append("too old")
        if facts.bits < self.min_bits:
            lacks.append(f"only {facts.bits:d} bits")
        if self.forward_secrecy and not facts.forward_secrecy:
            lacks.append("no forward secrecy")
        if self.aead and not facts.aead:
            lacks.append("no AEAD")
        if self._group_names and _group(facts.group) not in self._group_names:
            lacks.append(f"key exchange by {printable(facts.group, FACT_OCTETS_MAX) or 'no group'}")
        if self.client_certificate is ClientCertificate.VERIFIED:
            lacks.extend(filter(None, [self._known_clients.unmet(facts.certificate)]))
        clauses = [f"{verb} {listed(words)}" for verb, words in (("is", traits), ("has", lacks)) if words]
        if not clauses:
            return ""
        negotiated = f"{printable(facts.version, FACT_OCTETS_MAX)} {printable(facts.cipher, FACT_OCTETS_MAX)}"
        return f"{negotiated} {' and '.join(clauses)}"

    def _reason(self, found: str) -> str:
        see = f"; see {self.help}" if self.help else ""
        return clipped(f"{found}; level {self.name} demands {self.demands}", REASON_OCTETS_MAX - len(see)) + see

    def _problems(self) -> dict[str, str]:
        problems = self._client_problems()
        if not _fits(self.name, NAME_OCTETS_MAX):
            problems["name"] = f"must be 1 to {NAME_OCTETS_MAX} printable ASCII characters without spaces"
        if self.help and not _fits(self.help, HELP_OCTETS_MAX):
            problems["help"] = f"must be at most {HELP_OCTETS_MAX} printable ASCII characters without spaces"
        if self.min_version is not None and self.min_version not in VERSIONS:
            problems["min_version"] = f"{self.min_version!a} is not one of {', '.join(VERSIONS)}"
        if self.min_bits < 0:
            problems["min_bits"] = f"{self.min_bits} is less than 0"
        if not all(_fits(group, FACT_OCTETS_MAX) for group in self.groups):
            problems["groups"] = "must be names of key exchange groups, such as X25519MLKEM768"
        if self.tls is Tls.NONE and self.demands != "TLS":
            problems["tls"] = f'"none" cannot demand {printable(self.demands, REASON_OCTETS_MAX)}'
        return problems

    def _client_problems(self) -> dict[str, str]:
        problems = {}
        no_effect = 'has no effect unless client_certificate is "verified"'
        verified = self.client_certificate is ClientCertificate.VERIFIED
        if self.client_names and not verified:
            problems["client_names"] = no_effect
        if self.client_fingerprints and not verified:
            problems["client_fingerprints"] = no_effect
        try:
            KnownClients.of(self.client_names, ())
        except ValueError as error:
            problems["client_names"] = str(error)
        try:
            KnownClients.of((), self.client_fingerprints)
        except ValueError as error:
            problems["client_fingerprints"] = str(error)
        return problems


def _fits(text: str, octets_max: int) -> bool:
    return 0 < len(text) <= octets_max and all("!" <= character <= "~" for character in text)


def _at_least(version: str, least: str) -> bool:
    # A version we have no place for (SSLv3, or one yet to come) must not pass for a good one.
    return version in VERSIONS and VERSIONS.index(version) >= VERSIONS.index(least)


_STRONG = Level(
    "strong",
    Tls.REQUIRED,
    min_version="TLSv1.2",  # RFC 9325 section 3.1.1
    min_bits=128,  # section 4.1
    aead=True,  # section 4.1: CBC is not worth the encrypt-then-MAC it needs
    forward_secrecy=True,  # section 4.1
    authenticated=True,
)

BUILT_IN: Mapping[str, Level] = MappingProxyType(
    {
        level.name: level
        for level in (
            Level("offered", Tls.OFFERED),
            Level("required", Tls.REQUIRED),
            _STRONG,
            evolve(_STRONG, name="verified", client_certificate=ClientCertificate.VERIFIED),
        )
    }
)
