"""
Who the gate is to its clients: all credentials, and which of them answers to which name. Never changed once loaded.
"""

from datetime import datetime

from attrs import field, frozen
from OpenSSL import SSL

from tlsgate.tls.certificates import CertificateError, Credential, load_credential
from tlsgate.tls.connection import GateConnection
from tlsgate.tls.context import TlsTerms, build_context, serve_names
from tlsgate.tls.names import covered, normalized, wildcard_for
from tlsgate.tls.trust import ClientTrust, load_client_trust


@frozen
class Identity:
    """
    Validated credentials with the contexts that serve them; swapped as a whole.

    *names* are the DNS names of all credentials; *not_after* is when the first of them ends. Ticket keys belong to an
    identity: with the next one, sessions are no longer resumed but negotiated anew, against whatever is trusted then.
    """

    terms: TlsTerms
    credentials: tuple[Credential, ...]
    warnings: tuple[str, ...]
    _contexts: "Contexts" = field(repr=False, eq=False)

    @classmethod
    def load(cls, terms: TlsTerms, now: datetime) -> "Identity":
        """
        Read and validate everything that *terms* name.

        Raises:
            CertificateError: With every fault of every file.
        """
        problems: list[str] = []
        credentials: list[Credential] = []
        trust = ClientTrust()
        if not terms.certificates:
            problems.append("no certificate is named; a chain and its key are needed")
        for files in terms.certificates:
            try:
                credentials.append(load_credential(files, now))
            except CertificateError as error:
                problems.extend(error.problems)
        if terms.request_client_certificate:
            try:
                trust = load_client_trust(terms.client_ca, terms.client_crls, now)
            except CertificateError as error:
                problems.extend(error.problems)
        if problems:
            raise CertificateError(*problems)
        warnings = [warning for credential in credentials for warning in credential.warnings]
        warnings.extend(trust.warnings)
        if terms.hostname is not None and not any(covered(terms.hostname, each.names) for each in credentials):
            warnings.append(f"no certificate has the name {terms.hostname}; clients that verify will not accept it")
        return cls(terms, tuple(credentials), tuple(warnings), Contexts(terms, tuple(credentials), trust))

    @property
    def names(self) -> tuple[str, ...]:
        """
        Every name served, in the order of the credentials.
        """
        return tuple(dict.fromkeys(name for credential in self.credentials for name in credential.names))

    @property
    def not_after(self) -> datetime:
        """
        When the first of the credentials ends.
        """
        return min(credential.not_after for credential in self.credentials)

    @property
    def staples_not_after(self) -> datetime | None:
        """
        When the first of the stapled OCSP responses ends.
        """
        ends = [each.staple.not_after for each in self.credentials if each.staple and each.staple.not_after]
        return min(ends, default=None)

    def connection(self) -> GateConnection:
        """
        Return the server's side of a new connection over memory buffers, ready to accept a handshake.
        """
        connection = GateConnection(self._contexts.default)
        connection.set_accept_state()
        return connection


class Contexts:
    """
    One context per set of credentials that some name needs, all with the same rules.
    """

    def __init__(self, terms: TlsTerms, credentials: tuple[Credential, ...], trust: ClientTrust) -> None:
        self._terms = terms
        self._trust = trust
        self._credentials = credentials
        self._built: dict[tuple[Credential, ...], SSL.Context] = {}
        self.default = self._serving(self._candidates(credentials[0].names[0]))
        self._by_name = {
            name: self._serving(self._candidates(name)) for credential in credentials for name in credential.names
        }
        serve_names(self.default, self._chosen)

    def _chosen(self, name: str) -> SSL.Context | None:
        if not name:
            return self.default
        host = normalized(name)
        chosen = self._by_name.get(host) or self._by_name.get(wildcard_for(host))
        if chosen is None and self._terms.unknown_sni == "default":
            return self.default
        return chosen

    def _candidates(self, name: str) -> tuple[Credential, ...]:
        # Of each kind of key, the first with the very name, else the first with its wildcard.
        by_kind: dict[str, Credential] = {}
        for wanted in (name, wildcard_for(name)):
            for credential in self._credentials:
                if wanted in credential.names:
                    by_kind.setdefault(credential.kind, credential)
        return tuple(by_kind.values())

    def _serving(self, credentials: tuple[Credential, ...]) -> SSL.Context:
        key = tuple(sorted(credentials, key=self._credentials.index))
        if key not in self._built:
            self._built[key] = build_context(self._terms, key, self._trust)
        return self._built[key]
