"""
The checks of the way to the backends: how they are told of the client, and how they are spoken to.
"""

from tlsgate.config.checked import Checked
from tlsgate.config.endpoints import backend_host
from tlsgate.config.faults import shown
from tlsgate.config.tree import Backend


def check_backend(checked: Checked, backend: Backend) -> None:
    """
    How a backend is told of the client, and how it is spoken to, are possible and mean what they say.
    """
    findings = checked.findings
    if not findings.clean(backend.at):
        return
    hosts = [backend_host(endpoint) for endpoint in backend.endpoints]
    if backend.client_address == "transparent" and None in hosts:
        findings.note(f"{backend.at}.client_address", '"transparent" has no meaning over a UNIX socket')
    check_client_name(checked, backend)
    if backend.tls == "none":
        for key in ("tls_ca", "tls_name", "tls_level"):
            if getattr(backend, key) is not None:
                findings.note(
                    f"{backend.at}.{key}", 'has no meaning with tls = "none"; set tls = "starttls" or "implicit"'
                )
        return
    if None in hosts and backend.tls_name is None:
        findings.note(f"{backend.at}.tls_name", "is missing; a UNIX socket has no name its certificate could show")
    level = checked.levels.get(backend.tls_level or "strong")
    if level is None:
        return
    if level.tls != "required" or level.enforce is not True:
        text = f'{shown(level.name)} does not demand TLS at all times; take a level with tls = "required", enforced'
        findings.note(f"{backend.at}.tls_level", text)
    elif level.client_certificate != "ignored":
        text = f"{shown(level.name)} asks for a client certificate; a backend is a server, its own is always verified"
        findings.note(f"{backend.at}.tls_level", text)


def check_client_name(checked: Checked, backend: Backend) -> None:
    """
    A host name is looked up only where the backend can be told of it.
    """
    if backend.client_name != "none" and backend.client_address != "xclient":
        text = f'{shown(backend.client_name)} has no effect: a host name is told with client_address = "xclient" alone'
        checked.findings.note(f"{backend.at}.client_name", text)
