"""
The open-relay guard: does a backend relay for strangers, if they come from the gate's own address?

A mail server trusts some addresses (`mynetworks` and its like) to send mail anywhere, often those of its own machine or
network. Behind a gate that does not convey the client's address, every client comes from the gate's. So the backend is
asked, from that address, whether it would take a message to a domain that is not its own. It is never given one: each
question ends in RSET, and DATA is not in this module.

    MAIL FROM:<>                          a null sender is never refused for its domain
    RCPT TO:<relay-check@example.com>
    MAIL FROM:<relay-check@example.net>   some take no null sender, or no such mail to strangers
    RCPT TO:<relay-check@example.com>
    MAIL FROM:<relay-check@example.net>   only unless both were refused: example.com takes no mail, and a server may
    RCPT TO:<relay-check@[192.0.2.1]>     look that up (RFC 7505) before it asks itself whether to relay

Any positive reply to RCPT means that it relays. A refusal for good (5yz) means that it does not, and so does one for
now (4yz) that speaks of relaying: by default Postfix says 454 to strangers.
"""

import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum

from attrs import frozen

from tlsgate.config import Backend, Config
from tlsgate.operator.call import Call, Manner
from tlsgate.operator.together import together
from tlsgate.operator.wire import CallError, Deadline, Place, connected, places
from tlsgate.smtp.reply import BackendReply

# Servers that make a stranger wait for the greeting (postscreen, greet_pause) take some six seconds; those that look
# up the caller's name in a DNS that does not answer take more.
TIMEOUT_SECONDS = 30.0

CALLS_AT_ONCE = 16

Say = Callable[[bytes], BackendReply]

_RECIPIENT = "relay-check@example.com"
_QUESTIONS = (("", _RECIPIENT), ("relay-check@example.net", _RECIPIENT))
_QUESTION_WITHOUT_DNS = ("relay-check@example.net", "relay-check@[192.0.2.1]")

# About the recipient's or the sender's domain (RFC 7505; RFC 3463: X.1.8), or about our syntax: no word on relaying.
_OFF_THE_POINT = re.compile(rb"(?:556|50[0-9]|555)[ -]|5[0-9][0-9][ -]5\.(?:1\.(?:7|8|10)|5\.[0-9]+|7\.27) ")
# Not our own address, which most servers repeat.
_RELAY = re.compile(rb"relay(?!-check)", re.IGNORECASE)


class Outcome(Enum):
    """
    What is known of a backend; in the order in which one address speaks for the others of the same endpoint.
    """

    RELAYS = "relays for strangers"
    UNCLEAR = "does not say whether it relays for strangers"
    REFUSES = "does not relay for strangers"
    UNREACHABLE = "cannot be asked whether it relays for strangers"


@frozen
class Answer:
    """
    What one backend let us know. *evidence* is one line: what was asked and what it said, or why it said nothing.
    """

    outcome: Outcome
    evidence: str


@frozen
class Finding:
    """
    The answer of the backend at the key path *at* ("backend.endpoints[0]").
    """

    at: str
    endpoint: str
    answer: Answer

    @property
    def outcome(self) -> Outcome:
        """
        What is known of that backend.
        """
        return self.answer.outcome

    def __str__(self) -> str:
        told = f"{self.at}: {self.endpoint} {self.outcome.value}"
        if self.outcome is not Outcome.RELAYS:
            return f"{told} that come from this address ({self.answer.evidence})"
        return (
            f"{told} that come from this address ({self.answer.evidence}); behind the gate every client comes from"
            " this address: set client_address (--client-address) to xclient, proxy-v1, proxy-v2 or transparent, take"
            " this address out of the server's trusted networks (mynetworks), or say accept_open_relay = true"
            " (--accept-open-relay)"
        )


def guarded(group: Backend) -> bool:
    """
    Whether the backends of *group* must be asked.
    """
    return group.client_address == "none" and not group.accept_open_relay


