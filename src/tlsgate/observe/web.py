"""
What the gate tells over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever restarts or routes.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.web.http import SERVICE_UNAVAILABLE, Request
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

_PLAIN = b"text/plain; charset=utf-8"


class _Metrics(Resource):
    """
    All series, in the format that the client asks for.
    """

    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted is typed in part
        self._registry = registry

    def render_GET(self, request: Request) -> bytes:
        """
        Answer GET, and HEAD.
        """
        # Made here and now, not in a thread: the series are few, and every one is told as of the same moment.
        encode, content_type = choose_encoder(request.getHeader("accept") or "")
        request.setHeader(b"content-type", content_type.encode("ascii"))
        return encode(self._registry)


class _Question(Resource):
    """
    Yes (200) or no (503).
    """

    isLeaf = True

    def __init__(self, holds: Callable[[], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted is typed in part
        self._holds = holds

    def render_GET(self, request: Request) -> bytes:
        """
        Answer GET, and HEAD.
        """
        request.setHeader(b"content-type", _PLAIN)
        if self._holds():
            return b"ok\n"
        request.setResponseCode(SERVICE_UNAVAILABLE)
        return b"not ready\n"


class _Root(Resource):
    """
    The pages, and nothing beside them.
    """

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's signature
        """
        Return what is shown where there is nothing: a page without the path that was asked for.
        """
        return notFound()


class _QuietSite(Site):
    """
    A site without a log: else each scrape would be a line among twistd's own.
    """

    noisy = False

    def log(self, request: Request) -> None:
        """
        Keep *request* to ourselves.
        """


def resource(registry: CollectorRegistry, ready: Callable[[], bool] = lambda: True) -> Resource:
    """
    Return the root of the pages: /metrics is made of *registry*, /readyz of *ready*; /healthz says that we answer.
    """
    root = _Root()  # type: ignore[no-untyped-call]  # as above
    root.putChild(b"metrics", _Metrics(registry))
    root.putChild(b"healthz", _Question(lambda: True))
    root.putChild(b"readyz", _Question(ready))
    return root


def site(registry: CollectorRegistry, ready: Callable[[], bool] = lambda: True) -> Site:
    """
    Return the factory to listen with (see `resource`).
    """
    return _QuietSite(resource(registry, ready))  # type: ignore[no-untyped-call]  # as above
