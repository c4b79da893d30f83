"""
The gatekeeper: what the law says of this session, at each stage at which a fact becomes known.

It keeps the facts (who, which TLS, which HELO name, which sender) and asks the rulebook; it answers with a reply that
refuses, or with nothing.
"""

from collections.abc import Mapping

from attrs import define, evolve, field

from tlsgate.policy.facts import Circumstances, TlsFacts
from tlsgate.policy.level import Tls
from tlsgate.policy.mailbox import POSTMASTER, Mailbox
from tlsgate.policy.rules import Decision, Outcome, Rulebook
from tlsgate.session.actions import Record
from tlsgate.smtp import reply
from tlsgate.smtp.reply import Reply

_REFUSED = (Outcome.REFUSE, Outcome.DEFER)


def tls_fields(tls: TlsFacts | None) -> Mapping[str, object]:
    """
    Return the TLS facts as journal fields.
    """
    if tls is None:
        return {"tls": None}
    certificate = tls.certificate
    return {
        "tls": tls.version,
        "cipher": tls.cipher,
        "bits": tls.bits,
        "group": tls.group,
        "sni": tls.sni,
        "alpn": tls.alpn,
        "resumed": tls.resumed,
        "client_certificate": None if certificate is None else certificate.subject,
        "client_certificate_fault": None if certificate is None else certificate.fault,
    }


@define
class Gatekeeper:
    """
    The law as it stands for one session.
    """

    _rulebook: Rulebook
    circumstances: Circumstances
    _session_id: str
    tls: TlsFacts | None = None
    decision: Decision = field(init=False)
    records: list[Record] = field(factory=list)
    _plaintext_noted: bool = False
    _uses_sender: bool = field(init=False)
    _uses_recipient: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._uses_sender = self._rulebook.uses_sender(self.circumstances.listener)
        self._uses_recipient = self._rulebook.uses_recipient(self.circumstances.listener)
        self._decide()

    def _decide(self) -> None:
        self.decision = self._rulebook.session(self.circumstances, self.tls)

    @property
    def standing(self) -> Mapping[str, object]:
        """
        The law and the TLS that mail of this session comes under, as journal fields (RFC 8314 section 4.3).
        """
        tls = self.tls
        return {
            "level": self.decision.level.name,
            "verdict": self.decision.outcome.name.lower(),
            "tls": None if tls is None else tls.version,
            "cipher": None if tls is None else tls.cipher,
            "group": None if tls is None else tls.group,
        }

    @property
    def refuses(self) -> bool:
        """
        Whether the level of the session is not met, and that counts.
        """
        return self.decision.outcome in _REFUSED

    @property
    def defers(self) -> bool:
        """
        Whether a refusal is for now only: the level is in the 4yz stage of its ramp.
        """
        return self.decision.outcome is Outcome.DEFER

    @property
    def demands_tls(self) -> bool:
        """
        Whether the session is in plaintext and must not stay so.
        """
        return self.tls is None and self.refuses

    @property
    def offers_starttls(self) -> bool:
        """
        Whether STARTTLS may be given now.
        """
        return self.tls is None and self.decision.level.tls is not Tls.NONE

    @property
    def auth_allowed(self) -> bool:
        """
        Whether AUTH may be shown and used now (RFC 4954 section 4: not in plaintext where TLS is to be had).
        """
        level = self.decision.level
        return self.tls is not None or level.plaintext_auth or level.tls is Tls.NONE

    def handshake_done(self, tls: TlsFacts) -> None:
        """
        Take in what the handshake achieved, and forget what was said before (RFC 3207 section 4.2).
        """
        self.tls = tls
        self.circumstances = evolve(self.circumstances, sni=tls.sni, helo=None, sender=None, recipient=None)
        self._decide()
        self._note("handshake", self.decision)

    def named(self, helo: str) -> None:
        """
        Take in the name given in EHLO or HELO.
        """
        self.circumstances = evolve(self.circumstances, helo=helo)
        before = self.decision
        self._decide()
        if self.decision != before and self.tls is not None:
            self._note("helo", self.decision)

    def plaintext_command(self) -> None:
        """
        Note, once, that mail was about to be spoken in plaintext where the level demands TLS.
        """
        if not self._plaintext_noted and self.tls is None and self.decision.outcome is not Outcome.PASS:
            self._plaintext_noted = True
            self._note("plaintext", self.decision)

    def sender(self, mailbox: str | None) -> Reply | None:
        """
        Return the refusal of a MAIL command, `None` to let it through. *mailbox* is `None` if it could not be told.
        """
        if not self._uses_sender:
            return None
        if mailbox is None or (mailbox and not Mailbox.parse(mailbox).unambiguous):
            self.circumstances = evolve(self.circumstances, sender=None, recipient=None)
            return reply.PATH_INVALID
        self.circumstances = evolve(self.circumstances, sender=mailbox, recipient=None)
        return self._stage("sender", self._rulebook.sender(self.circumstances, self.tls))

    def sender_is(self, mailbox: str) -> None:
        """
        Take it that the mail transaction is this sender's.
        """
        self.circumstances = evolve(self.circumstances, sender=mailbox, recipient=None)

    def recipient(self, mailbox: str | None) -> Reply | None:
        """
        Return the refusal of a RCPT command, `None` to let it through. *mailbox* is `None` if it could not be told.
        """
        if not self._uses_recipient:
            return None
        # Only the postmaster may go without a domain (RFC 5321 section 4.1.1.3).
        if mailbox is None or (mailbox.lower() != POSTMASTER and not Mailbox.parse(mailbox).unambiguous):
            return reply.PATH_INVALID
        circumstances = evolve(self.circumstances, recipient=mailbox)
        return self._stage("recipient", self._rulebook.recipient(circumstances, self.tls))

    def refusal(self) -> Reply:
        """
        Return the reply that refuses any command now.
        """
        return reply.SECURITY_SOON_REQUIRED if self.defers else self._reply(self.decision)

    def _stage(self, stage: str, decision: Decision) -> Reply | None:
        if decision.outcome is Outcome.PASS or decision == self.decision:
            return None
        self._note(stage, decision)
        if decision.outcome is Outcome.WOULD_REFUSE:
            return None
        return reply.RECIPIENT_DEFERRED if decision.outcome is Outcome.DEFER else self._reply(decision)

    def _reply(self, decision: Decision) -> Reply:
        if decision.verdict.must_start_tls:
            return reply.MUST_ISSUE_STARTTLS
        text = f"{reply.LACK_OF_SECURITY.text}: {decision.verdict.reason} [{self._session_id}]"
        return evolve(reply.LACK_OF_SECURITY, enhanced=decision.verdict.enhanced, text=text)

    def _note(self, stage: str, decision: Decision) -> None:
        fields = {
            "stage": stage,
            "level": decision.level.name,
            "outcome": decision.outcome.name.lower(),
            "reason": decision.verdict.reason,
            **tls_fields(self.tls),
        }
        self.records.append(Record("verdict", fields))
