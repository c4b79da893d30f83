"""
The host names of clients, as configured: whose name servers are asked, and for how long.
"""

from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from tlsgate.config import Config
from tlsgate.config.nameservers import RESOLV_CONF, servers_of
from tlsgate.net.client_name import ClientNames
from tlsgate.net.nameservers import Nameservers


def client_names(config: Config, reactor: IReactorTime, resolv_conf: Path = RESOLV_CONF) -> ClientNames:
    """
    Return what looks host names up.
    """
    servers = Nameservers(servers_of(config.dns.servers, resolv_conf), reactor)
    return ClientNames(servers.ask, reactor, config.limits.client_name_timeout_seconds)
