"""
The ports that the gate listens on, each a service of its own, with one line to say when a port cannot be had.
"""

import errno
from typing import cast

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import Factory

from tlsgate.config import ConfigError

_HINTS = {
    errno.EACCES: "; ports below 1024 take root or CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "; is another server, or another gate, running there?",
    errno.EADDRNOTAVAIL: "; no interface of this machine has that address",
}


class PortError(Exception):
    """
    A port cannot be had: somebody else has it, we may not have it, or it has no place.
    """


class Port(StreamServerEndpointService):
    """
    The port at *endpoint*, served by *factory*. *key* is where the configuration asks for it.

    Raises:
        ConfigError: *endpoint* is none.
    """

    # The gate does not start half: a port that cannot be had is told at once, to whoever starts it.
    _raiseSynchronously = True

    def __init__(self, key: str, endpoint: str, factory: Factory, reactor: IReactorCore) -> None:
        try:
            place = serverFromString(reactor, endpoint)
        except (ValueError, TypeError) as error:
            raise ConfigError((f"{key}: {endpoint!r} is not a server endpoint: {error}",)) from error
        except LookupError as error:
            # Descriptors of systemd are counted, or have names.
            raise ConfigError((f"{key}: {endpoint!r}: systemd has handed over no such socket",)) from error
        super().__init__(place, factory)  # type: ignore[no-untyped-call]  # Twisted is typed in part
        self._endpoint = endpoint

    def privilegedStartService(self) -> None:
        """
        Listen.

        Raises:
            PortError: That cannot be.
        """
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except (CannotListenError, OSError) as error:
            # A UNIX socket is refused with the error of its lock file, as it comes.
            cause = error.socketError if isinstance(error, CannotListenError) else error
            number = cast(int | None, getattr(cause, "errno", None))
            reason = getattr(cause, "strerror", None) or str(cause)
            raise PortError(f"cannot listen on {self._endpoint}: {reason}{_HINTS.get(number or 0, '')}") from error
