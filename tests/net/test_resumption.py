"""
Where the law, or the way to the backend, goes by the name in the handshake, no session is resumed under another one.

In TLS 1.2 a name belongs to the session: OpenSSL resumes one whatever name is asked for now, and tells of the name that
was asked for first (RFC 6066 section 3 wants a full handshake instead).
"""

import pytest
from OpenSSL import SSL

from tests.net.world import World, world
from tests.support.handshake import client_connection, client_context, handshake
from tlsgate.policy.facts import TlsFacts
from tlsgate.tls.peer import facts_of

NAMES = [(b"mx.example.org", b"strict.example"), (None, b"strict.example"), (b"strict.example", None)]
BY_LEVEL = '[[rule]]\nsni = ["strict.example"]\nlevel = "strong"\n'
BY_BACKEND = """
[[rule]]
sni = ["strict.example"]
backend = "tenant"
[[backend_group]]
name = "tenant"
endpoints = ["tcp:127.0.0.1:2527"]
accept_open_relay = true
probe_seconds = 0
"""
versions = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLSv1.2", "TLSv1.3"])


def again(w: World, version: int, first: bytes | None, second: bytes | None) -> TlsFacts:
    """
    Return what the gate knows of a client that comes back, and asks for another name.
    """
    identity = w.service._assembly.identities.of("mx").identity
    assert identity is not None
    context = client_context(maximum=version)
    before, after = (client_connection(context=context, sni=name) for name in (first, second))
    assert handshake(identity.connection(), before).established
    session = before.get_session()
    assert session is not None
    after.set_session(session)
    server = identity.connection()
    assert handshake(server, after).established
    return facts_of(server)


@versions
@pytest.mark.parametrize("rule", [BY_LEVEL, BY_BACKEND], ids=["level", "backend"])
@pytest.mark.parametrize(("first", "second"), NAMES)
def test_a_client_is_known_by_the_name_it_asks_for_now(
    version: int, rule: str, first: bytes | None, second: bytes | None
) -> None:
    """
    3207-10: a ticket from before is no way round the rule about the name.
    """
    with world("offered", levels=rule) as w:
        facts = again(w, version, first, second)
        assert (facts.resumed, facts.sni) == (False, (second or b"").decode())


@versions
@pytest.mark.parametrize("rule", ["", BY_LEVEL.replace("[[rule]]", '[[rule]]\nlisteners = ["other"]')])
def test_where_nothing_goes_by_the_name_sessions_are_resumed(version: int, rule: str) -> None:
    """
    Other listeners are no worse for it.
    """
    other = '[[listener]]\nname = "other"\nendpoint = "tcp:26"\n'
    with world("offered", levels=other + rule) as w:
        assert again(w, version, b"mx.example.org", b"mx.example.org").resumed
