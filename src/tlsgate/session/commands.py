"""
What a command of the client's means: forwarded, refused, or answered by ourselves.

Every line is one of these, and is answered once (RFC 5321 section 4.2). Where the level demands TLS, RFC 3207 section 4
says what else is answered; after a TLS that is not enough, section 4.1 does.
"""

import re

from attrs import define

from tlsgate.session.actions import StartTls
from tlsgate.session.expectations import Awaited, Then
from tlsgate.session.inflow import Inflow
from tlsgate.session.phases import Leg, Phase
from tlsgate.session.verbs import VERBS, What, verb
from tlsgate.smtp import reply as replies
from tlsgate.smtp.command import Command, chunk, mailbox, parse
from tlsgate.smtp.extensions import ehlo_reply, mechanism_usable
from tlsgate.smtp.framing import OVERLONG, InputBuffer
from tlsgate.smtp.reply import Reply

_GREETINGS = frozenset({b"EHLO", b"HELO"})
_TRANSACTION = frozenset({b"MAIL", b"RCPT", b"DATA", b"BDAT"})
_FREE_IN_PLAINTEXT = frozenset({b"EHLO", b"NOOP", b"QUIT"})
# Postfix bounces mail that needs SMTPUTF8 unless that is offered before TLS already, and looks again inside: there the
# backend's own keywords count. Who offers it must offer 8BITMIME (RFC 6531 section 3.1).
_OFFERED_WITH_TLS = (b"8BITMIME", b"SMTPUTF8", b"STARTTLS")
_SASL_LINE = re.compile(rb"(?:[A-Za-z0-9+/]*={0,2}|\*)\r\n")


