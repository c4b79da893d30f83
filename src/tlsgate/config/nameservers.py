"""
Name servers as a configuration tells them, or this machine: an IP address, and a port unless it is 53.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

from tlsgate.config.faults import Fault, shown
from tlsgate.config.values import is_ip_address

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
PORT_MAX = 65_535

# resolv.conf(5): no more are used; and if none is told of, this machine is asked.
SERVERS_MAX = 3
THIS_MACHINE = ("127.0.0.1", PORT)

_SERVER = re.compile(r"(?:\[(?P<literal>[^\[\]]*)\]|(?P<address>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")


def name_server(text: str) -> str:
    """
    Check a name server: "192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353".

    Returns:
        Its address and its port, as in the last form.
    """
    match = _SERVER.fullmatch(text)
    host = text if match is None else match["literal"] or match["address"]
    port = PORT if match is None else int(match["port"] or PORT)
    if not is_ip_address(host):
        raise Fault(f'{shown(text)} is not the address of a name server, such as "192.0.2.53" or "[2001:db8::53]:5353"')
    if not 1 <= port <= PORT_MAX:
        raise Fault(f'{shown(text)} has the port "{port}", which is not a number from 1 to {PORT_MAX}')
    return f"[{ip_address(host)}]:{port}"


def servers_of(checked: Iterable[str], resolv_conf: Path = RESOLV_CONF) -> list[tuple[str, int]]:
    """
    Return address and port of each of the *checked* servers; if there are none, of those of this machine.
    """
    told = [server.rpartition(":") for server in checked]
    return [(host.strip("[]"), int(port)) for host, _, port in told] or _system_servers(resolv_conf)


def _system_servers(resolv_conf: Path) -> list[tuple[str, int]]:
    try:
        lines = resolv_conf.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return list(_read(lines))[:SERVERS_MAX] or [THIS_MACHINE]


def _read(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        match line.split():
            case ["nameserver", host, *_] if is_ip_address(host):
                yield str(ip_address(host)), PORT
