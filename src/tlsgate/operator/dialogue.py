"""
What the mailbox says: octets of a client in, replies out, messages into the Maildir.

It keeps mail for its domains, or for everybody, and relays none. It speaks ESMTP (RFC 5321) with the extensions of a
modern server, but neither TLS nor AUTH: it is what tlsgate is made to stand before.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import define, field, frozen

from tlsgate.operator.intake import Chunk, Data, Refused, Transaction
from tlsgate.operator.maildir import Envelope, Maildir, Stored
from tlsgate.smtp import command, reply
from tlsgate.smtp.command import Command
from tlsgate.smtp.extensions import ehlo_reply
from tlsgate.smtp.framing import OVERLONG, InputBuffer
from tlsgate.smtp.reply import Reply

START_INPUT = Reply(354, "", "Start mail input; end with <CRLF>.<CRLF>")
SENDER_OK = Reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient OK")
HELP = Reply(214, "2.0.0", "See RFC 5321")
CANNOT_VERIFY = Reply(252, "2.0.0", "Cannot VRFY, but will try to deliver")  # RFC 5321 section 3.5.3
NAME_MISSING = Reply(501, "5.5.4", "Syntax error: a host name is needed")
NO_ARGUMENT = Reply(501, "5.5.4", "Syntax error: no argument is allowed")
PARAMETER_INVALID = Reply(501, "5.5.4", "Syntax error in a parameter")
PARAMETER_UNKNOWN = Reply(555, "5.5.4", "Parameter not recognized")  # RFC 5321 section 4.1.1.11
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
EHLO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
NESTED_MAIL = Reply(503, "5.5.1", "A mail transaction is in progress")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
RECIPIENT_FIRST = Reply(503, "5.5.1", "Send RCPT first")
RELAYING_DENIED = Reply(550, "5.7.1", "Relaying denied: not a domain of this mailbox")  # RFC 5321 section 7.9
CHUNKS_BEGUN = Reply(503, "5.5.1", "The message has begun with BDAT")  # RFC 3030 section 2
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "An address that is not ASCII needs SMTPUTF8")  # RFC 6531 section 3.5
TOO_BIG = Reply(552, "5.3.4", "Message too big")  # RFC 1870 section 6
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")  # RFC 5321 section 4.5.3.1.10

_BRACKETED = re.compile(rb"[A-Za-z]+: *<(?:[^<>\"\\]|\"(?:[^\"\\]|\\.)*\"|\\.)*>(.*)")
_SIZE = re.compile(rb"SIZE=([0-9]{1,20})")
_BODY = re.compile(rb"BODY=(?:7BIT|8BITMIME)")


@frozen
class Bounds:
    """
    What a session may ask for. *domains*, in lower case, have their mail kept here; none means all.
    """

    domains: frozenset[str] = frozenset()

    message_octets_max: int = 64 * 1024 * 1024
    recipients_max: int = 1000  # at least 100: RFC 5321 section 4.5.3.1.8
    line_octets_max: int = 4096  # 512, and what extensions add to MAIL and RCPT
    errors_max: int = 100


@define
class Dialogue:
    """
    One session. *closing* is set once its last reply is out; *on_stored* is told of each message.
    """

    _maildir: Maildir
    _client: str
    _on_stored: Callable[[Stored], None]
    _bounds: Bounds = field(factory=Bounds)
    closing: bool = field(default=False, init=False)
    _input: InputBuffer = field(factory=InputBuffer, init=False)
    _intake: Data | Chunk | Refused | None = field(default=None, init=False)
    _transaction: Transaction | None = field(default=None, init=False)
    _helo: str = field(default="", init=False)
    _protocol: str = field(default="", init=False)
    _errors: int = field(default=0, init=False)

    def greeting(self) -> bytes:
        """
        Return what is said first.
        """
        return Reply(220, "", f"{self._maildir.hostname} ESMTP mailbox").encode()

    def receive(self, data: bytes) -> bytes:
        """
        Return the replies to all that *data* completes, in order.
        """
        self._input.feed(data)
        replies = []
        while not self.closing and (answer := self._next()) is not None:
            replies.append(answer)
            self._errors += answer.startswith(b"5")
            if self._errors > self._bounds.errors_max:
                replies.append(self.close(reply.TOO_MANY_ERRORS))
        return b"".join(replies)

    def close(self, last: Reply) -> bytes:
        """
        Return *last*, after which nothing is read or answered any more.
        """
        self.forget()
        self.closing = True
        return last.encode()

    def forget(self) -> None:
        """
        Forget the mail transaction (RFC 5321 section 4.1.1.5).
        """
        if self._transaction is not None:
            self._transaction.discard()
        self._transaction = None

    def _next(self) -> bytes | None:
        """
        Return the next reply; `None` if more must arrive first.
        """
        if self._intake is not None:
            return self._next_of_message(self._intake)
        line = self._input.line(self._bounds.line_octets_max)
        if line is None:
            return None
        if line == OVERLONG:
            return reply.LINE_TOO_LONG.encode()
        parsed = command.parse(line)
        if parsed is None:
            return reply.LINE_INVALID.encode()
        if parsed.verb in _HELLOS:
            return self._hello(parsed)
        perform = _COMMANDS.get(parsed.verb)
        answer = reply.NOT_RECOGNIZED if perform is None else perform(self, parsed)
        # BDAT is answered behind its octets.
        return self._next() if answer is None else answer.encode()

    def _next_of_message(self, intake: Data | Chunk | Refused) -> bytes | None:
        answer = intake.take(self._input)
        if answer is None:
            return None
        self._intake = None
        transaction = self._transaction
        if transaction is not None and transaction.finished:
            self._transaction = None
            if transaction.stored is not None:
                self._on_stored(transaction.stored)
        return answer.encode()

    def _hello(self, hello: Command) -> bytes:
        if not hello.argument:
            return NAME_MISSING.encode(to_ehlo=True)
        self.forget()
        self._helo = hello.argument.decode("utf-8", "backslashreplace")
        name = self._maildir.hostname.encode("ascii")
        if hello.verb == b"HELO":
            self._protocol = "SMTP"
            return b"250 " + name + b"\r\n"
        self._protocol = "ESMTP"
        return ehlo_reply(name, [*_KEYWORDS, b"SIZE %d" % self._bounds.message_octets_max])

    def _mail(self, mail: Command) -> Reply:
        if not self._helo:
            return EHLO_FIRST
        if self._transaction is not None:
            return NESTED_MAIL
        sender = _address(mail, b"FROM:")
        if sender is None:
            return reply.PATH_INVALID
        parameters = _parameters(mail)
        transaction = Transaction(sender, self._bounds.message_octets_max, b"SMTPUTF8" in parameters)
        faults = [fault for p in parameters if (fault := self._parameter_fault(p)) is not None]
        if faults or not transaction.may_name(sender):
            return faults[0] if faults else NEEDS_SMTPUTF8
        self._transaction = transaction
        return SENDER_OK

    def _parameter_fault(self, parameter: bytes) -> Reply | None:
        """
        Return what is wrong with a parameter of MAIL, if anything is.
        """
        if parameter == b"SMTPUTF8" or _BODY.fullmatch(parameter):
            return None
        size = _SIZE.fullmatch(parameter)
        if size is not None:
            return TOO_BIG if int(size[1]) > self._bounds.message_octets_max else None
        return PARAMETER_INVALID if parameter.startswith((b"SIZE=", b"BODY=")) else PARAMETER_UNKNOWN

    def _rcpt(self, rcpt: Command) -> Reply:
        transaction = self._transaction
        if transaction is None or transaction.begun:
            return MAIL_FIRST if transaction is None else CHUNKS_BEGUN
        recipient = _address(rcpt, b"TO:")
        if not recipient:
            return reply.PATH_INVALID
        fault = self._recipient_fault(recipient, _parameters(rcpt), transaction)
        if fault is None:
            transaction.recipients.append(recipient)
        return fault or RECIPIENT_OK

    def _recipient_fault(self, recipient: str, parameters: list[bytes], transaction: Transaction) -> Reply | None:
        """
        Return why *recipient* cannot be one of the transaction's, if so.
        """
        if parameters:
            return PARAMETER_UNKNOWN
        if not transaction.may_name(recipient):
            return NEEDS_SMTPUTF8
        _, at, domain = recipient.rpartition("@")
        # Postmaster needs no domain (RFC 5321 section 4.5.1), and nobody else may go without.
        ours = domain.lower() in self._bounds.domains if at else recipient.lower() == "postmaster"
        if self._bounds.domains and not ours:
            return RELAYING_DENIED
        return TOO_MANY_RECIPIENTS if len(transaction.recipients) >= self._bounds.recipients_max else None

    def _data(self, data: Command) -> Reply:
        if data.argument:
            return NO_ARGUMENT
        transaction = self._transaction
        if transaction is None:
            return MAIL_FIRST
        if transaction.begun:
            return CHUNKS_BEGUN
        if not transaction.recipients:
            return RECIPIENT_FIRST
        transaction.begin(self._maildir, self._envelope(transaction))
        if transaction.fault is not None:
            self._transaction = None
            return transaction.fault
        self._intake = Data(transaction)
        return START_INPUT

    def _bdat(self, bdat: Command) -> Reply | None:
        chunk = command.chunk(bdat.argument)
        if chunk is None:
            return reply.CHUNK_SIZE_INVALID
        octets, last = chunk
        transaction = self._transaction
        if transaction is None or not transaction.recipients:
            self._intake = Refused(octets, MAIL_FIRST if transaction is None else RECIPIENT_FIRST)
        elif transaction.fault is not None:
            self._intake = Refused(octets, reply.RESET_NEEDED)
        else:
            if not transaction.begun:
                transaction.begin(self._maildir, self._envelope(transaction))
            transaction.bound(octets)
            self._intake = Chunk(octets, last, transaction)
        return None

    def _envelope(self, transaction: Transaction) -> Envelope:
        protocol = "UTF8SMTP" if transaction.smtputf8 else self._protocol
        return Envelope(self._helo, self._client, protocol, transaction.sender, tuple(transaction.recipients))

    def _rset(self, rset: Command) -> Reply:
        if rset.argument:
            return NO_ARGUMENT
        self.forget()
        return reply.OK

    def _quit(self, quit_: Command) -> Reply:
        if quit_.argument:
            return NO_ARGUMENT
        self.forget()
        self.closing = True
        return reply.CLOSING


def _address(line: Command, keyword: bytes) -> str | None:
    """
    Return the mailbox behind *keyword*, `None` if there is none.
    """
    well_formed = line.argument.upper().startswith(keyword) and _BRACKETED.fullmatch(line.argument)
    return command.mailbox(line.argument) if well_formed else None


def _parameters(line: Command) -> list[bytes]:
    """
    Return the parameters behind the path of MAIL or RCPT (RFC 5321 section 4.1.1.11), in upper case.
    """
    match = _BRACKETED.fullmatch(line.argument)
    return [] if match is None else match[1].upper().split()


def _always(answer: Reply) -> Callable[[Dialogue, Command], Reply]:
    return lambda _dialogue, _command: answer


_HELLOS = frozenset({b"EHLO", b"HELO"})
_KEYWORDS = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"CHUNKING", b"ENHANCEDSTATUSCODES", b"HELP")
_COMMANDS: Mapping[bytes, Callable[[Dialogue, Command], Reply | None]] = MappingProxyType(
    {
        b"MAIL": Dialogue._mail,  # noqa: SLF001 - the table of its own class
        b"RCPT": Dialogue._rcpt,  # noqa: SLF001
        b"DATA": Dialogue._data,  # noqa: SLF001
        b"BDAT": Dialogue._bdat,  # noqa: SLF001
        b"RSET": Dialogue._rset,  # noqa: SLF001
        b"QUIT": Dialogue._quit,  # noqa: SLF001
        b"NOOP": _always(reply.OK),
        b"HELP": _always(HELP),
        b"VRFY": _always(CANNOT_VERIFY),
        b"EXPN": _always(NOT_IMPLEMENTED),
    }
)
