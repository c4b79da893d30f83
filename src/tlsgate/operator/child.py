"""
The gate as a process of its own: started the way an operator starts it, watched, and stopped.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from attrs import define, field
from twisted.internet import defer
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

READY_SECONDS = 30.0
GREETING_SECONDS = 5
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.05
LAST_WORDS_OCTETS = 4000

# What the `twistd` script does; but that script need not be on the PATH.
TWISTD = (sys.executable, "-P", "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")


class GateError(Exception):
    """
    The gate does not run. The text says why, in lines for people.
    """


class Reactor(IReactorTCP, IReactorTime):
    """
    A reactor that can connect and wait.
    """


class _Greeting(Protocol):
    """
    Waits for a server to say 220, and leaves.
    """

    def __init__(self) -> None:
        self.seen: defer.Deferred[bool] = defer.Deferred(lambda _seen: self._leave())
        self._said = b""

    def dataReceived(self, data: bytes) -> None:
        self._said += data
        if b"\n" in self._said and self.transport is not None:
            self.transport.write(b"QUIT\r\n")
            self._leave()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del reason
        self.seen.callback(self._said.startswith(b"220"))

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@define(eq=False)
class _Once(Factory):
    noisy = False

    _protocol: Protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        del addr
        return self._protocol


async def greets(reactor: Reactor, port: int) -> bool:
    """
    Return whether an SMTP server greets on that loopback port.
    """
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=GREETING_SECONDS)
    greeting = _Greeting()
    try:
        await endpoint.connect(_Once(greeting))
        return await greeting.seen.addTimeout(GREETING_SECONDS, reactor)
    except (ConnectError, defer.TimeoutError):
        return False


@define
class Gate:
    """
    `twistd -n tlsgate` with *options*; everything it says goes to the file *log*.
    """

    options: Sequence[str]
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """
        Start the process.

        Raises:
            OSError: that is not possible.
        """
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program with our own options
                [*TWISTD, "tlsgate", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Of its own: Ctrl-C in a terminal must not reach it beside the TERM that we send.
                process_group=0,
            )
        finally:
            os.close(log)

    @property
    def running(self) -> bool:
        """
        Whether the process is there.
        """
        return self._process is not None and self._process.poll() is None

    async def ready(self, reactor: Reactor, port: int) -> None:
        """
        Wait until it greets on *port*.

        Raises:
            GateError: it ended, or does not greet within `READY_SECONDS`.
        """
        deadline = reactor.seconds() + READY_SECONDS
        while not await greets(reactor, port):
            if not self.running:
                raise GateError("the gate could not be started:\n" + self.last_words())
            if reactor.seconds() > deadline:
                raise GateError(f"the gate does not greet on port {port}:\n" + self.last_words())
            await deferLater(reactor, LOOK_SECONDS)

    async def watch(self, reactor: Reactor) -> NoReturn:
        """
        Wait until the process has ended.

        Raises:
            GateError: it has.
        """
        while self.running:
            await deferLater(reactor, LOOK_SECONDS)
        raise GateError("the gate has ended:\n" + self.last_words())

    async def stop(self, reactor: Reactor) -> None:
        """
        Send TERM, wait for the end, and send KILL if it takes more than `STOP_SECONDS`.
        """
        deadline = reactor.seconds() + STOP_SECONDS
        if self._process is not None and self.running:
            self._process.terminate()
            while self.running and reactor.seconds() < deadline:
                await deferLater(reactor, LOOK_SECONDS)
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """
        Return the end of what it said.
        """
        said = self.log.read_bytes()[-LAST_WORDS_OCTETS:].decode("utf-8", "backslashreplace")
        return said.strip() or "(it said nothing)"
