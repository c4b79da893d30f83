"""
Endpoint descriptions of Twisted ("tcp:25:interface=192.0.2.1"), checked as far as that needs no reactor.

What is wrong with one is told here, with its key, instead of by a traceback when the service starts.
"""

import re
from collections.abc import Iterator

from tlsgate.config.faults import Fault, shown
from tlsgate.config.values import is_dns_name, is_ip_address

PORT_MAX = 65_535
_TWO_PARTS = 2
# What people write who have not met Twisted's descriptions.
_HOST_AND_PORT = re.compile(
    r"(?!(?:tcp6?|unix|systemd|ssl|tls|haproxy):)(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):(?P<port>[0-9]{1,5})"
)
_SERVER_OPTIONS = {
    "tcp": {"port", "interface", "backlog"},
    "tcp6": {"port", "interface", "backlog"},
    "unix": {"address", "mode", "backlog", "lockfile"},
    "systemd": {"domain", "index", "name"},
}
_CLIENT_OPTIONS = {
    "tcp": {"host", "port", "timeout", "bindAddress"},
    "unix": {"path", "timeout", "lockfile"},
}
_NUMBERS = {"backlog": 10, "timeout": 10, "lockfile": 10, "index": 10, "mode": 8}


def split(description: str) -> tuple[str, list[str], dict[str, str]]:
    """
    Take an endpoint description apart, as Twisted does: ":" separates, "=" names, a backslash takes the next literally.

    Returns:
        The kind ("tcp"), the arguments without a name, the arguments with one.

    Raises:
        Fault: It ends in a backslash.
    """
    pieces: list[list[str]] = [[""]]
    letters = iter(description)
    for letter in letters:
        if letter == ":":
            pieces.append([""])
        elif letter == "=" and len(pieces[-1]) == 1:
            pieces[-1].append("")
        else:
            pieces[-1][-1] += _next(letters, description) if letter == "\\" else letter
    unnamed = [piece[0] for piece in pieces if len(piece) == 1]
    named = {piece[0]: piece[1] for piece in pieces if len(piece) == _TWO_PARTS}
    return unnamed[0] if unnamed else "", unnamed[1:], named


def _next(letters: Iterator[str], description: str) -> str:
    for letter in letters:
        return letter
    raise Fault(f"{shown(description)} ends in a backslash")


def listening_port(description: str) -> int | None:
    """
    Return the TCP port a checked server endpoint listens on, `None` where it is no TCP endpoint.
    """
    kind, unnamed, named = split(description)
    if kind not in {"tcp", "tcp6"}:
        return None
    return int(named.get("port", unnamed[0] if unnamed else "0"))


def backend_address(description: str) -> tuple[str, int]:
    """
    Return host and port that a checked client endpoint of the kind "tcp" connects to.
    """
    _, unnamed, named = split(description)
    # Either may be named, and what is not comes in this order.
    rest = iter(unnamed)
    host = named["host"] if "host" in named else next(rest)
    return host, int(named["port"] if "port" in named else next(rest))


def backend_host(description: str) -> str | None:
    """
    Return the host a checked client endpoint connects to, `None` for a UNIX socket.
    """
    kind, unnamed, named = split(description)
    return named.get("host", unnamed[0] if unnamed else "") if kind == "tcp" else None


def server_endpoint(description: str) -> str:
    """
    Check the description of an endpoint to listen on.

    Raises:
        Fault: Twisted would not understand it, or it would do something tlsgate does itself.
    """
    if re.fullmatch(r":?[0-9]{1,5}", description):
        raise Fault(f'{shown(description)} is not an endpoint; write "tcp:{description.lstrip(":")}"')
    if match := _HOST_AND_PORT.fullmatch(description):
        raise Fault(f"{shown(description)} is not an endpoint; write {_as_server(match['host'], match['port'])}")
    kind, unnamed, named = split(description)
    if kind in {"ssl", "tls"}:
        raise Fault(f'{shown(description)} would bring a TLS of its own; write "tcp:PORT", with tls = "implicit"')
    if kind == "haproxy":
        raise Fault(f'{shown(description)} reads PROXY headers itself; write "tcp:PORT", with proxy_protocol_from')
    _check_options(description, _SERVER_OPTIONS, 'such as "tcp:25"')
    match kind:
        case "tcp" | "tcp6":
            _check_port(description, _single(description, unnamed, named, "port"), least=0)
            _check_interface(description, kind, named.get("interface"))
        case "unix":
            _check_socket_path(description, _single(description, unnamed, named, "address"))
        case _:
            _check_systemd(description, unnamed, named)
    return description


