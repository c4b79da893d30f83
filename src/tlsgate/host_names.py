"""
The host names of clients, as configured: whose name servers are asked, and for how long.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from tlsgate.config import Config
from tlsgate.config.nameservers import PORT, name_server_address
from tlsgate.net.client_name import ClientNames
from tlsgate.net.nameservers import Nameservers, Server

RESOLV_CONF = Path("/etc/resolv.conf")

# resolv.conf(5): no more are used; and if none is told of, this machine is asked.
SERVERS_MAX = 3
THIS_MACHINE = ("127.0.0.1", PORT)


def client_names(config: Config, reactor: IReactorTime, resolv_conf: Path = RESOLV_CONF) -> ClientNames:
    """
    Return what looks host names up.
    """
    servers = [name_server_address(server) for server in config.dns.servers] or system_servers(resolv_conf)
    return ClientNames(Nameservers(servers, reactor).ask, reactor, config.limits.client_name_timeout_seconds)


def system_servers(resolv_conf: Path) -> list[Server]:
    """
    Return the name servers of this machine.
    """
    try:
        lines = resolv_conf.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return list(_servers(lines))[:SERVERS_MAX] or [THIS_MACHINE]


def _servers(lines: Iterable[str]) -> Iterable[Server]:
    for line in lines:
        match line.split():
            case ["nameserver", host, *_]:
                try:
                    yield str(ip_address(host)), PORT
                except ValueError:
                    continue
