"""
What a sound configuration means: defaults, forms of values, and what is only warned of.
"""

import re
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from attrs.exceptions import FrozenInstanceError

from tests.config.corpus import BACKEND, BASE, TLS, completed
from tlsgate.config import Config, ConfigError, Limits, Ramp, parse

# The example of the design, word for word.
EXAMPLE = """
hostname = "mx.example.org"

[[listener]]
name = "mx"
endpoint = "tcp:25"
tls = "starttls"                     # or "implicit"
level = "offered"
proxy_protocol_from = ["10.0.0.0/8"] # a PROXY header (v1, v2) is demanded from these networks, refused from others

[tls]
certificates = [{ chain = "mx.pem", key = "mx.key" }]   # RSA and ECDSA side by side; several names: SNI chooses
floor = "TLSv1.2"
legacy = false
client_ca = "partners-ca.pem"

[[level]]
name = "partner"
tls = "required"
min_version = "TLSv1.2"
min_bits = 128
aead = true
forward_secrecy = true
groups = []
client_certificate = "verified"
client_names = ["mail.partner.example"]
client_fingerprints = []
enforce = true                       # or false, or { from = 2027-01-01, share = 25, reject_from = 2027-03-01 }
help = "https://example.org/tls"     # ends up in the refusal

[[rule]]
clients = ["192.0.2.0/24"]
recipients = ["clinic.example"]
level = "partner"

[backend]
endpoints = ["tcp:127.0.0.1:2525"]
client_address = "xclient"
accept_open_relay = false
tls = "none"                         # "starttls", "implicit": re-encrypted and verified with service-identity
received_header = false

[message]
bare_newlines = "normalize"          # "reject", "pass"

[limits]                             # every bound of section 6; among them
client_timeout_seconds = 300         # next command or message data (RFC 5321 4.5.3.2.7)
handshake_timeout_seconds = 30
backend_timeout_seconds = 300        # connect, greeting, reply to a command
end_of_data_timeout_seconds = 600
sessions = 10000
sessions_per_client = 100            # one /32 or /64

[observe]
journal = "json"                     # one line per session and transaction, to stderr; or a path
metrics = "tcp:9100:interface=127.0.0.1"
posture = "/var/lib/tlsgate/posture.sqlite"
"""


PINNED = f'client_certificate = "verified"\nclient_fingerprints = ["{"a" * 64}"]\n'


def read(text: str) -> Config:
    """
    Read *text*, with the tables every configuration needs.
    """
    return parse(completed(text), BASE)


def test_the_example_of_the_design_is_read() -> None:
    config = parse(EXAMPLE, BASE)
    assert config.hostname == "mx.example.org"
    assert [listener.name for listener in config.listeners] == ["mx"]
    assert config.listeners[0].proxy_protocol_from == (IPv4Network("10.0.0.0/8"),)
    assert config.tls.certificates[0].chain == Path("/etc/tlsgate/mx.pem")
    assert config.tls.client_ca == Path("/etc/tlsgate/partners-ca.pem")
    assert config.levels[0].client_names == ("mail.partner.example",)
    assert config.rules[0].clients == (IPv4Network("192.0.2.0/24"),)
    assert config.backend.client_address == "xclient"
    assert config.observe.posture == Path("/var/lib/tlsgate/posture.sqlite")
    assert config.warnings == ()


def test_the_enforcement_its_comment_proposes_is_read_too() -> None:
    comment = re.search(r"\{ from.*?\}", EXAMPLE)
    assert comment is not None
    ramp = parse(EXAMPLE.replace("enforce = true", f"enforce = {comment[0]}"), BASE).levels[0].enforce
    assert ramp == Ramp(start=datetime(2027, 1, 1, tzinfo=UTC), share=25, reject_from=datetime(2027, 3, 1, tzinfo=UTC))


def test_only_the_backend_is_needed_when_nobody_is_offered_tls() -> None:
    config = parse('[[listener]]\nlevel = "plain"\n[[level]]\nname = "plain"\ntls = "none"\n' + BACKEND, BASE)
    assert config.tls.certificates == ()
    assert not config.levels[0].authenticated


def test_a_backend_and_a_certificate_make_a_gate() -> None:
    config = parse(TLS + BACKEND, BASE)
    (listener,) = config.listeners
    assert (listener.endpoint, listener.tls, listener.level) == ("tcp:2525:interface=127.0.0.1", "starttls", "required")
    assert listener.name == listener.endpoint
    assert config.hostname is None
    assert (config.tls.floor, config.tls.legacy) == ("TLSv1.2", False)
    assert [group.name for group in config.backends] == ["default"]
    assert config.backend.client_address == "none"
    assert not config.backend.accept_open_relay
    assert config.message.bare_newlines == "normalize"
    assert config.limits == Limits()
    assert config.observe.journal == "json"
    assert config.warnings == ()


def test_limits_default_to_what_the_rfc_asks_for() -> None:
    """
    5321-21, 5321-22: five minutes for a client and a backend, ten for the reply to end of data.
    """
    limits = Limits()
    assert limits.client_timeout_seconds >= 300
    assert limits.backend_timeout_seconds >= 300
    assert limits.end_of_data_timeout_seconds >= 600


@pytest.mark.parametrize(("octets", "sound"), [(511, False), (512, True), (65_536, True), (65_537, False)])
def test_a_command_line_may_not_be_shorter_than_the_rfc_says(octets: int, sound: bool) -> None:  # noqa: FBT001 - a column
    """
    5321-19: a command line has at least 512 octets.
    """
    text = f"[limits]\nline_octets_max = {octets}\n"
    if sound:
        assert read(text).limits.line_octets_max == octets
    else:
        with pytest.raises(ConfigError):
            read(text)


