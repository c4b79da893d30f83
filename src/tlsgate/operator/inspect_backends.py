"""
The part of `tlsgate check` that calls the backends.
"""

import socket
from collections.abc import Iterator

from attrs import frozen

from tlsgate.config import Backend, Config
from tlsgate.operator.call import STRANGER_IPV4, Call, Manner
from tlsgate.operator.guard import Answer, Finding, Outcome, own_name, question
from tlsgate.operator.levels import BACKEND_LEVEL, levels
from tlsgate.operator.remarks import Remark, fault, ok, warning
from tlsgate.operator.together import together
from tlsgate.operator.wire import CallError, Deadline, Place, connected, places
from tlsgate.policy.facts import TlsFacts
from tlsgate.policy.level import Level
from tlsgate.smtp.reply import printable
from tlsgate.tls.names import covered

CALLS_AT_ONCE = 16

_TEXT_CHARACTERS_MAX = 300


def backends(config: Config, names_served: tuple[str, ...], timeout_seconds: float) -> Iterator[Remark]:
    """
    Call every backend, all at once; each gets *timeout_seconds*. Yield what was found in their order.

    Without a hostname of its own the gate greets in a backend's name, which should be one of *names_served*.
    """
    ehlo_name = config.hostname or own_name()
    known = levels(config)
    greeting_names = names_served if config.hostname is None else ()
    examinations = [
        _Examination(
            f"{group.at or 'backend'}.endpoints[{number}]",
            endpoint,
            group,
            ehlo_name,
            None if group.tls == "none" else known[group.tls_level or BACKEND_LEVEL],
            timeout_seconds,
            greeting_names,
        )
        for group in config.backends
        for number, endpoint in enumerate(group.endpoints)
    ]
    for group in config.backends:
        yield from _transparency(group)
    for remarks in together(lambda examination: list(examination.remarks()), examinations, CALLS_AT_ONCE):
        yield from remarks


@frozen
class _Examination:
    """
    One endpoint, and how it is looked at. *greeting_names* are those it should greet in; empty: any.
    """

    at: str
    endpoint: str
    group: Backend
    ehlo_name: str
    level: Level | None
    timeout_seconds: float
    greeting_names: tuple[str, ...]

    def remarks(self) -> Iterator[Remark]:
        """
        Call the endpoint at every address it has.
        """
        deadline = Deadline.within(self.timeout_seconds)
        try:
            manner = Manner.of(self.group, self.endpoint, self.ehlo_name)
            found = places(self.endpoint)
        except CallError as error:
            yield fault(self.at, f"{self.endpoint}: {error.reason}")
            return
        for place in found:
            yield from self._call(place, manner, deadline)

    def _call(self, place: Place, manner: Manner, deadline: Deadline) -> Iterator[Remark]:
        where = self.endpoint if str(place) in self.endpoint.replace("\\", "") else f"{self.endpoint} ({place})"
        try:
            with connected(place, deadline) as wire:
                call = Call(wire, manner)
                call.begin()
                yield ok(self.at, f"{where}: {_met(call)}")
                yield from self._on_the_way(call)
                if self.group.client_address != "transparent":
                    yield self._relaying(question(call.say))
                call.hang_up()
        except CallError as error:
            yield fault(self.at, f"{where}: {error.reason}{self._remedy(error)}")

    def _on_the_way(self, call: Call) -> Iterator[Remark]:
        if call.tls is not None:
            unmet = "" if self.level is None else self.level.judge(call.tls).reason
            if unmet:
                yield fault(self.at, f"TLS is verified, and does not suffice: {unmet}")
            else:
                yield ok(self.at, f"TLS is verified: {_negotiated(call.tls)}")
        elif "STARTTLS" in call.keywords and self.group.tls == "none":
            yield ok(self.at, "offers STARTTLS, which is not used (backend.tls) and not shown to clients")
        if call.xclient:
            yield ok(self.at, f"takes XCLIENT with {' '.join(call.xclient)}")
        if self.group.client_address.startswith("proxy"):
            yield ok(self.at, "answers behind a PROXY header")
        name = call.greeting.partition(" ")[2].partition(" ")[0]
        if self.greeting_names and not covered(name, self.greeting_names):
            text = f"greets as {name}, which no certificate is for; set hostname to the name that clients connect to"
            yield warning(self.at, text)

    def _relaying(self, answer: Answer) -> Remark:
        relays = answer.outcome is Outcome.RELAYS
        if self.group.client_address != "none":
            text = f"{self.endpoint} {answer.outcome.value} from elsewhere, such as {STRANGER_IPV4} ({answer.evidence})"
            if relays:
                return fault(self.at, f"{text}: it is an open relay, or does not heed who it is told the client is")
        else:
            text = str(Finding(self.at, self.endpoint, answer)).removeprefix(f"{self.at}: ")
            if relays and not self.group.accept_open_relay:
                return fault(self.at, text)
            if relays:
                return warning(self.at, f"{text.partition('; ')[0]}, which accept_open_relay = true puts up with")
        return ok(self.at, text) if answer.outcome is Outcome.REFUSES else warning(self.at, text)

    def _remedy(self, error: CallError) -> str:
        if "does not offer XCLIENT" in error.reason:
            return "; allow it to this address there (Postfix: smtpd_authorized_xclient_hosts)"
        if self.group.client_address.startswith("proxy"):
            return "; does it expect a PROXY header on this port (Postfix: smtpd_upstream_proxy_protocol = haproxy)?"
        if self.group.client_address == "none" and self.group.tls == "none" and "no answer in time" in error.reason:
            return "; a server that waits for a PROXY header, or for TLS, says nothing"
        return ""


def _transparency(group: Backend) -> Iterator[Remark]:
    if group.client_address != "transparent":
        return
    at = f"{group.at or 'backend'}.client_address"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_TRANSPARENT", 19), 1)
    except OSError as error:
        text = f'"transparent" needs CAP_NET_ADMIN or CAP_NET_RAW, which is not had here: {error.strerror}'
        yield warning(at, f"{text} (the gate may have it)")
    yield ok(at, '"transparent": the backends are called from this machine\'s own address here, and not asked to relay')


def _met(call: Call) -> str:
    keywords = printable(
        " ".join(" ".join((name, *rest)) for name, rest in call.keywords.items()), _TEXT_CHARACTERS_MAX
    )
    return f"{call.greeting}; offers {keywords or 'nothing beyond HELO'}"


def _negotiated(facts: TlsFacts) -> str:
    group = f", {facts.group}" if facts.group else ""
    return printable(f"{facts.version} {facts.cipher}{group}", _TEXT_CHARACTERS_MAX)
