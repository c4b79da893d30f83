"""
The configuration as values: one class per table of the file, one attribute per key, the defaults beside them.

An annotation says everything about a key: its type, and the checks its value must pass. `reading.py` goes by it alone.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from attrs import field, frozen

from tlsgate.config import values
from tlsgate.config.endpoints import client_endpoint, server_endpoint
from tlsgate.config.nameservers import name_server
from tlsgate.config.values import AtLeastOne, Between, Network

TlsVersion = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
Journal = Literal["json", "text"] | Path

# Names for what stands in the metadata of a field.
KEY = "key"  # the key in the file where it is not the attribute's name; `None`: not in the file
EXAMPLE = "example"  # what to write, for somebody who left a needed key out
INSTEAD = "instead"  # what stands in for a needed key that is missing or faulty, so that the checks can go on

_DAY = 86_400

_Name = Annotated[str, values.name]


@frozen(kw_only=True)
class Table:
    """
    A table of the file. *at* is its key path ("level[0]"), for messages about it.
    """

    at: str = field(default="", eq=False, repr=False, metadata={KEY: None})


@frozen(kw_only=True)
class Listener(Table):
    """
    Where clients connect, and what is asked of them if no rule says otherwise.
    """

    endpoint: Annotated[str, server_endpoint] = "tcp:2525:interface=127.0.0.1"
    name: _Name = field()
    tls: Literal["starttls", "implicit"] = "starttls"
    level: str = "required"
    backend: str = "default"
    plaintext_auth: bool = False
    proxy_protocol_from: tuple[Network, ...] = ()
    acknowledge_rfc3207: bool = False
    exempt_recipients: tuple[Annotated[str, values.exempt_recipient], ...] = ()

    @name.default
    def _endpoint_as_name(self) -> str:
        return self.endpoint


@frozen(kw_only=True)
class Certificate(Table):
    """
    A certificate chain, its key, and the OCSP response to staple.
    """

    chain: Path = field(metadata={EXAMPLE: '"mx.pem"'})
    key: Path = field(metadata={EXAMPLE: '"mx.key"'})
    ocsp: Path | None = None


@frozen(kw_only=True)
class Tls(Table):
    """
    What the handshake itself does, whatever level is asked later.
    """

    certificates: tuple[Certificate, ...] = ()
    legacy: bool = False
    floor: TlsVersion = field()
    client_ca: Path | None = None
    client_crls: tuple[Path, ...] = ()
    alpn: Literal["off", "report", "reject"] = "report"
    unknown_sni: Literal["default", "reject"] = "default"
    resumption: bool = True
    reload_seconds: Annotated[int, Between(0, _DAY, "0: only on HUP")] = 60

    @floor.default
    def _floor_for_legacy(self) -> TlsVersion:
        return "TLSv1" if self.legacy else "TLSv1.2"


@frozen(kw_only=True)
class Ramp(Table):
    """
    A level that grows strict: audited until *start*, then 421 for a share of client networks, 554 from *reject_from*.
    """

    start: datetime = field(metadata={KEY: "from", EXAMPLE: "2027-01-31"})
    share: Annotated[int, Between(1, 100, "percent of the client networks")] = 100
    reject_from: datetime | None = None


@frozen(kw_only=True)
class Level(Table):
    """
    A named set of demands on the TLS of a session.
    """

    name: _Name = field(metadata={EXAMPLE: '"partner"'})
    tls: Literal["none", "offered", "required"] = "required"
    min_version: TlsVersion | None = None
    min_bits: Annotated[int, Between(0, 256)] = 0
    aead: bool = False
    forward_secrecy: bool = False
    authenticated: bool = field()
    groups: tuple[Annotated[str, values.key_exchange_group], ...] = ()
    client_certificate: Literal["ignored", "requested", "verified"] = "ignored"
    client_names: tuple[Annotated[str, values.certificate_name], ...] = ()
    client_fingerprints: tuple[Annotated[str, values.fingerprint], ...] = ()
    enforce: bool | Ramp = True
    help: Annotated[str, values.help_url] | None = None
    plaintext_auth: bool = False

    # Only `legacy` lets anonymous suites in at all, and who accepts them should have to say so.
    @authenticated.default
    def _unless_without_tls(self) -> bool:
        return self.tls != "none"


@frozen(kw_only=True)
class Rule(Table):
    """
    Conditions, all of which must hold, and the level (or the backend group) of the sessions that meet them.
    """

    listeners: tuple[str, ...] = ()
    clients: tuple[Network, ...] = ()
    helo: tuple[Annotated[str, values.helo_pattern], ...] = ()
    sni: tuple[Annotated[str, values.sni_pattern], ...] = ()
    senders: tuple[Annotated[str, values.sender_pattern], ...] = ()
    recipients: tuple[Annotated[str, values.domain_pattern], ...] = ()
    level: str | None = None
    backend: str | None = None


@frozen(kw_only=True)
class Backend(Table):
    """
    A group of mail servers behind the gate that stand for each other.
    """

    endpoints: Annotated[tuple[Annotated[str, client_endpoint], ...], AtLeastOne("endpoint")] = field(
        metadata={EXAMPLE: '["tcp:127.0.0.1:2525"]', INSTEAD: ()}
    )
    name: str = field(default="default", metadata={KEY: None})
    client_address: Literal["none", "xclient", "proxy-v1", "proxy-v2", "transparent"] = "none"
    client_name: Literal["none", "dns"] = "none"
    accept_open_relay: bool = False
    tls: Literal["none", "starttls", "implicit"] = "none"
    tls_ca: Path | None = None
    tls_name: Annotated[str, values.certificate_name] | None = None
    tls_level: str | None = None
    received_header: bool = False
    spread: Literal["order", "least-sessions"] = "order"
    probe_seconds: Annotated[int, Between(0, _DAY, "0: no probes")] = 30
    keywords: tuple[Annotated[str, values.ehlo_keyword], ...] = ()


@frozen(kw_only=True)
class BackendGroup(Backend):
    """
    A further group, chosen by listener or by SNI.
    """

    name: _Name = field(metadata={EXAMPLE: '"tenant-a"'})


@frozen(kw_only=True)
class Dns(Table):
    """
    Who is asked for the host names of clients.
    """

    servers: tuple[Annotated[str, name_server], ...] = ()


@frozen(kw_only=True)
class Message(Table):
    """
    What is done to message data.
    """

    bare_newlines: Literal["normalize", "reject", "pass"] = "normalize"


@frozen(kw_only=True)
class Limits(Table):
    """
    Every bound of a session and of the gate. None can be taken away, only moved; 0 means "off" where it says so.
    """

    # How long a client may be silent. RFC 5321 section 4.5.3.2.7 asks for five minutes.
    client_timeout_seconds: Annotated[int, Between(1, _DAY)] = 300
    # A client that hangs within the handshake holds a slot of handshakes_in_flight.
    handshake_timeout_seconds: Annotated[int, Between(1, 600)] = 30
    # Connect, greeting, reply to a command: RFC 5321 sections 4.5.3.2.1 to 4.5.3.2.3 give a server five minutes.
    backend_timeout_seconds: Annotated[int, Between(1, _DAY)] = 300
    # A client that gives up earlier sends again what the backend has accepted: RFC 5321 section 4.5.3.2.6.
    end_of_data_timeout_seconds: Annotated[int, Between(1, _DAY)] = 600
    # A client that sends an octet a minute is never silent, and never done either. 0: off.
    data_rate_octets_per_second_min: Annotated[int, Between(0, 1_000_000, "0: off")] = 100
    # Each costs two file descriptors and some 50 KiB.
    sessions: Annotated[int, Between(1, 1_000_000)] = 10_000
    # One client network (/32 or /64) must not take all the sessions there are.
    sessions_per_client: Annotated[int, Between(1, 1_000_000)] = 100
    # New sessions of all clients together. 0: off, as the handshakes are bounded anyway.
    sessions_per_second: Annotated[int, Between(0, 100_000, "0: off")] = 0
    # A handshake is the one thing that costs us more than it costs the client.
    handshakes_in_flight: Annotated[int, Between(1, 1_000_000)] = 1_000
    # Before TLS there is little to say: EHLO, NOOP, STARTTLS, QUIT.
    commands_before_tls_max: Annotated[int, Between(4, 100_000, "EHLO, STARTTLS and their like must fit")] = 100
    # Whoever gets only refusals learns nothing more from the next hundred.
    errors_max: Annotated[int, Between(3, 100_000, "RFC 4954 section 9 gives AUTH three attempts")] = 100
    # RFC 5321 section 4.5.3.1.4: 512 octets, more with extensions. AUTH lines have 12288 in any case (RFC 4954).
    line_octets_max: Annotated[int, Between(512, 65_536, "RFC 5321 section 4.5.3.1.4: at least 512")] = 4_096
    # One reply of the backend with all its lines is held until it is complete.
    reply_octets_max: Annotated[int, Between(512, 1_048_576, "RFC 5321 section 4.5.3.1.5: at least 512")] = 65_536
    # EHLO replies have some thirty lines, HELP replies may have hundreds.
    reply_lines_max: Annotated[int, Between(50, 10_000, "an EHLO reply must fit")] = 500
    # Commands without a reply yet. MAIL, 100 RCPT (RFC 5321 section 4.5.3.1.8) and DATA come in one group.
    pipeline_max: Annotated[int, Between(102, 100_000, "MAIL, 100 RCPT and DATA must fit, RFC 2920")] = 1_024
    # What a client may send ahead of a reply that decides what it is. Reads of 64 KiB may come after the pause.
    held_octets_max: Annotated[int, Between(65_536, 16_777_216, "one read must fit")] = 262_144
    # How long a host name is looked up. The client waits as long, with a backend that gives it up before too long.
    client_name_timeout_seconds: Annotated[int, Between(1, 30)] = 5
    # After TERM: how long message transfers may go on.
    drain_timeout_seconds: Annotated[int, Between(0, _DAY)] = 30


@frozen(kw_only=True)
class Observe(Table):
    """
    Where is told what happened.
    """

    journal: Journal = "json"
    metrics: Annotated[str, server_endpoint] | None = None
    posture: Path | None = None


@frozen(kw_only=True)
class Config(Table):
    """
    The whole configuration. *warnings* are what an operator should know about it, though it can be used.
    """

    backend: Backend = field(
        metadata={EXAMPLE: '{ endpoints = ["tcp:127.0.0.1:2525"] }', INSTEAD: Backend(at="backend", endpoints=())}
    )
    hostname: Annotated[str, values.host_name] | None = None
    listeners: Annotated[tuple[Listener, ...], AtLeastOne("listener")] = field(
        default=(Listener(at="listener"),), metadata={KEY: "listener"}
    )
    tls: Tls = Tls(at="tls")
    levels: tuple[Level, ...] = field(default=(), metadata={KEY: "level"})
    rules: tuple[Rule, ...] = field(default=(), metadata={KEY: "rule"})
    backend_groups: tuple[BackendGroup, ...] = field(default=(), metadata={KEY: "backend_group"})
    dns: Dns = Dns(at="dns")
    message: Message = Message(at="message")
    limits: Limits = Limits(at="limits")
    observe: Observe = Observe(at="observe")
    warnings: tuple[str, ...] = field(default=(), metadata={KEY: None})

    @property
    def backends(self) -> tuple[Backend, ...]:
        """
        All groups; the first is the one called "default".
        """
        return (self.backend, *self.backend_groups)


# What the built-in levels demand, as far as the checks across keys ask. The law itself stands in tlsgate.policy.
BUILT_IN_LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        Level(name="offered", tls="offered", authenticated=False),
        Level(name="required", authenticated=False),
        Level(name="strong", min_version="TLSv1.2", min_bits=128, aead=True, forward_secrecy=True),
        Level(
            name="verified",
            min_version="TLSv1.2",
            min_bits=128,
            aead=True,
            forward_secrecy=True,
            client_certificate="verified",
        ),
    )
}