def guard(config: Config, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[Finding, ...]:
    """
    Ask every backend that must be asked, all at once; it takes little longer than *timeout_seconds*.

    A backend that could not be asked, or did not say, may still relay: ask again once it answers.
    """
    ehlo_name = config.hostname or own_name()
    asked = [
        (f"{group.at or 'backend'}.endpoints[{number}]", endpoint, group)
        for group in config.backends
        if guarded(group)
        for number, endpoint in enumerate(group.endpoints)
    ]
    answers = together(lambda entry: ask(entry[1], entry[2], ehlo_name, timeout_seconds), asked, CALLS_AT_ONCE)
    return tuple(Finding(at, endpoint, answer) for (at, endpoint, _), answer in zip(asked, answers, strict=True))


def own_name() -> str:
    """
    Return this machine's name, as it may stand in EHLO.
    """
    name = socket.getfqdn()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,253}", name) else "localhost"


def ask(endpoint: str, group: Backend, ehlo_name: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Answer:
    """
    Ask the backend at one *endpoint* of *group*, at each address it has: an IPv6 address may be trusted, an IPv4 not.

    Never raises: a backend that cannot be asked is an answer, too.
    """
    deadline = Deadline.within(timeout_seconds)
    try:
        manner = Manner.of(group, endpoint, ehlo_name)
        found = places(endpoint)
    except CallError as error:
        return Answer(Outcome.UNREACHABLE, error.reason)
    return gravest([_ask_at(place, manner, deadline) for place in found])


def gravest(answers: Iterable[Answer]) -> Answer:
    """
    Return the answer that counts.
    """
    order = list(Outcome)
    return min(answers, key=lambda answer: order.index(answer.outcome))


def _ask_at(place: Place, manner: Manner, deadline: Deadline) -> Answer:
    try:
        with connected(place, deadline) as wire:
            call = Call(wire, manner)
            call.begin()
            answer = question(call.say)
            call.hang_up()
            return answer
    except CallError as error:
        return Answer(Outcome.UNREACHABLE, f"{place}: {error.reason}")


def question(say: Say) -> Answer:
    """
    Ask whether the server that answers to *say* relays; EHLO has been said.
    """
    answers = [Answer(Outcome.UNCLEAR, "no question was answered")]
    try:
        for sender, recipient in _QUESTIONS:
            answers.append(_single_question(say, sender, recipient))
            if answers[-1].outcome is Outcome.RELAYS:
                return answers[-1]
        if any(answer.outcome is not Outcome.REFUSES for answer in answers[1:]):
            answers.append(_single_question(say, *_QUESTION_WITHOUT_DNS))
    except CallError as error:
        return Answer(Outcome.UNCLEAR, f"{error.reason}; before that: {answers[-1].evidence}")
    told = [answer for answer in answers if answer.outcome is not Outcome.UNCLEAR]
    return gravest(told) if told else answers[-1]


def _single_question(say: Say, sender: str, recipient: str) -> Answer:
    mail = f"MAIL FROM:<{sender}>"
    reply = say(mail.encode("ascii"))
    if not reply.positive:
        # 530: nobody gets further without authentication (RFC 4954 section 6) or TLS.
        outcome = Outcome.REFUSES if reply.code == 530 else Outcome.UNCLEAR
        return Answer(outcome, f"{mail} got {reply.told()}")
    rcpt = f"RCPT TO:<{recipient}>"
    reply = say(rcpt.encode("ascii"))
    # What was answered counts, even if the server hangs up now; the next question will notice.
    with suppress(CallError):
        say(b"RSET")
    return Answer(meaning(reply), f"{rcpt} got {reply.told()}")


def meaning(reply: BackendReply) -> Outcome:
    """
    Return what *reply* to RCPT says about relaying.
    """
    if reply.positive:
        return Outcome.RELAYS
    if reply.code == 530 or _RELAY.search(reply.raw):
        return Outcome.REFUSES
    if reply.code >= 500 and not _OFF_THE_POINT.match(reply.raw):
        return Outcome.REFUSES
    return Outcome.UNCLEAR