def test_a_group_of_a_hundred_recipients_always_fits() -> None:
    """
    5321-19, 2920-11: MAIL, 100 RCPT and DATA may come in one group.
    """
    assert read("[limits]\npipeline_max = 102\n").limits.pipeline_max == 102
    with pytest.raises(ConfigError):
        read("[limits]\npipeline_max = 101\n")


def test_networks_of_both_families_and_single_addresses_are_read() -> None:
    rule = read('[[rule]]\nclients = ["192.0.2.7", "2001:db8::/32", "0.0.0.0/0"]\nlevel = "strong"\n').rules[0]
    assert rule.clients == (IPv4Network("192.0.2.7/32"), IPv6Network("2001:db8::/32"), IPv4Network("0.0.0.0/0"))


def test_names_of_every_form_are_read() -> None:
    text = """
        [[rule]]
        helo = ["printer", "192.168.1.5", "[192.168.1.5]", "[IPv6:2001:db8::1]", "_x.example"]
        sni = ["mx.example.org", "*.tenant.example", "<>"]
        senders = ["<>", "partner.example", "bücher.example"]
        recipients = ["*", ".clinic.example"]
        level = "strong"
    """
    rule = read(text).rules[0]
    assert (len(rule.helo), len(rule.sni), len(rule.senders), len(rule.recipients)) == (5, 3, 3, 2)


def test_a_fingerprint_is_read_with_colons_and_without() -> None:
    digits = "0123456789abcdef" * 4
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper()
    text = f"""
        [[listener]]
        level = "partner"
        [[level]]
        name = "partner"
        client_certificate = "verified"
        client_fingerprints = ["{digits}", "{colons}"]
    """
    assert read(text).levels[0].client_fingerprints == (digits, digits)


def test_a_moment_with_an_offset_is_read_as_utc() -> None:
    text = '[[level]]\nname = "partner"\nenforce = { from = 2027-01-01T00:30:00+01:00 }\n'
    ramp = read(text).levels[0].enforce
    assert ramp == Ramp(start=datetime(2026, 12, 31, 23, 30, tzinfo=UTC))


def test_groups_of_backends_are_read() -> None:
    text = """
        [[listener]]
        backend = "tenant-a"
        [[backend_group]]
        name = "tenant-a"
        endpoints = ["unix:/run/a.sock", "tcp:mail.a.example:25"]
        spread = "least-sessions"
        keywords = ["x-queue"]
        [[rule]]
        sni = ["b.example"]
        backend = "default"
    """
    config = read(text)
    assert [group.name for group in config.backends] == ["default", "tenant-a"]
    assert config.backend_groups[0].keywords == ("X-QUEUE",)


def test_a_journal_is_a_format_or_a_file() -> None:
    assert read('[observe]\njournal = "text"\n').observe.journal == "text"
    assert read('[observe]\njournal = "./gate.log"\n').observe.journal == Path("/etc/tlsgate/gate.log")
    assert read('[observe]\njournal = "/var/log/gate.log"\n').observe.journal == Path("/var/log/gate.log")


def test_a_tree_is_a_value() -> None:
    """
    Equal text gives an equal tree, so that a reload can see that nothing changed; nobody can change it on the way.
    """
    assert parse(EXAMPLE, BASE) == parse(EXAMPLE, BASE)
    assert parse(EXAMPLE, BASE) != parse(EXAMPLE.replace("sessions = 10000", "sessions = 9999"), BASE)
    with pytest.raises(FrozenInstanceError):
        parse(EXAMPLE, BASE).hostname = "other.example"  # type: ignore[misc]


def test_each_table_knows_its_key() -> None:
    config = parse(EXAMPLE, BASE)
    assert [config.tls.at, config.levels[0].at, config.tls.certificates[0].at, config.backend.at] == [
        "tls",
        "level[0]",
        "tls.certificates[0]",
        "backend",
    ]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "[limits]\nclient_timeout_seconds = 60\n",
            "limits.client_timeout_seconds: 60 is less than the 300 that RFC 5321 section 4.5.3.2.7 asks for",
        ),
        (
            "[limits]\nbackend_timeout_seconds = 299\n",
            "limits.backend_timeout_seconds: 299 is less than the 300 that RFC 5321 section 4.5.3.2 asks for",
        ),
        (
            "[limits]\nend_of_data_timeout_seconds = 300\n",
            "limits.end_of_data_timeout_seconds: 300 is less than the 600 that RFC 5321 section 4.5.3.2.6 asks for",
        ),
        ('[[level]]\nname = "partner"\n', 'level[0]: no listener and no rule names level "partner"'),
        (
            '[dns]\nservers = ["127.0.0.1"]\n',
            'dns.servers: nothing is asked of them: no backend has client_name = "dns"',
        ),
        (
            '[[backend_group]]\nname = "a"\nendpoints = ["unix:/run/a.sock"]\n',
            'backend_group[0]: no listener and no rule names backend group "a"',
        ),
        (
            '[[listener]]\nproxy_protocol_from = ["10.0.0.0/8", "0.0.0.0/0"]\n',
            'listener[0].proxy_protocol_from[1]: "0.0.0.0/0" lets every client say it is somebody else',
        ),
        (
            '[[listener]]\nlevel = "partner"\n[[level]]\nname = "partner"\nplaintext_auth = true\n',
            "level[0].plaintext_auth: means nothing where nobody is served in plaintext",
        ),
        (
            f'[[listener]]\nlevel = "p"\n[[level]]\nname = "p"\ntls = "offered"\n{PINNED}',
            "level[0].client_certificate: a client without one is refused inside TLS and served in plaintext",
        ),
    ],
)
def test_what_can_be_used_and_is_odd_is_warned_of(text: str, warning: str) -> None:
    assert read(text).warnings == (warning,)
