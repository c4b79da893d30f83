"""
Asks backends for their greeting, and hangs up: whether they are there, and what they call themselves.
"""

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

from tlsgate.net.dialler import Dialler, Target
from tlsgate.net.link import Link
from tlsgate.smtp.reply import BackendReply, Reply

PROBER_SECONDS = 1.0  # the least back-off of a pool


@define(eq=False)
class _Probe:
    """
    One question to one backend. The dialler hears of the outcome itself.
    """

    _dialler: Dialler
    _target: Target
    link: Link = field(init=False)

    def ask(self) -> None:
        self.link = self._dialler.probe(self, self._target)
        self.link.dial()

    def link_ready(self, greeting: BackendReply) -> None:
        self._dialler.met(greeting)
        self.link.write(b"QUIT\r\n")
        self.link.hang_up(politely=True)

    def link_failed(self, reply: Reply, log_reason: str) -> None:
        """
        It is down; the pool knows.
        """

    def link_data(self, data: bytes) -> None:
        """
        Nothing was asked.
        """

    def link_lost(self) -> None:
        """
        Nothing was to be said any more.
        """


@define(eq=False)
class Prober:
    """
    Probes the backends of one group: each once at first, then those that the pool says are due.
    """

    _dialler: Dialler
    _call: IDelayedCall | None = None

    def start(self) -> None:
        """
        Begin.
        """
        for target in self._dialler.pool.keys:
            _Probe(self._dialler, target).ask()
        self._call = self._dialler.clock.callLater(PROBER_SECONDS, self._again)

    def stop(self) -> None:
        """
        Probe no more.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _again(self) -> None:
        clock = self._dialler.clock
        for target in self._dialler.pool.due_for_probe(clock.seconds()):
            _Probe(self._dialler, target).ask()
        self._call = clock.callLater(PROBER_SECONDS, self._again)
