"""
The composition root: what `twistd tlsgate` starts.
"""

import signal
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import TextIO, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorFromThreads, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger, LoggingFile

from tlsgate.assembly import Assembly, assemble
from tlsgate.config import Config, ConfigError, Listener
from tlsgate.descriptors import make_room
from tlsgate.draining import drain
from tlsgate.net.frontend import Frontend
from tlsgate.net.prober import Prober
from tlsgate.net.wire import cancel
from tlsgate.observe.web import site
from tlsgate.options import Options
from tlsgate.ports import Port, PortError
from tlsgate.relay_guard import refuse_open_relays, watch_open_relays
from tlsgate.witness import Witness

__all__ = ["GateService", "Options", "makeService"]

NO_POSTURE = "observe.posture: this version keeps no posture database; nothing is written to it"
NOT_REOPENED = "observe.journal: the file cannot be opened anew; entries go on to the old one"


class GateService(MultiService):
    """
    The gate as a service: its listeners, the way to its backends, its certificates, its journal.

    *read* returns the configuration; it is asked again on reload. *terminal* takes the journal where that has no file,
    and last words; by default it is standard error.

    Raises:
        ConfigError: The configuration, or a certificate that it names, cannot be used.
    """

    def __init__(self, read: Callable[[], Config], reactor: IReactorTime, terminal: TextIO | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted is typed in part
        self._read = read
        self._reactor = reactor
        self._terminal = terminal or sys.stderr
        # Until we serve, HUP is remembered: it would end the process, and backends may have to be waited for.
        self._hung_up = False
        signal.signal(signal.SIGHUP, self._remember_hangup)
        config = read()
        self._witness = Witness.of(config, self._now, self._terminal)
        self._assembly = assemble(config, reactor, self._witness.record, _own_name())
        outcome = self._assembly.identities.load(self._now())
        if not outcome.changed:
            raise ConfigError(tuple(f"tls: {problem}" for problem in outcome.problems))
        self._witness.know(config)
        cleared, doubts = refuse_open_relays(config)
        watch_open_relays(self._assembly, cleared)
        self._witness.metrics.watch("sessions_open", "Sessions now", lambda: self._assembly.gate.limits.sessions)
        dropped = "Entries that could not be written"
        self._witness.metrics.watch("journal_entries_dropped", dropped, lambda: self._witness.journal.dropped)
        posture = () if config.observe.posture is None else (NO_POSTURE,)
        room = make_room(config.limits.sessions)
        self._witness.warn((*outcome.warnings, *config.warnings, *self._assembly.warnings, *doubts, *posture, *room))
        self._witness.metrics.certificates(self._assembly.identities.expiries())
        # By endpoint: all else about a listener may change while its port stays open.
        self._listening: dict[str, tuple[Frontend, Port]] = {}
        self._past: list[Frontend] = []  # no more listened at, but their sessions may go on
        self._closing: set[Deferred[object]] = set()  # ports that are not free yet
        for listener in config.listeners:
            self._listen(listener)
        if config.observe.metrics is not None:
            ready = self._any_backend_up
            self._serve(
                "observe.metrics", config.observe.metrics, cast(Factory, site(self._witness.metrics.registry, ready))
            )
        self._probers = [Prober(dialler) for dialler in self._assembly.diallers.values()]
        self._watch: IDelayedCall | None = None
        self._telling: IDelayedCall | None = None

    @property
    def config(self) -> Config:
        """
        The configuration in force.
        """
        return self._assembly.config

    def privilegedStartService(self) -> None:
        """
        Listen, while we may still use ports below 1024.
        """
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except PortError as error:
            print(f"tlsgate: {error}", file=self._terminal)
            # It has to go up to twistd, which waits for ever for a daemon that just exits; and twistd lets it through
            # to Python, which would show a traceback.
            sys.excepthook = _without_traceback
            raise

    def startService(self) -> None:
        """
        Serve.
        """
        super().startService()  # type: ignore[no-untyped-call]
        # The handler of a signal may run anywhere; the reactor's own thread does the work.
        reactor = cast(IReactorFromThreads, self._reactor)
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(self.reload))
        if self._hung_up:
            reactor.callFromThread(self.reload)
        # Who waits for these lines may send a signal then: it is heeded from the reactor's first turn on.
        self._telling = self._reactor.callLater(0, self._tell_listening, *self.config.listeners)
        for prober in self._probers:
            prober.start()
        self._watch_files()

    def stopService(self) -> "Deferred[None]":
        """
        Stop accepting; let mail transactions finish; then close what is left (RFC 5321 section 3.8).

        A further signal ends the waiting.
        """
        cancel(self._watch)
        cancel(self._telling)
        for prober in self._probers:
            prober.stop()
        frontends = [*self._past, *(frontend for frontend, _ in self._listening.values())]
        closed = maybeDeferred(super().stopService)
        seconds = self.config.limits.drain_timeout_seconds
        return drain(frontends, self._reactor, seconds, closed).addCallback(self._stopped)

    def reload(self) -> None:
        """
        Read the configuration and the certificates again, for new sessions; keep the old ones on any fault.
        """
        if not self.running:
            return  # stopping: there will be no new sessions
        if not self._witness.journal.reopen():
            self._witness.warn((NOT_REOPENED,))
        try:
            config = self._read()
            assembly = assemble(config, self._reactor, self._witness.record, _own_name(), self._assembly)
        except ConfigError as error:
            self._witness.record("reload-refused", {"problems": list(error.problems)})
            return
        outcome = assembly.identities.load(self._now())
        if not outcome.changed:
            problems = [f"tls: {problem}" for problem in outcome.problems]
            self._witness.record("reload-refused", {"problems": problems})
            return
        self._witness.know(config)
        watch_open_relays(assembly, self._assembly.cleared)
        self._witness.warn(
            (*outcome.warnings, *config.warnings, *assembly.warnings, *make_room(config.limits.sessions))
        )
        self._witness.metrics.certificates(assembly.identities.expiries())
        self._put_to_work(assembly)

    # -- inside

    def _stopped(self, cut_off: int) -> None:
        self._witness.record("stopped", {"sessions_cut_off": cut_off})
        self._witness.journal.close()

    def _remember_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hung_up = True

    def _put_to_work(self, assembly: Assembly) -> None:
        assembly.gate.limits = self._assembly.gate.limits.moved_to(assembly.gate.limits)
        for dialler in self._assembly.diallers.values():
            dialler.retire()
        self._assembly = assembly
        self._past = [frontend for frontend in self._past if frontend.protocols]
        for prober in self._probers:
            prober.stop()
        self._probers = [Prober(dialler) for dialler in assembly.diallers.values()]
        for prober in self._probers:
            prober.start()
        self._watch_files_from_now_on()
        wanted = {listener.endpoint: listener for listener in assembly.config.listeners}
        for endpoint in self._listening.keys() - wanted.keys():
            frontend, port = self._listening.pop(endpoint)
            self._past.append(frontend)
            self._close(port)
        for endpoint, (frontend, _) in self._listening.items():
            assembly.renew(frontend, wanted[endpoint])
        # The same port may be asked for in other words: it is free once the old one is closed.
        DeferredList(tuple(self._closing)).addCallback(lambda _: self._listen_anew(assembly, wanted))

    def _close(self, port: IService) -> None:
        closing: Deferred[object] = maybeDeferred(port.disownServiceParent)
        self._closing.add(closing)
        closing.addCallback(lambda _: self._closing.discard(closing))

    def _listen_anew(self, assembly: Assembly, wanted: Mapping[str, Listener]) -> None:
        if assembly is not self._assembly:
            return  # there was another reload meanwhile
        for endpoint, listener in wanted.items():
            if endpoint in self._listening:
                continue
            try:
                self._listen(listener)
                self._tell_listening(listener)
            except (PortError, ConfigError) as error:
                self._witness.record("listening-failed", {"listener": listener.name, "reason": str(error)})
        self._witness.record("reloaded", {})

    def _listen(self, listener: Listener) -> None:
        frontend = self._assembly.frontend(listener)
        port = self._serve(f"{listener.at}.endpoint", listener.endpoint, frontend)
        self._listening[listener.endpoint] = (frontend, port)

    def _serve(self, key: str, endpoint: str, factory: Factory) -> Port:
        port = Port(key, endpoint, factory, cast(IReactorCore, self._reactor))
        try:
            port.setServiceParent(self)  # type: ignore[no-untyped-call]
        except PortError:
            port.disownServiceParent()  # type: ignore[no-untyped-call]
            raise
        return port

    def _watch_files(self) -> None:
        """
        Load certificates again when their files have changed (certbot's renames, a Kubernetes secret's swap).
        """
        outcome = self._assembly.identities.refresh(self._now())
        if outcome is not None:
            event = "certificates-reloaded" if outcome.changed else "certificates-refused"
            self._witness.record(event, {"problems": list(outcome.problems)})
            self._witness.warn(outcome.warnings)
            self._witness.metrics.certificates(self._assembly.identities.expiries())
        self._watch_files_from_now_on()

    def _watch_files_from_now_on(self) -> None:
        cancel(self._watch)
        seconds = self.config.tls.reload_seconds
        self._watch = self._reactor.callLater(seconds, self._watch_files) if seconds else None

    def _tell_listening(self, *listeners: Listener) -> None:
        for listener in listeners:
            fields = {"listener": listener.name, "endpoint": listener.endpoint, "tls": listener.tls}
            self._witness.record("listening", {**fields, "level": listener.level})

    def _any_backend_up(self) -> bool:
        return any(dialler.any_up for dialler in self._assembly.diallers.values())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._reactor.seconds(), UTC)


def _own_name() -> str:
    name = socket.getfqdn()
    return name if name.isascii() and name else "localhost"


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, PortError):
        sys.__excepthook__(kind, error, trace)


def _terminal(options: Options) -> TextIO:
    """
    Return what stands for the operator's terminal: as a daemon we have none, and standard error leads nowhere.
    """
    twistd = options.parent
    if twistd is None or twistd["nodaemon"]:
        return sys.stderr
    return cast(TextIO, LoggingFile(Logger("tlsgate")))


def makeService(options: Options) -> IService:
    """
    Return the service that the options ask for; say what is wrong with them, and exit with status 1, if it cannot be.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - the reactor is chosen by now

    try:
        return GateService(options.config, cast(IReactorTime, reactor), _terminal(options))
    except ConfigError as error:
        for problem in error.problems:
            print(f"tlsgate: {problem}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
