"""
Whose name servers are asked for host names: those configured, else the machine's.
"""

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tests.config.corpus import BASE, completed
from tlsgate.config import parse
from tlsgate.config.nameservers import servers_of
from tlsgate.host_names import client_names
from tlsgate.net.nameservers import Nameservers

RESOLV_CONF = """
# generated
domain example.org
search example.org example.net
nameserver 192.0.2.53
nameserver\t2001:DB8::53   # comment
nameserver not.an.address
nameserver
;nameserver 192.0.2.55
options edns0 timeout:30
nameserver fe80::1%eth0
nameserver 192.0.2.54
"""


def asked_by(text: str, resolv_conf: Path) -> list[tuple[str, int]]:
    names = client_names(parse(completed(text), BASE), Clock(), resolv_conf)
    asked = names._ask.__self__  # type: ignore[attr-defined]
    assert isinstance(asked, Nameservers)
    return list(asked.servers)


def test_those_configured_are_asked(tmp_path: Path) -> None:
    text = '[dns]\nservers = ["192.0.2.1", "192.0.2.2:5353", "2001:DB8::53", "[::1]:53"]\n'
    expected = [("192.0.2.1", 53), ("192.0.2.2", 5353), ("2001:db8::53", 53), ("::1", 53)]
    assert asked_by(text, tmp_path / "nowhere") == expected


def test_else_the_machines(tmp_path: Path) -> None:
    """The first three of them, as resolv.conf(5) says."""
    (tmp_path / "resolv.conf").write_text(RESOLV_CONF)
    expected = [("192.0.2.53", 53), ("2001:db8::53", 53), ("fe80::1%eth0", 53)]
    assert asked_by("", tmp_path / "resolv.conf") == expected


@pytest.mark.parametrize("text", ["", "search example.org\n", "nameserver 192.0.2\n", "\0\xff"])
def test_a_machine_that_names_none_is_asked_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "resolv.conf").write_bytes(text.encode("latin-1"))
    assert servers_of((), tmp_path / "resolv.conf") == [("127.0.0.1", 53)]
    assert servers_of((), tmp_path / "nowhere") == [("127.0.0.1", 53)]


def test_the_time_is_that_of_the_limits(tmp_path: Path) -> None:
    config = parse(completed("[limits]\nclient_name_timeout_seconds = 2\n"), BASE)
    assert client_names(config, Clock(), tmp_path).timeout_seconds == 2
