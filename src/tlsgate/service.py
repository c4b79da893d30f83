"""
The composition root: what `twistd tlsgate` starts.
"""

import signal
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from twisted.application import strports
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore, IReactorTime

from tlsgate import translation
from tlsgate.config import Config, ConfigError, Listener
from tlsgate.net.frontend import Frontend, Gate
from tlsgate.net.greeter import Greeter
from tlsgate.observe.journal import Journal
from tlsgate.options import Options
from tlsgate.smtp.message import BareNewlines
from tlsgate.tls.keeper import IdentityKeeper

__all__ = ["GateService", "Options", "makeService"]

DRAIN_POLL_SECONDS = 0.05


class GateService(MultiService):
    """
    The gate as a service: its listeners, the way to its backends, its certificates, its journal.

    Raises:
        ConfigError: The configuration, or a certificate that it names, cannot be used.
    """

    def __init__(self, options: Options, reactor: IReactorTime) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._options = options
        self._reactor = reactor
        self._config = config = options.config()
        self._journal = _journal(config, self._now)
        law = translation.rulebook(config)
        self._keeper = IdentityKeeper(translation.tls_terms(config, law))
        self._load_certificates()
        fallback = _own_name()
        self._diallers = {
            group.name: translation.dialler(group, config, fallback, reactor) for group in config.backends
        }
        self._gate = Gate(
            reactor,
            law,
            self._record,
            translation.limits(config.limits),
            translation.timeouts(config.limits),
            translation.bounds(config.limits),
            config.hostname,
            fallback,
            BareNewlines(config.message.bare_newlines),
        )
        self._frontends = [self._listen(listener) for listener in config.listeners]

    def privilegedStartService(self) -> None:
        """
        Listen, while we may still use ports below 1024.
        """
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            print(f"tlsgate: {error}", file=sys.stderr)  # noqa: T201 - the operator's terminal
            raise SystemExit(1) from None

    def startService(self) -> None:
        """
        Serve.
        """
        super().startService()  # type: ignore[no-untyped-call]
        for warning in self._config.warnings:
            self._record("warning", {"text": warning})
        for dialler in self._diallers.values():
            Greeter(dialler, self._record).ask()
        for frontend, listener in zip(self._frontends, self._config.listeners, strict=True):
            fields = {"listener": frontend.name, "endpoint": listener.endpoint, "level": listener.level}
            self._record("listening", {**fields, "tls": listener.tls})
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callLater(0, self.reload))

    def stopService(self) -> "Deferred[None]":
        """
        Stop accepting; let mail transactions finish; then close what is left (RFC 5321 section 3.8).
        """
        stopped: Deferred[None] = Deferred()
        closed = super().stopService()  # type: ignore[no-untyped-call]
        deadline = self._reactor.seconds() + self._config.limits.drain_timeout_seconds
        for frontend in self._frontends:
            frontend.drain()

        def wait(_: object = None) -> None:
            left = sum(len(frontend.protocols) for frontend in self._frontends)
            if left and self._reactor.seconds() < deadline:
                self._reactor.callLater(DRAIN_POLL_SECONDS, wait)
                return
            for frontend in self._frontends:
                frontend.abort()
            self._record("stopped", {"sessions_cut_off": left})
            self._journal.close()
            stopped.callback(None)

        (closed if closed is not None else _done()).addBoth(wait)
        return stopped

    def reload(self) -> None:
        """
        Read the configuration and the certificates again, for new sessions; keep the old ones on any fault.
        """
        self._journal.reopen()
        outcome = self._keeper.reload(self._now())
        self._record("reload", {"changed": outcome.changed, "problems": list(outcome.problems)})

    def _listen(self, listener: Listener) -> Frontend:
        frontend = Frontend(
            listener.name,
            self._gate,
            self._keeper,
            self._diallers[listener.backend],
            implicit=listener.tls == "implicit",
            keywords=frozenset(word.upper().encode("ascii") for word in self._config.backend.keywords),
        )
        try:
            strports.service(listener.endpoint, frontend, cast(IReactorCore, self._reactor)).setServiceParent(self)
        except (ValueError, TypeError, KeyError) as error:
            problem = f"{listener.at}.endpoint: {listener.endpoint!r} is not a server endpoint: {error}"
            raise ConfigError((problem,)) from error
        return frontend

    def _load_certificates(self) -> None:
        if not self._keeper.terms.certificates:
            return
        outcome = self._keeper.reload(self._now())
        if not outcome.changed:
            raise ConfigError(tuple(f"tls.certificates: {problem}" for problem in outcome.problems))
        for warning in outcome.warnings:
            self._record("warning", {"text": warning})

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._reactor.seconds(), UTC)

    def _record(self, event: str, fields: Mapping[str, object]) -> None:
        self._journal.write(event, **fields)


def _journal(config: Config, now: object) -> Journal:
    target = config.observe.journal
    try:
        if isinstance(target, Path):
            return Journal.to(target, now)  # type: ignore[arg-type]
        return Journal.to(sys.stderr, now, target)  # type: ignore[arg-type]
    except OSError as error:
        raise ConfigError((f"observe.journal: {error}",)) from error


def _own_name() -> str:
    name = socket.getfqdn()
    return name if name.isascii() and name else "localhost"


def _done() -> "Deferred[None]":
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done


def makeService(options: Options) -> IService:
    """
    Return the service that the options ask for; say what is wrong with them, and exit with status 1, if it cannot be.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - the reactor is chosen by now

    try:
        return GateService(options, reactor)
    except ConfigError as error:
        for problem in error.problems:
            print(f"tlsgate: {problem}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        raise SystemExit(1) from None
