"""
The gate's own first words on a fresh backend connection, before the client's session has it. Pure.

One connection, step by step; what stands in brackets happens if the plan says so:

    [PROXY header, the very first octets]  [implicit TLS]
    <- 220                                 a greeting of 4yz or 5yz is the backend's refusal
    [EHLO, STARTTLS, <- 220, TLS, EHLO]    nothing learnt in plaintext is used after it (RFC 3207 section 4.2)
    [EHLO, XCLIENT ..., <- 220]            once the client is known; each XCLIENT must be accepted: it greets anew
    ready                                  the next octets are the client's

Whatever does not go as planned fails, and closed: a backend that did not hear who the client is would take it for us,
and one that is not reached over the TLS demanded is not reached. Nobody spoke but the gate, so every octet that was not
asked for is an error in the backend, or somebody in between.

The counterpart is `session`, to which the connection belongs once it is ready.
"""

from collections.abc import Callable
from enum import Enum

from attrs import Factory, define, frozen

from tlsgate.session.steps import Failed, Ready, Send, StartTls, Step
from tlsgate.smtp.framing import ReplyError, ReplyReader
from tlsgate.smtp.reply import BACKEND_TLS, BACKEND_UNREACHABLE, BackendReply, printable

QUIT = b"QUIT\r\n"
_REASON_CHARACTERS_MAX = 200  # for one line in the journal


