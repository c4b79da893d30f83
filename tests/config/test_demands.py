"""
What may be demanded, and what must be: the floor and the level that backs it up, and port 25.
"""

import pytest

from tests.config.corpus import BASE, TLS, completed
from tlsgate.config import Config, ConfigError, parse


def read(text: str) -> Config:
    """
    Read *text*, with the tables every configuration needs.
    """
    return parse(completed(text), BASE)


def test_the_default_floor_is_tls_1_2_and_legacy_lowers_it() -> None:
    """
    9325-01: TLS 1.0 and 1.1 are not negotiated unless somebody says so.
    """
    assert read("").tls.floor == "TLSv1.2"
    strong = '[[listener]]\nlevel = "strong"\n'
    assert read(strong + TLS + "legacy = true\n").tls.floor == "TLSv1"
    assert read(strong + TLS + 'legacy = true\nfloor = "TLSv1.1"\n').tls.floor == "TLSv1.1"


@pytest.mark.parametrize(
    "level",
    [
        'min_version = "TLSv1.2"',
        'min_version = "TLSv1.3"',
        "aead = true",
        'tls = "offered"\naead = true',
        'min_version = "TLSv1.2"\nenforce = { from = 2999-01-01 }',
    ],
)
def test_legacy_stands_where_a_level_refuses_what_it_lets_in(level: str) -> None:
    listener = '[[listener]]\nlevel = "mine"\n'
    assert read(f'{listener}[[level]]\nname = "mine"\n{level}\n{TLS}legacy = true\n').tls.legacy


@pytest.mark.parametrize(
    "level",
    ['min_version = "TLSv1.1"', "forward_secrecy = true", "min_bits = 128", 'min_version = "TLSv1.2"\nenforce = false'],
)
def test_legacy_falls_where_no_level_does(level: str) -> None:
    text = f'[[listener]]\nlevel = "mine"\n[[level]]\nname = "mine"\n{level}\n{TLS}legacy = true\n'
    with pytest.raises(ConfigError, match=r"tls\.legacy: lets in TLS that is no protection"):
        read(text)


def test_a_level_nobody_uses_does_not_make_legacy_stand() -> None:
    with pytest.raises(ConfigError, match=r"tls\.legacy"):
        read(f'[[level]]\nname = "unused"\nmin_version = "TLSv1.2"\n{TLS}legacy = true\n')


def test_a_level_of_a_rule_makes_legacy_stand() -> None:
    text = f'[[rule]]\nrecipients = ["*"]\nlevel = "strong"\n{TLS}legacy = true\n'
    assert read(text).tls.legacy


@pytest.mark.parametrize(
    "listener",
    [
        'level = "offered"',
        'level = "required"\nacknowledge_rfc3207 = true',
        'level = "audited"',
        'tls = "implicit"\nacknowledge_rfc3207 = true',
    ],
)
def test_port_25_may_offer_audit_or_demand_knowingly(listener: str) -> None:
    """
    3207-03: a publicly referenced server must not demand TLS; whoever says that theirs is none may.
    """
    text = f'[[listener]]\nendpoint = "tcp:25"\n{listener}\n[[level]]\nname = "audited"\nenforce = false\n'
    assert read(text).listeners[0].endpoint == "tcp:25"


@pytest.mark.parametrize("endpoint", ["tcp:25", "tcp:port=25", "tcp6:25", "tcp:25:interface=192.0.2.1"])
@pytest.mark.parametrize(
    "more",
    [
        'level = "required"',
        'level = "strong"',
        'level = "ramped"',
        'level = "offered"\ntls = "implicit"',
        'level = "offered"\n[[rule]]\nclients = ["::/0", "0.0.0.0/0"]\nlevel = "required"',
        'level = "offered"\n[[rule]]\nhelo = ["*"]\nsenders = ["<>", "*"]\nlevel = "required"',
    ],
)
def test_port_25_may_not_demand_tls_of_everybody_unknowingly(endpoint: str, more: str) -> None:
    """
    3207-03: the error says why.
    """
    ramped = '[[level]]\nname = "ramped"\nenforce = { from = 2999-01-01 }\n'
    with pytest.raises(ConfigError, match=r"port 25.*MX records.*RFC 3207 section 4.*acknowledge_rfc3207 = true"):
        read(f'[[listener]]\nendpoint = "{endpoint}"\n{more}\n{ramped}')


@pytest.mark.parametrize(
    "rule",
    [
        'clients = ["192.0.2.0/24"]',
        'recipients = ["clinic.example"]',
        'recipients = ["*"]\nclients = ["192.0.2.0/24"]',
        'sni = ["*"]',
        'listeners = ["submission"]',
    ],
)
def test_port_25_may_demand_tls_of_some(rule: str) -> None:
    """
    3207-23: TLS can be demanded for selected hosts.
    """
    text = f"""
        [[listener]]
        name = "mx"
        endpoint = "tcp:25"
        level = "offered"
        [[listener]]
        name = "submission"
        endpoint = "tcp:587"
        [[rule]]
        {rule}
        level = "required"
    """
    assert read(text).rules[0].level == "required"


def test_an_earlier_rule_for_everybody_settles_what_port_25_demands() -> None:
    text = """
        [[listener]]
        endpoint = "tcp:25"
        level = "strong"
        [[rule]]
        clients = ["0.0.0.0/0", "::/0"]
        level = "offered"
    """
    assert read(text).rules[0].level == "offered"


def test_a_rule_about_mail_does_not_undo_what_the_session_had_to_show() -> None:
    """
    3207-03: sessions are refused before a recipient is named.
    """
    text = """
        [[listener]]
        endpoint = "tcp:25"
        level = "strong"
        [[rule]]
        recipients = ["*"]
        level = "offered"
    """
    with pytest.raises(ConfigError, match=r"listener\[0\]\.level: .*RFC 3207"):
        read(text)