def client_endpoint(description: str) -> str:
    """
    Check the description of an endpoint to connect to.

    Raises:
        Fault: Twisted would not understand it, or it would do something tlsgate does itself.
    """
    if match := _HOST_AND_PORT.fullmatch(description):
        raise Fault(f"{shown(description)} is not an endpoint; write {_as_client(match['host'], match['port'])}")
    kind, unnamed, named = split(description)
    if kind in {"ssl", "tls"}:
        raise Fault(f'{shown(description)} would bring a TLS of its own; write "tcp:HOST:PORT", with tls = "implicit"')
    _check_options(description, _CLIENT_OPTIONS, 'such as "tcp:127.0.0.1:2525"')
    if kind == "unix":
        _check_socket_path(description, _single(description, unnamed, named, "path"))
        return description
    host, port = _host_and_port(description, unnamed, named)
    _check_host(description, host)
    _check_port(description, port, least=1)
    return description


def _as_server(host: str, port: str) -> str:
    """
    Return the endpoint somebody meant who wrote an address and a port.
    """
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    if not is_ip_address(address):
        return shown(f"tcp:{port}")
    return shown(f"tcp:{port}:interface={_escaped(address)}")


def _as_client(host: str, port: str) -> str:
    """
    Return the endpoint somebody meant who wrote a host and a port.
    """
    address = host.strip("[]") or "127.0.0.1"
    return shown(f"tcp:{_escaped(address)}:{port}")


def _check_options(description: str, known: dict[str, set[str]], example: str) -> None:
    kind, unnamed, named = split(description)
    if kind not in known:
        kinds = ", ".join(known)
        raise Fault(f"{shown(description)} is not an endpoint: its kind is not one of {kinds}; {example}")
    for option, value in named.items():
        if option not in known[kind]:
            options = ", ".join(sorted(known[kind]))
            raise Fault(f"{shown(description)} has the option {shown(option)}; {kind} knows {options}")
        if option in _NUMBERS and not re.fullmatch(rf"[0-{_NUMBERS[option] - 1}]{{1,9}}", value):
            raise Fault(f"{shown(description)} has the {option} {shown(value)}, which is not a number")
    if kind != "systemd" and not unnamed and not named:
        raise Fault(f"{shown(description)} says only its kind; write more, {example}")


def _single(description: str, unnamed: list[str], named: dict[str, str], option: str) -> str:
    """
    Return the one argument an endpoint must have, with or without its name.
    """
    found = [*unnamed, *([named[option]] if option in named else [])]
    if len(found) != 1:
        hint = "; an address is written interface=ADDRESS" if option == "port" and len(found) == _TWO_PARTS else ""
        hint = hint or _colon_hint(found)
        raise Fault(f"{shown(description)} has {len(found)} values where one {option} belongs{hint}")
    return found[0]


def _host_and_port(description: str, unnamed: list[str], named: dict[str, str]) -> tuple[str, str]:
    host = [named["host"]] if "host" in named else unnamed[:1]
    rest = unnamed if "host" in named else unnamed[1:]
    port = [*rest, *([named["port"]] if "port" in named else [])]
    if len(host) != 1 or len(port) != 1:
        raise Fault(f'{shown(description)} is not "tcp:HOST:PORT"{_colon_hint([*host, *port])}')
    return host[0], port[0]


def _colon_hint(found: list[str]) -> str:
    return "; in an IPv6 address write \\: for each colon" if len(found) > _TWO_PARTS else ""


def _check_port(description: str, port: str, least: int) -> None:
    if not re.fullmatch(r"[0-9]{1,5}", port) or not least <= int(port) <= PORT_MAX:
        raise Fault(
            f"{shown(description)} has the port {shown(port)}, which is not a number from {least} to {PORT_MAX}"
        )


def _check_interface(description: str, kind: str, interface: str | None) -> None:
    if interface is None:
        return
    if not is_ip_address(interface):
        raise Fault(f"{shown(description)} has the interface {shown(interface)}, which is not an IP address")
    if kind == "tcp6" and ":" not in interface:
        raise Fault(f'{shown(description)} has an IPv4 interface; write "tcp" instead of "tcp6"')


def _check_socket_path(description: str, path: str) -> None:
    if not path.startswith("/"):
        raise Fault(f"{shown(description)} needs the whole path of the socket, from / on")


def _check_systemd(description: str, unnamed: list[str], named: dict[str, str]) -> None:
    if unnamed or named.get("domain") not in {"INET", "INET6", "UNIX"} or ("index" in named) == ("name" in named):
        raise Fault(
            f"{shown(description)} is not a systemd socket; "
            'write "systemd:domain=INET:name=NAME" (or INET6, UNIX; or index=0)'
        )


def _check_host(description: str, host: str) -> None:
    if not is_ip_address(host) and not is_dns_name(host):
        raise Fault(f"{shown(description)} has the host {shown(host)}, which is neither a name nor an IP address")


def _escaped(address: str) -> str:
    return address.replace(":", "\\:")