class BackendTls(Enum):
    """
    How TLS starts on a backend connection.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


@frozen
class OpeningPlan:
    """
    What is the same for every connection to a backend.

    *ehlo_name* is the gate's own name. *reply_octets_max* bounds one reply of the backend's.
    """

    ehlo_name: str
    tls: BackendTls = BackendTls.NONE
    reply_octets_max: int = 65_536


class _Awaited(Enum):
    """
    What must come next from the backend.
    """

    CONNECTION = "the connection"
    GREETING = "the greeting"
    EHLO_BEFORE_TLS = "the reply to EHLO, which must offer STARTTLS"
    STARTTLS = "the reply to STARTTLS"
    HANDSHAKE = "the TLS handshake"
    EHLO = "the reply to EHLO"
    CLIENT = "the client's host name"
    XCLIENT = "the reply to XCLIENT"
    NOTHING = "nothing: ready, or failed"


@define
class Opening:
    """
    The opening of one backend connection.

    *proxy_header* is sent first if there is one. *xclient*, if there is one, turns the attributes that the backend
    offers into XCLIENT commands: none at all if the backend cannot be told, `None` until the client is `identified`.
    """

    plan: OpeningPlan
    proxy_header: bytes = b""
    xclient: Callable[[frozenset[str]], list[bytes] | None] | None = None
    _awaited: _Awaited = _Awaited.CONNECTION
    _reader: ReplyReader = Factory(lambda self: ReplyReader(self.plan.reply_octets_max), takes_self=True)
    _offered: frozenset[str] | None = None
    _xclient_commands: list[bytes] = Factory(list)

    def connected(self) -> list[Step]:
        """
        The connection is there.
        """
        steps: list[Step] = [Send(self.proxy_header)] if self.proxy_header else []
        if self.plan.tls is BackendTls.IMPLICIT:
            self._awaited = _Awaited.HANDSHAKE
            return [*steps, StartTls()]
        self._awaited = _Awaited.GREETING
        return steps

    def received(self, data: bytes) -> list[Step]:
        """
        The backend sent *data*, inside TLS once that is established.
        """
        if self._awaited is _Awaited.NOTHING or not data:
            return []
        try:
            replies = self._reader.feed(data)
        except ReplyError as error:
            return self._failed(str(error))
        answered = self._answers.get(self._awaited)
        if answered is None or len(replies) > 1 or (replies and self._reader.pending):
            return self._broken_off("octets nobody asked for", of_client=False)
        return answered(replies[0]) if replies else []

    def tls_established(self, fault: str | None) -> list[Step]:
        """
        The handshake is complete; *fault* says why it does not suffice, `None` that it does.

        A handshake that breaks off is a connection `lost`.
        """
        if self._awaited is not _Awaited.HANDSHAKE:
            return []
        if fault is not None:
            return self._hung_up(f"TLS does not suffice: {printable(fault, _REASON_CHARACTERS_MAX)}")
        if self.plan.tls is BackendTls.IMPLICIT:
            self._awaited = _Awaited.GREETING
            return []
        # A new reader: whatever it held came in plaintext.
        self._reader = ReplyReader(self.plan.reply_octets_max)
        return self._send_ehlo(_Awaited.EHLO)

    def identified(self) -> list[Step]:
        """
        It is known now who the client is.
        """
        return self._introduce() if self._awaited is _Awaited.CLIENT else []

    def lost(self, reason: str) -> list[Step]:
        """
        The connection is lost.
        """
        # Some close without a word to whom they do not want (tcpserver).
        return self._broken_off(reason, of_client=self._judges_client)

    def overdue(self) -> list[Step]:
        """
        The time for the opening is over.
        """
        return self._broken_off("no answer in time", of_client=False)

    @property
    def _answers(self) -> dict[_Awaited, Callable[[BackendReply], list[Step]]]:
        return {
            _Awaited.GREETING: self._greeting,
            _Awaited.EHLO_BEFORE_TLS: self._ehlo_before_tls,
            _Awaited.STARTTLS: self._starttls,
            _Awaited.EHLO: self._ehlo,
            _Awaited.XCLIENT: self._xclient,
        }

    def _greeting(self, reply: BackendReply) -> list[Step]:
        if reply.code != 220:
            return self._hung_up(f"greeted with {reply.told()}", reply)
        if self.plan.tls is BackendTls.STARTTLS:
            return self._send_ehlo(_Awaited.EHLO_BEFORE_TLS)
        if self.xclient is not None:
            return self._send_ehlo(_Awaited.EHLO)
        return self._ready(reply)

    def _ehlo_before_tls(self, reply: BackendReply) -> list[Step]:
        if reply.code != 250:
            return self._hung_up(f"answered EHLO with {reply.told()}", reply)
        if "STARTTLS" not in _keywords(reply):
            return self._hung_up("does not offer STARTTLS")
        self._awaited = _Awaited.STARTTLS
        return [Send(b"STARTTLS\r\n")]

    def _starttls(self, reply: BackendReply) -> list[Step]:
        if reply.code != 220:
            return self._hung_up(f"answered STARTTLS with {reply.told()}", reply)
        self._awaited = _Awaited.HANDSHAKE
        return [StartTls()]

    def _ehlo(self, reply: BackendReply) -> list[Step]:
        if reply.code != 250:
            return self._hung_up(f"answered EHLO with {reply.told()}", reply)
        if self.xclient is None:
            return self._ready(self._greeting_inside_tls(reply))
        self._offered = _keywords(reply).get("XCLIENT")
        return self._introduce()

    def _introduce(self) -> list[Step]:
        if self.xclient is None or self._offered is None:
            return self._hung_up("does not offer XCLIENT (to us)")
        if (commands := self.xclient(self._offered)) is None:
            self._awaited = _Awaited.CLIENT
            return []
        self._xclient_commands = commands
        return self._next_xclient() if commands else self._hung_up("offers XCLIENT without ADDR")

    def _next_xclient(self) -> list[Step]:
        self._awaited = _Awaited.XCLIENT
        command, *self._xclient_commands = self._xclient_commands
        return [Send(command)]

    def _xclient(self, reply: BackendReply) -> list[Step]:
        if reply.code != 220:
            return self._hung_up(f"answered XCLIENT with {reply.told()}", reply)
        return self._next_xclient() if self._xclient_commands else self._ready(reply)

    def _send_ehlo(self, awaited: _Awaited) -> list[Step]:
        self._awaited = awaited
        return [Send(f"EHLO {self.plan.ehlo_name}\r\n".encode("ascii"))]

    def _greeting_inside_tls(self, reply: BackendReply) -> BackendReply:
        """
        Return a greeting in the name the backend gave in its EHLO *reply*: the one it sent came in plaintext. Only the
        name: many servers go on with the address of the one they greet, which is ours.
        """
        name = reply.lines()[0].split(b" ")[0] or self.plan.ehlo_name.encode("ascii")
        return BackendReply(220, b"220 " + name + b" ESMTP\r\n")

    def _ready(self, greeting: BackendReply) -> list[Step]:
        self._awaited = _Awaited.NOTHING
        return [Ready(greeting)]

    def _hung_up(self, log_reason: str, answered: BackendReply | None = None) -> list[Step]:
        """
        Fail while the channel is in order: with QUIT, unless what the backend *answered* was 421, which closes it.
        """
        code = 0 if answered is None else answered.code
        politely: list[Step] = [] if code == 421 else [Send(QUIT)]
        of_ours = self._awaited is _Awaited.XCLIENT and code in _REFUSED_OF_OURS
        refused = self._judges_client and code >= 400 and not of_ours
        value = of_ours and code == _VALUE_REFUSED
        return politely + self._failed(log_reason, answered if refused else None, of_client=refused or value)

    def _broken_off(self, reason: str, *, of_client: bool) -> list[Step]:
        if self._awaited is _Awaited.NOTHING:
            return []
        told = f"{printable(reason, _REASON_CHARACTERS_MAX)}, while {self._awaited.value} was awaited"
        # How long its name is looked for is the client's doing, and no backend waits for ever.
        return self._failed(told, of_client=of_client or self._awaited is _Awaited.CLIENT)

    @property
    def _judges_client(self) -> bool:
        # A greeting that comes before XCLIENT is about us.
        return self._awaited is (_Awaited.GREETING if self.xclient is None else _Awaited.XCLIENT)

    def _failed(self, log_reason: str, refusal: BackendReply | None = None, *, of_client: bool = False) -> list[Step]:
        reply = BACKEND_TLS if self._awaited in _ON_THE_WAY_TO_TLS else BACKEND_UNREACHABLE
        self._awaited = _Awaited.NOTHING
        return [Failed(reply, log_reason, refusal, of_client)]


# The answer to XCLIENT may refuse the client, but for those codes: they say that our command was at fault, or is not
# ours to give (XCLIENT_README: 501, 503, 550). The client has nothing to do with that.
_REFUSED_OF_OURS = frozenset({500, 501, 502, 503, 504, 550})
_VALUE_REFUSED = 501  # such as an IPv6 address where the backend has no IPv6: another client's may do
_ON_THE_WAY_TO_TLS = frozenset({_Awaited.EHLO_BEFORE_TLS, _Awaited.STARTTLS, _Awaited.HANDSHAKE})


def _keywords(reply: BackendReply) -> dict[str, frozenset[str]]:
    """
    Return the EHLO keywords of *reply* with their parameters, in upper case (RFC 5321 section 4.1.1.1).
    """
    lines = [line.decode("latin-1").upper().split() for line in reply.lines()[1:]]
    return {words[0]: frozenset(words[1:]) for words in lines if words}
