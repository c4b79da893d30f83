"""
What the backend says: a reply answers the oldest command that is not answered yet (RFC 5321 section 4.2, RFC 2920
section 3.1); its text is never looked at, and it is given to the client as it came, but for the EHLO keywords.

A reply that cannot be the answer (354 to NOOP, 250 to DATA, one more than asked) means that gate and backend no longer
speak of the same thing: the session ends with 421.
"""

from attrs import define

from tlsgate.session.actions import Record
from tlsgate.session.endings import Ending
from tlsgate.session.expectations import Awaited
from tlsgate.session.phases import Phase
from tlsgate.session.state import State
from tlsgate.session.transaction import Transaction
from tlsgate.session.verbs import What
from tlsgate.smtp import reply as replies
from tlsgate.smtp.extensions import Offer, ehlo_reply, filtered
from tlsgate.smtp.reply import BackendReply, Reply

# "Command unrecognized" and "not implemented": the backend speaks RFC 821 only.
_NO_EHLO = frozenset({500, 502})

_INTERMEDIATE = {What.DATA: 354, What.AUTH: 334}


@define
class Answers(State):
    """
    The session's side that listens to the backend.
    """

    _greeting: BackendReply | None = None
    _failure: Reply = replies.BACKEND_UNREACHABLE

    def _greet_ourselves(self) -> None:
        self._talk.to_client(b"220 " + self.terms.hostname.encode("ascii") + b" ESMTP\r\n")
        self.greeted = True

    def _greet_client(self) -> None:
        """
        Relay the backend's greeting, unless the client was greeted by us, or is not to be greeted yet.
        """
        if self._greeting is not None and not (self.greeted or self._handshaking or self._talk.ended):
            self._talk.to_client(self._greeting.raw)
            self.greeted = True

    def _give_backend_up(self) -> None:
        if self.greeted:
            self._refuse_all(self._failure)
        else:
            self._fail(replies.BACKEND_DOWN)

    def _on_reply(self, reply: BackendReply) -> None:
        head = self._talk.expectations.head()
        if reply.code == 421:  # RFC 5321 section 3.8: at any time, asked or not
            self._fail(reply)
        elif head is None or not _possible(head.what, reply) or self._is_premature(head.what, reply):
            asked = "nothing" if head is None else head.what.name
            self._talk.record(Record("backend-broken", {"reason": f"cannot answer {asked}: {reply.told()}"}))
            self._fail(replies.BACKEND_BROKEN)
        elif head.what is What.EHLO:
            self._on_ehlo(head, reply)
        elif head.what is What.HELO_FALLBACK:
            self._on_helo_fallback(reply)
        else:
            self._shadow(head, reply)
            self._talk.relay(reply)
            self._phase_after(head.what, reply)

    def _is_premature(self, what: What, reply: BackendReply) -> bool:
        """
        Return whether *reply* takes a chunk that the backend does not have yet.
        """
        chunk_is_last = self._chunk_left > 0 and self._swallowing is None and self._talk.expectations.awaited == 1
        return chunk_is_last and what in {What.CHUNK, What.LAST_CHUNK} and reply.positive

    def _on_ehlo(self, head: Awaited, reply: BackendReply) -> None:
        if reply.code in _NO_EHLO:
            self._talk.expectations.replace_head(Awaited(What.HELO_FALLBACK))
            self._talk.to_backend(b"HELO " + head.argument + b"\r\n")
            return
        if reply.positive:
            offered = filtered(reply, self._offer())
            self._pipelining = b"PIPELINING" in offered.keywords
            self._chunking = b"CHUNKING" in offered.keywords
            self._forget_transaction()
            self._talk.answer(offered.raw)
        else:
            self._talk.relay(reply)
        self._phase_after(What.EHLO, reply)

    def _on_helo_fallback(self, reply: BackendReply) -> None:
        if reply.positive:
            self._no_extensions()
            self._talk.answer(ehlo_reply(reply.lines()[0], [b"STARTTLS"] if self._offer().starttls else []))
        else:
            self._talk.relay(reply)
        self._phase_after(What.HELO_FALLBACK, reply)

    def _offer(self) -> Offer:
        plaintext = self._gate.tls is None
        return Offer(
            starttls=self._gate.offers_starttls and self.terms.tls_available(),
            auth=self._gate.auth_allowed,
            requiretls=self.terms.requiretls and not plaintext,
            keywords=self.terms.keywords,
        )

    def _shadow(self, head: Awaited, reply: BackendReply) -> None:
        """
        Follow the backend's mail transaction by its replies.
        """
        what = head.what
        transaction = self._transaction
        if what is What.MAIL:
            self._on_mail(head, reply)
        elif what is What.RCPT:
            if transaction is not None:
                transaction.open = transaction.open or reply.positive
                transaction.recipients += reply.positive
                transaction.recipients_refused += not reply.positive
        elif what in {What.END_OF_DATA, What.LAST_CHUNK}:
            self._complete_transaction("delivered" if reply.positive else "refused", reply)
            if what is What.LAST_CHUNK and transaction is not None and not reply.positive:
                self._transaction = Transaction(transaction.sender, open=False)
        elif what is What.CHUNK:
            self._traced = self._traced and reply.positive
        elif what is What.RESETTING and reply.positive:
            self._forget_transaction()
        elif what is What.HELO and reply.positive:
            self._no_extensions()
        elif what is What.AUTH and reply.positive:
            self.authenticated = True

    def _on_mail(self, head: Awaited, reply: BackendReply) -> None:
        if reply.positive:
            if self._transaction is not None:
                self._forget_transaction()  # MAIL clears what there was of a message (RFC 5321 section 4.1.1.2)
            sender = head.argument.decode("utf-8", "backslashreplace")
            self._transaction = Transaction(sender, octets=self._octets_ahead)
        elif self._transaction is not None:
            # A nested MAIL was refused: the transaction, and with it its sender, is the one before.
            self._gate.sender_is(self._transaction.sender)

    def _no_extensions(self) -> None:
        self._pipelining = self._chunking = False
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self._abandon_transaction()
        self._reset_needed = self._traced = False

    def _phase_after(self, what: What, reply: BackendReply) -> None:
        """
        Say what the client's next octets are, now that a command is answered.
        """
        if what is What.QUIT and reply.positive:
            self._quit = True
            self._end_by(Ending.QUIT)
            self._talk.close()
        elif reply.code == 354:
            self._begin_message()
        elif reply.code == 334:
            self.phase = Phase.SASL
        elif self.phase is Phase.HELD and not self._talk.expectations.awaited:
            self.phase = Phase.COMMANDS

    def _begin_message(self) -> None:
        """
        Take in message data from here on: the next layer's.
        """


def _possible(what: What, reply: BackendReply) -> bool:
    """
    Return whether *reply* can be the answer to such a command at all (RFC 5321 section 4.3.2, RFC 4954 section 4).
    """
    intermediate = _INTERMEDIATE.get(what)
    if 300 <= reply.code < 400:
        return reply.code == intermediate
    # DATA has no positive completion: a 250 to it would be taken for one of a message.
    return what is not What.DATA or not reply.positive
