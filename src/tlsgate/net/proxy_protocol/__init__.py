"""
The PROXY protocol, versions 1 and 2: who the client is, said in the first octets of a connection. Sans-I/O.

The specification is HAProxy's doc/proxy-protocol.txt; section numbers in this package are its. A header is read from
balancers in front of us (`HeaderReader`) and written to backends behind us (`header_v1`, `header_v2`).
"""

from .reading import HeaderReader
from .values import Address, Endpoint, ProxyHeader, ProxyProtocolError, normalized
from .writing import header_v1, header_v2

__all__ = [
    "Address",
    "Endpoint",
    "HeaderReader",
    "ProxyHeader",
    "ProxyProtocolError",
    "header_v1",
    "header_v2",
    "normalized",
]
