"""
The part of `tlsgate check` that asks the name servers, where host names of clients are to be looked up.
"""

import socket
from collections.abc import Iterator

from twisted.names import dns

from tlsgate.config import Config
from tlsgate.config.nameservers import servers_of
from tlsgate.operator.remarks import Remark, ok, warning

# Every server that answers for all the DNS has an answer to this, and most need to ask nobody for it.
QUESTION = b"1.0.0.127.in-addr.arpa"

TIMEOUT_SECONDS_MAX = 2.0
_OCTETS_MAX = 4_096
_CODES = {dns.EFORMAT: "FORMERR", dns.ESERVER: "SERVFAIL", dns.ENOTIMP: "NOTIMP", dns.EREFUSED: "REFUSED"}


def name_servers(config: Config, timeout_seconds: float) -> Iterator[Remark]:
    """
    Ask each of them, in at most two seconds.
    """
    if all(group.client_name == "none" for group in config.backends):
        return
    for host, port in servers_of(config.dns.servers):
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        trouble = _trouble(host, port, min(timeout_seconds, TIMEOUT_SECONDS_MAX))
        if trouble is None:
            yield ok("dns.servers", f"{where}: answers")
        else:
            text = "without an answer, no client has a host name, and each waits for it"
            yield warning("dns.servers", f"{where}: {trouble}; {text}")


def _trouble(host: str, port: int, timeout_seconds: float) -> str | None:
    """
    Return what is wrong with a server, `None` if it answers.
    """
    question = dns.Message(dns.randomSource(), recDes=1)
    question.queries = [dns.Query(QUESTION, dns.PTR, dns.IN)]
    answer = dns.Message()
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.settimeout(timeout_seconds)
            wire.connect((host, port))
            wire.send(question.toStr())
            answer.fromStr(wire.recv(_OCTETS_MAX))
    except TimeoutError:
        return "does not answer"
    except OSError as error:
        return f"cannot be asked: {error.strerror}"
    except (EOFError, ValueError):
        return "does not answer in the language of the DNS"
    if answer.rCode in (dns.OK, dns.ENAME):
        return None
    return f"answers {_CODES.get(answer.rCode, answer.rCode)}"
