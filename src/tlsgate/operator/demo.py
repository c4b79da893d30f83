"""
`tlsgate demo`: the gate before the embedded mailbox, on this machine only, to send a first mail through.
"""

import shlex
import signal
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import click
from attrs import define, field, frozen
from rich.console import Console
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.internet.task import react

from tlsgate.operator.child import Gate, GateError, Reactor
from tlsgate.operator.dialogue import Bounds
from tlsgate.operator.mailbox import MailboxFactory, Settings
from tlsgate.operator.maildir import Maildir, Stored
from tlsgate.operator.selfsigned import Pair, pair_in
from tlsgate.smtp.reply import printable

HOST = "127.0.0.1"
DOMAINS = frozenset({"example.org", "localhost"})
LEVELS = {
    "offered": "TLS is offered, plaintext is accepted",
    "required": "no mail without TLS",
    "strong": "no mail without TLS 1.2 or later, forward secrecy and authenticated encryption",
}

# Python's own library is all it needs. Its argument is the certificate to trust: the mail goes over verified TLS.
SEND = """\
import smtplib, ssl, sys; s = smtplib.SMTP("localhost", {port}, "localhost"); \
s.starttls(context=ssl.create_default_context(cafile=sys.argv[1])); \
s.sendmail("me@example.org", "you@example.org", "Subject: Hello\\n\\nThrough the gate.\\n"); s.quit()\
"""


class DemoReactor(Reactor, IReactorCore, IReactorFromThreads):
    """
    A reactor that can also be stopped.
    """


@frozen
class Plan:
    """
    What to start: where, and with which level.
    """

    folder: Path
    port: int
    tls_port: int
    level: str


def free_port(wanted: int, option: str) -> int:
    """
    Return *wanted*, or some free port if that is 0.

    Raises:
        GateError: it cannot be had; *option* is what chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise GateError(
                f"port {wanted} on {HOST}: {error.strerror}; choose another with {option} PORT, 0 for any free one"
            ) from error
        port: int = probe.getsockname()[1]
        return port


@define
class Demo:
    """
    The mailbox in this process, the gate in one of its own.
    """

    _plan: Plan
    _pair: Pair
    _console: Console
    _stopping: bool = field(default=False, init=False)

    async def run(self, reactor: DemoReactor) -> None:
        """
        Start everything and go on until the reactor is stopped.

        Raises:
            SystemExit: the gate does not run, or no longer.
        """
        maildir = Maildir(self._plan.folder / "Maildir", "localhost", lambda: datetime.now(UTC))
        maildir.prepare()
        factory = MailboxFactory(maildir, reactor, self._tell_stored, Settings(Bounds(DOMAINS)))
        mailbox_port = cast(IPv4Address, reactor.listenTCP(0, factory, interface=HOST).getHost()).port
        gate = Gate(self._gate_options(mailbox_port), self._plan.folder / "gate.log")
        gate.start()
        reactor.addSystemEventTrigger("before", "shutdown", self._stop, reactor, gate)
        _stop_on_hangup(reactor)
        try:
            await gate.ready(reactor, self._plan.port)
            self._introduce(maildir, gate, mailbox_port)
            await gate.watch(reactor)
        except GateError as error:
            if not self._stopping:
                click.echo(f"Error: {error}", err=True)
                raise SystemExit(1) from error

    def _stop(self, reactor: DemoReactor, gate: Gate) -> Deferred[None]:
        self._stopping = True
        return Deferred.fromCoroutine(gate.stop(reactor))

    def _gate_options(self, mailbox_port: int) -> list[str]:
        plan = self._plan
        return [
            *("--listen", f"tcp:{plan.port}:interface={HOST}"),
            *("--listen-tls", f"tcp:{plan.tls_port}:interface={HOST}"),
            *("--backend", f"tcp:{HOST}:{mailbox_port}"),
            *("--certificate", str(self._pair.certificate), "--key", str(self._pair.key)),
            *("--level", plan.level, "--hostname", "localhost"),
        ]

    def _introduce(self, maildir: Maildir, gate: Gate, mailbox_port: int) -> None:
        plan = self._plan
        certificate = shlex.quote(str(self._pair.certificate))
        send = f"python3 -c {shlex.quote(SEND.format(port=plan.port))} {certificate}"
        swaks = f"swaks --server localhost:{plan.port} --tls --from me@example.org --to you@example.org"
        curl = (
            f"printf 'Subject: Hello\\r\\n\\r\\nThrough the gate.\\r\\n' | curl -sS --cacert {certificate} -T -"
            f" --mail-from me@example.org --mail-rcpt you@example.org smtps://localhost:{plan.tls_port}"
        )
        self._say("tlsgate demo", "bold")
        self._say(f"  listening  {HOST}:{plan.port} (STARTTLS), {HOST}:{plan.tls_port} (implicit TLS)")
        self._say(f"  level      {plan.level}: {LEVELS[plan.level]}")
        self._say(f"  backend    {HOST}:{mailbox_port}, the embedded mailbox, which knows no TLS")
        self._say(f"             and keeps mail for {' and '.join(sorted(DOMAINS))}")
        self._say(f"  mail       {maildir.folder / 'new'}")
        self._say(f"  journal    {gate.log}")
        self._say("\nSend a mail from another terminal; without s.starttls(...) it meets the level:", "bold")
        self._say(f"  {send}")
        self._say("or, if they are installed:", "bold")
        self._say(f"  {swaks}\n  {curl}")
        self._say("\nCtrl-C ends it.", "bold")

    def _tell_stored(self, stored: Stored) -> None:
        recipients = " ".join(f"<{recipient}>" for recipient in stored.envelope.recipients)
        text = printable(f"<{stored.envelope.sender}> to {recipients}", 200)
        self._say(f"stored: {stored.octets} octets from {text} in {stored.path.name}", "green")

    def _say(self, text: str, style: str = "") -> None:
        # A terminal that is gone is no reason to lose mail.
        with suppress(OSError):
            self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _stop_on_hangup(reactor: DemoReactor) -> None:
    """
    End with the terminal, unless `nohup` said otherwise: the gate, a process of its own, would stay.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: reactor.callFromThread(reactor.stop))


@click.command()
@click.option(
    "--port", default=2525, show_default=True, type=click.IntRange(0, 65535), help="STARTTLS; 0: any free one."
)
@click.option(
    "--tls-port", default=2465, show_default=True, type=click.IntRange(0, 65535), help="Implicit TLS; 0: any free one."
)
@click.option("--level", default="required", show_default=True, type=click.Choice(list(LEVELS)))
@click.option(
    "--folder",
    default=".run",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where certificate, mail and journal are kept.",
)
def demo(port: int, tls_port: int, level: str, folder: Path) -> None:
    """
    Run the gate before an embedded mailbox, on this machine only.
    """
    if port == tls_port != 0:
        text = f"port {port} cannot be both: choose another with --port or --tls-port, 0 for any free one"
        raise click.ClickException(text)
    folder = folder.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pair = pair_in(folder, datetime.now(UTC))
        plan = Plan(folder, free_port(port, "--port"), free_port(tls_port, "--tls-port"), level)
    except GateError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from error
    program = Demo(plan, pair, Console())
    react(lambda reactor: program.run(cast(DemoReactor, reactor)))
