"""
Measure the session core alone: one whole session, told what arrives, with no I/O, no TLS and no clock around it.

    python benchmarks/core.py

What it says is a floor for what the gate can cost, and shows a change of the core that the noise of sockets hides.
"""

import statistics
import time
from datetime import UTC, datetime
from ipaddress import IPv4Address

from tlsgate.policy.facts import Circumstances, TlsFacts
from tlsgate.policy.level import BUILT_IN
from tlsgate.policy.rules import Rulebook
from tlsgate.session.session import Session
from tlsgate.session.state import Terms
from tlsgate.smtp.reply import BackendReply

ROUNDS = 7
SESSIONS_PER_ROUND = 1000
LARGE_SESSIONS_PER_ROUND = 10
CHUNK_OCTETS = 16 * 1024  # what Twisted hands over at a time under TLS: one record
LARGE_MESSAGE_CHUNKS = 256

FACTS = TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, group="X25519MLKEM768")
TERMS = Terms(
    rulebook=Rulebook([], {"mx": BUILT_IN["required"]}),
    circumstances=Circumstances("mx", IPv4Address("192.0.2.1"), datetime(2026, 1, 1, tzinfo=UTC)),
    session_id="0",
    hostname="mx.example.org",
)
LINE = b"the quick brown fox jumps over the lazy dog and the gate lets all of it through\r\n"
SMALL_MESSAGE = [LINE * 50 + b".\r\n"]
CHUNK = (LINE * (CHUNK_OCTETS // len(LINE) + 1))[:CHUNK_OCTETS]
LARGE_MESSAGE = [*[CHUNK] * LARGE_MESSAGE_CHUNKS, b"\r\n.\r\n"]


def run_session(message: list[bytes]) -> None:
    """
    Play one STARTTLS session with one message, and make sure that the message was delivered.
    """
    session = Session(TERMS)
    session.opened()
    session.client_data(b"EHLO client.example\r\n")
    session.client_data(b"STARTTLS\r\n")
    session.tls_established(FACTS)
    session.backend_ready(BackendReply(220, b"220 sink.example ESMTP\r\n"))
    session.client_data(b"EHLO client.example\r\n")
    session.backend_data(b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1073741824\r\n")
    session.client_data(b"MAIL FROM:<client@load.example>\r\n")
    session.backend_data(b"250 2.0.0 ok\r\n")
    session.client_data(b"RCPT TO:<user@sink.example>\r\n")
    session.backend_data(b"250 2.1.5 recipient ok\r\n")
    session.client_data(b"DATA\r\n")
    session.backend_data(b"354 go ahead\r\n")
    for chunk in message:
        session.client_data(chunk)
    session.backend_data(b"250 2.0.0 queued\r\n")
    session.client_data(b"QUIT\r\n")
    session.backend_data(b"221 2.0.0 bye\r\n")
    session.client_lost()
    assert session.delivered == 1, "the session core did not deliver the message"


def microseconds_per_session(message: list[bytes], sessions: int) -> list[float]:
    """
    Return one mean for each round.
    """
    means = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(sessions):
            run_session(message)
        means.append((time.process_time() - began) / sessions * 1e6)
    return means


def told(values: list[float]) -> str:
    """
    Return median and range, in words.
    """
    return f"{statistics.median(values):.1f} us [{min(values):.1f}..{max(values):.1f}]"


def main() -> None:
    """
    Measure and print.
    """
    run_session(LARGE_MESSAGE)
    small = microseconds_per_session(SMALL_MESSAGE, SESSIONS_PER_ROUND)
    large = microseconds_per_session(LARGE_MESSAGE, LARGE_SESSIONS_PER_ROUND)
    chunks = [(whole - statistics.median(small)) / LARGE_MESSAGE_CHUNKS for whole in large]
    print(f"whole session, one message of 4 KiB: {told(small)}")
    print(f"each 16 KiB of a message: {told(chunks)}, that is {CHUNK_OCTETS / statistics.median(chunks):.0f} MB/s")


if __name__ == "__main__":
    main()
