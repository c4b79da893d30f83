"""
Name servers as a configuration tells them: an IP address, and a port unless it is 53.
"""

import re
from ipaddress import ip_address

from tlsgate.config.faults import Fault, shown
from tlsgate.config.values import is_ip_address

PORT = 53
PORT_MAX = 65_535

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


def name_server_address(checked: str) -> tuple[str, int]:
    """
    Return address and port of a checked name server.
    """
    host, _, port = checked.rpartition(":")
    return host.strip("[]"), int(port)