@define
class Commands(Inflow):
    """
    The session's side that listens to the client.
    """

    def _read_command(self) -> bool:
        """
        Take in one command line; return whether there may be more to read.
        """
        if self.leg is Leg.DIALLING or len(self._talk.expectations) >= self.terms.bounds.pipeline_max:
            return False
        postponed, self._postponed = self._postponed, None
        if postponed is not None:
            self._on_command(postponed)
            return self._postponed is None
        bounds = self.terms.bounds
        line = self._input.line(max(bounds.line_octets_max, bounds.sasl_octets_max))
        if line is None:
            return False
        beginning = (self._input.overlong if line is OVERLONG else line[:5]).upper()
        overlong = line is OVERLONG or (len(line) > bounds.line_octets_max and beginning != b"AUTH ")
        command = None if overlong else parse(line)
        if command is not None:
            self._on_command(command)
            return True
        # What follows a broken BDAT is a chunk that nobody will take.
        self._reset_needed = self._reset_needed or beginning.startswith(b"BDAT")
        if not overlong:
            self._own(replies.LINE_INVALID)
        else:
            self._own(replies.SASL_LINE_TOO_LONG if beginning == b"AUTH " else replies.LINE_TOO_LONG)
        return True

    def _on_command(self, command: Command) -> None:
        if command.verb in _GREETINGS and not self._greet(command):
            return
        if self._gate.demands_tls:
            self._on_command_before_tls(command)
        elif command.verb == b"STARTTLS":
            self._on_starttls(command)
        else:
            self._on_relayed_command(command)

    def _greet(self, command: Command) -> bool:
        """
        Judge anew, now that the client gives a name; return whether EHLO or HELO may be handled now.
        """
        if self._talk.expectations.awaited:
            self._postpone(command)
            return False
        self._gate.named(command.argument.decode("utf-8", "backslashreplace"))
        if self._gate.tls is not None and self._gate.refuses:
            self._refuse_all(self._gate.refusal())
            self._refuse(command)
            return False
        if self._gate.demands_tls:
            self._abandon_transaction()
            self._hang_up()
        elif self.leg is Leg.NONE:
            self._dial()
            self._postponed = command
            return False
        return True

    def _postpone(self, command: Command) -> None:
        """
        Handle *command* once everything before it is answered.
        """
        self._postponed = command
        self.phase = Phase.HELD

    def _on_command_before_tls(self, command: Command) -> None:
        self._commands_before_tls += 1
        if self._commands_before_tls > self.terms.bounds.commands_before_tls_max:
            self._close_after(replies.TOO_MANY_COMMANDS, to_ehlo=command.verb in _GREETINGS)
        elif command.verb == b"QUIT":
            self._close_after(replies.CLOSING)
        elif command.verb == b"NOOP":
            self._own(replies.OK)
        elif command.verb == b"EHLO":
            offered = _OFFERED_WITH_TLS if self._gate.offers_starttls and self.terms.tls_available() else ()
            self._talk.own_raw(ehlo_reply(self.terms.hostname.encode("ascii"), [b"ENHANCEDSTATUSCODES", *offered]))
        elif command.verb == b"STARTTLS":
            self._on_starttls(command)
        else:
            self._gate.plaintext_command()
            self._refusal = self._gate.refusal()
            self._refuse(command)

    def _refuse(self, command: Command) -> None:
        """
        Answer *command* with the refusal that stands; a chunk is swallowed first (RFC 3030 section 2).
        """
        to_ehlo = command.verb in _GREETINGS
        if self._refusal.code == 421:
            self._close_after(self._refusal, to_ehlo=to_ehlo)
            return
        size = chunk(command.argument) if command.verb == b"BDAT" else None
        if size is None:
            self._own(self._refusal, to_ehlo=to_ehlo)
        else:
            self._begin_chunk(size[0], swallowing=self._refusal)

    def _read_refused(self) -> bool:
        """
        Take in one line where all are refused but QUIT (RFC 3207 section 4.1).
        """
        command, self._postponed = self._postponed, None
        if command is None:
            line = self._input.line(self.terms.bounds.sasl_octets_max)
            if line is None:
                return False
            command = parse(line) or Command(b"", b"", line, well_formed=False)
        if command.verb == b"QUIT":
            self._close_after(replies.CLOSING)
        else:
            self._refuse(command)
        return True

    def _on_starttls(self, command: Command) -> None:
        if self._gate.tls is not None:
            self._own(replies.TLS_ALREADY_ACTIVE)
        elif command.argument:
            self._own(replies.STARTTLS_ARGUMENT)
        elif not self._gate.offers_starttls:
            self._own(replies.STARTTLS_NOT_OFFERED)
        elif not self.terms.tls_available():
            self._own(replies.TLS_UNAVAILABLE)
        elif self._input:
            self._close_after(replies.PLAINTEXT_BEHIND_STARTTLS)
        else:
            self.phase = Phase.DISCARDED
            self._talk.own(replies.READY_FOR_TLS, Then.START_TLS)

    def _begin_tls(self) -> None:
        """
        Start the handshake. Nothing said in plaintext may be known inside TLS (RFC 3207 section 4.2): the backend gets
        a fresh connection, the input a fresh buffer.
        """
        self._talk.tls_due = False
        self._abandon_transaction()
        self._hang_up()
        self._input = InputBuffer()
        self._asked = False
        self._handshaking = True
        self._talk.last(StartTls())
        self._dial()

    def _read_discarded(self) -> bool:
        """
        Octets behind STARTTLS, before the handshake: they were said in plaintext and count for nothing (section 4.2).
        """
        if self._input:
            if not self._handshaking:
                self._talk.expectations.withdraw()
            self._close_after(replies.PLAINTEXT_BEHIND_STARTTLS)
        return False

    def _on_relayed_command(self, command: Command) -> None:
        name = command.verb
        if self._gate.tls is None and name not in _FREE_IN_PLAINTEXT:
            self._gate.plaintext_command()
        if not verb(name).relayed:
            self._own(replies.NOT_RELAYED)
        elif not command.well_formed:
            self._own(replies.NOT_RECOGNIZED)
        elif name == b"BDAT":
            self._on_bdat(command)
        elif self._reset_needed and name in _TRANSACTION:
            self._own(replies.RESET_NEEDED)
        elif name == b"MAIL":
            self._on_mail_command(command)
        elif (refusal := self._objection(command)) is not None:
            self._own(refusal)
        else:
            self._forward(command)

    def _objection(self, command: Command) -> Reply | None:
        """
        Return why a single command is refused while others are not, `None` if it is not.
        """
        if command.verb == b"RCPT":
            return self._gate.recipient(mailbox(command.argument))
        if command.verb == b"AUTH":
            if not self._gate.auth_allowed:
                return replies.ENCRYPTION_REQUIRED_FOR_AUTH
            if not mechanism_usable(command.argument.partition(b" ")[0]):
                return replies.MECHANISM_UNUSABLE
        return None

    def _on_mail_command(self, command: Command) -> None:
        # A second MAIL inside a transaction is the backend's to judge; but until it has, nobody knows whose recipients
        # the next ones are, and rules may look at sender and recipient together.
        nested = self._transaction is not None or self._talk.expectations.awaits(What.MAIL)
        if nested and self._talk.expectations.awaited:
            self._postpone(command)
            return
        sender = mailbox(command.argument)
        refusal = self._gate.sender(sender)
        if refusal is not None:
            self._own(refusal)
            if self._transaction is not None:
                self._gate.sender_is(self._transaction.sender)
            return
        known = command.argument if sender is None else sender.encode("utf-8")
        self._smtputf8 = b"SMTPUTF8" in command.argument.upper().split(b" ")
        self._traced = self._traced and nested
        self._octets_ahead = 0
        self._send(command.line, Awaited(What.MAIL, known), ends_group=nested)

    def _on_bdat(self, command: Command) -> None:
        size = chunk(command.argument)
        if size is None:
            self._reset_needed = True
            self._own(replies.CHUNK_SIZE_INVALID)
        elif not self._chunking:
            # The octets would be commands to a backend that knows no BDAT.
            self._begin_chunk(size[0], swallowing=replies.NO_CHUNKING)
        elif self._reset_needed:
            self._begin_chunk(size[0], swallowing=replies.RESET_NEEDED)
        elif size[0] and self._trace_due and not self._input:
            self._postponed = command  # until the chunk begins, as the trace line is part of it
        else:
            self._forward_chunk(command.line, *size)

    def _forward_chunk(self, line: bytes, octets: int, last: bool) -> None:  # noqa: FBT001 - as `chunk` returns it
        trace_line = self._trace_line(self._input.peek() if octets else b"") if octets or last else b""
        if trace_line:
            # It becomes a part of the first chunk, whose size grows.
            line = b"BDAT %d%b\r\n" % (len(trace_line) + octets, b" LAST" if last else b"") + trace_line
        self._traced = self._traced and not last
        # Until it is known whether the trace line was taken, so is not which chunk is to have it.
        self._send(line, Awaited(What.LAST_CHUNK if last else What.CHUNK), ends_group=bool(trace_line))
        self._begin_chunk(octets)

    def _forward(self, command: Command) -> None:
        entry = verb(command.verb)
        if command.verb in _GREETINGS:
            self._esmtp = command.verb == b"EHLO"
        self._send(command.line, Awaited(entry.what, command.argument), ends_group=entry.ends_group)

    def _send(self, line: bytes, awaited: Awaited, *, ends_group: bool) -> None:
        """
        Forward a line. What follows it waits for the answer if the answer may change what it is, or if the backend
        takes one command at a time (it does not offer PIPELINING).
        """
        self._talk.forward(line, awaited)
        if ends_group or not self._pipelining:
            self.phase = Phase.HELD

    def _read_sasl(self) -> bool:
        """
        Take in one line of an AUTH exchange (RFC 4954 section 4). One that may not pass cancels the exchange: the
        backend's answer to that is the client's.
        """
        line = self._input.line(self.terms.bounds.sasl_octets_max)
        if line is None:
            return False
        self._send(line if _SASL_LINE.fullmatch(line) else b"*\r\n", Awaited(What.AUTH), ends_group=True)
        return True


assert set(VERBS) >= _TRANSACTION | _GREETINGS  # noqa: S101 - a misspelt verb would be relayed unwatched
