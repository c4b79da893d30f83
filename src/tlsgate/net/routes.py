"""
Which group of backends a session goes to, by listener and by the name the client asks for (SNI).
"""

from collections.abc import Sequence

from attrs import define, frozen

from tlsgate.net.dialler import Dialler
from tlsgate.policy.names import NamePatterns, key_of


@frozen
class Route:
    """
    Sessions whose SNI matches go to that group; *snis* `None` matches every session.
    """

    snis: NamePatterns | None
    dialler: Dialler


@define(eq=False)
class Routes:
    """
    The routes of one listener, in order; the first that matches holds, else the *default*.
    """

    default: Dialler
    routes: Sequence[Route] = ()

    @property
    def after_tls(self) -> bool:
        """
        Whether a client's handshake must be over before a backend is dialled: the SNI chooses it, or it is told of the
        TLS at once.
        """
        by_sni = any(route.snis is not None for route in self.routes)
        return by_sni or self.dialler(None).tells_of_tls

    @property
    def diallers(self) -> tuple[Dialler, ...]:
        """
        Every group that a session may go to.
        """
        return (*(route.dialler for route in self.routes), self.default)

    def dialler(self, sni: str | None) -> Dialler:
        """
        Return the group for a session; *sni* is `None` where there is no TLS.
        """
        for route in self.routes:
            if route.snis is None or (sni is not None and route.snis.match(key_of(sni))):
                return route.dialler
        return self.default
