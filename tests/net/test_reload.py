"""
HUP between two octets of a session: it goes on under the law, the floor and the name that it was begun with.

The law of one configuration over the handshake of another would refuse who is let in by both, and let in who is refused
by both.
"""

import json

import pytest
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from tests.net.world import World, world
from tests.support.certificates import self_signed
from tests.support.handshake import client_context

PARTNER = self_signed("mail.partner.example")
PINNED = f"""
[[level]]
name = "partner"
client_certificate = "verified"
client_fingerprints = ["{PARTNER.certificate.fingerprint(hashes.SHA256()).hex()}"]
"""
HELLO = b"EHLO client.example\r\n"


def reload(w: World, *changes: tuple[str, str]) -> None:
    """
    Have the gate take another configuration.
    """
    for old, new in changes:
        assert old in w.config
        w.config = w.config.replace(old, new)
    w.service.reload()
    w.settle()
    assert len(w.records("reloaded")) == 1, w.records("reload-refused")


def test_a_client_that_knew_it_would_be_asked_for_its_certificate_is_asked() -> None:
    """
    The new configuration does not look at certificates any more. The old law still does.
    """
    with world("partner", levels=PINNED) as w:
        before = w.connect()
        reload(w, ('level = "partner"', 'level = "strong"'))
        before.starttls(client_context(certificate=PARTNER))
        assert before.send(HELLO).codes()[-1] == 250
        verdict = json.loads(w.records("verdict")[0])
        assert (verdict["level"], verdict["client_certificate"]) == ("partner", "CN=mail.partner.example")


def test_a_floor_is_lowered_with_the_law_that_refuses_what_it_lets_in() -> None:
    """
    TLS 1.0 is below the one floor, and refused by the level above the other.
    """
    old = client_context(maximum=SSL.TLS1_VERSION)
    with world("required") as w:
        before = w.connect()
        reload(
            w, ('level = "required"', 'level = "strong"'), ("reload_seconds = 0", "reload_seconds = 0\nlegacy = true")
        )
        with pytest.raises(SSL.Error, match="alert protocol version"):
            before.starttls(old)
        after = w.connect().starttls(old)
        assert after.send(HELLO).codes()[-1] == 554


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_who_a_balancer_is_about_to_name_is_awaited_where_it_connected(tls: str) -> None:
    """
    Until the PROXY header is there no session is begun; the listener it came to is the old one all the same.
    """
    with world(tls=tls) as w:
        reload(w, ("acknowledge_rfc3207", 'proxy_protocol_from = ["192.0.2.0/24"]\nacknowledge_rfc3207'))
        waiting = w.connect()
        other = "implicit" if tls == "starttls" else "starttls"
        w.config = w.config.replace('name = "mx"', 'name = "relay"').replace(f'tls = "{tls}"', f'tls = "{other}"')
        w.service.reload()
        w.settle()
        waiting.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n")
        if tls == "starttls":
            assert waiting.codes() == [220]
            waiting.starttls()
        else:
            waiting.handshake()
        assert waiting.send(HELLO).codes()[-1] == 250
        verdict = json.loads(w.records("verdict")[0])
        assert (verdict["listener"], verdict["client"]) == ("mx", "198.51.100.7")


def test_twice_in_a_row_a_port_asked_for_in_other_words_stays_open() -> None:
    """
    The second HUP comes while the port that the first one closes is not free yet: certbot's and logrotate's, say.
    """
    with world() as w:
        w.config = w.config.replace('"tcp:25"', '"tcp:25:interface=127.0.0.1"')
        w.service.reload()
        w.service.reload()
        w.settle()
        assert w.records("listening-failed") == []
        assert w.network.bound == {25}
        assert len(w.records("listening")) == 2


def test_a_level_whose_groups_nobody_knows_does_not_come_into_force() -> None:
    """
    It would refuse everybody. Where one of its groups can be used, the others are only told of.
    """
    level = '[[level]]\nname = "hybrid"\ntls = "required"\ngroups = [{}]\n'
    with world("hybrid", levels=level.format('"P-257", "X25519", "X25519MLKEM768"')) as w:
        (warned,) = w.records("warning")
        assert "level[0].groups[0]: OpenSSL" in warned
        reload(w, ("P-257", "P-258"))
        assert "'P-258'" in w.records("warning")[-1]
        w.config = w.config.replace('"P-258", "X25519", "X25519MLKEM768"', '"P-258"')
        w.service.reload()
        (refused,) = w.records("reload-refused")
        assert "'P-258'; the level would refuse everybody" in refused
        assert w.connect().starttls().send(HELLO).codes()[-1] == 250
