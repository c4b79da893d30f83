"""
XCLIENT: what a backend is told of a client, and that no value can say more than it should.
"""

import re
from ipaddress import IPv4Address, IPv6Address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.net.identity import ClientIdentity, xclient_commands, xtext

# What Postfix 3.7 offers.
ALL = frozenset({"NAME", "ADDR", "PROTO", "HELO", "REVERSE_NAME", "PORT", "LOGIN", "DESTADDR", "DESTPORT"})

WHO = ClientIdentity(
    address=IPv4Address("192.0.2.7"),
    port=40001,
    destination_address=IPv4Address("198.51.100.1"),
    destination_port=25,
    name="client.example",
    helo="client.example",
    login="user@example.org",
    protocol="ESMTP",
)

COMMAND = re.compile(rb"XCLIENT(?: [A-Z_]+=[!-~]+)+\r\n")
XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")


def values(commands: list[bytes]) -> dict[str, bytes]:
    """
    Return attribute -> encoded value, read as a backend would read it.
    """
    found = {}
    for command in commands:
        assert COMMAND.fullmatch(command), command
        assert len(command) <= 512, command
        for attribute in command[:-2].split(b" ")[1:]:
            name, _, value = attribute.partition(b"=")
            assert name.decode() not in found, f"{name!r} twice"
            found[name.decode()] = value
    return found


def decoded(value: bytes) -> bytes:
    assert XTEXT.fullmatch(value), value
    return re.sub(rb"\+([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), value)


def saying(attribute: str, text: str) -> ClientIdentity:
    """
    Return a client that says *text* in EHLO, or logs in as that.
    """
    return ClientIdentity(address=None, helo=text) if attribute == "HELO" else ClientIdentity(None, login=text)


def test_one_command_says_it_all() -> None:
    (command,) = xclient_commands(ALL, WHO)
    assert command == (
        b"XCLIENT NAME=client.example ADDR=192.0.2.7 PORT=40001 PROTO=ESMTP HELO=client.example LOGIN=user@example.org"
        b" DESTADDR=198.51.100.1 DESTPORT=25\r\n"
    )


def test_only_what_is_offered_is_sent() -> None:
    """
    An attribute that the backend does not know would be answered with 501, and no mail would pass.
    """
    assert xclient_commands(frozenset({"ADDR"}), WHO) == [b"XCLIENT ADDR=192.0.2.7\r\n"]
    assert xclient_commands(frozenset({"NAME", "ADDR", "TTL"}), WHO) == [
        b"XCLIENT NAME=client.example ADDR=192.0.2.7\r\n"
    ]


@pytest.mark.parametrize("offered", [frozenset(), ALL - {"ADDR"}], ids=["nothing", "all but ADDR"])
def test_without_addr_there_is_nothing_to_say(offered: frozenset[str]) -> None:
    assert xclient_commands(offered, WHO) == []


def test_what_is_unknown_must_not_stay_our_own() -> None:
    """
    The backend goes on with what it knew of us wherever it is told nothing: our name, our address, our port.
    """
    (command,) = xclient_commands(ALL, ClientIdentity(address=None))
    assert command == (
        b"XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE]"
        b" DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]\r\n"
    )


def test_a_name_the_dns_may_still_find() -> None:
    who = ClientIdentity(address=IPv4Address("192.0.2.7"), name_deferred=True)
    assert values(xclient_commands(ALL, who))["NAME"] == b"[TEMPUNAVAIL]"


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (ClientIdentity(None, name="a.example", reverse_name="a.example"), None),
        (ClientIdentity(None, reverse_name="a.example"), b"a.example"),
        (ClientIdentity(None, name_deferred=True, reverse_name="a.example"), b"a.example"),
        (ClientIdentity(None, name_deferred=True, reverse_name_deferred=True), b"[TEMPUNAVAIL]"),
        (ClientIdentity(None, reverse_name="a.example LOGIN=admin"), b"[UNAVAILABLE]"),
        (ClientIdentity(None, name="a..example", reverse_name="b.example"), b"b.example"),
    ],
)
def test_the_name_of_an_address_that_may_not_be_its_own(who: ClientIdentity, told: bytes | None) -> None:
    """
    Postfix takes the client's name for its reverse name, too; but one that is not known leaves it at the gate's own.
    """
    assert values(xclient_commands(ALL, who)).get("REVERSE_NAME") == told


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("192.0.2.7", b"192.0.2.7"),
        ("2001:db8::7", b"IPV6:2001:db8::7"),
        ("2001:0DB8:0:0:0:0:0:7", b"IPV6:2001:db8::7"),
        ("::1", b"IPV6:::1"),
        ("::ffff:192.0.2.7", b"192.0.2.7"),
        ("fe80::7%eth0", b"IPV6:fe80::7"),
    ],
)
def test_addresses(address: str, value: bytes) -> None:
    parsed = IPv6Address(address) if ":" in address else IPv4Address(address)
    told = values(xclient_commands(ALL, ClientIdentity(address=parsed, destination_address=parsed)))
    assert told["ADDR"] == value
    assert told["DESTADDR"] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail-1.client.example", b"mail-1.client.example"),
        ("_spf.client.example", b"_spf.client.example"),
        ("3com.example", b"3com.example"),
        ("1.2.3.in-addr.arpa", b"1.2.3.in-addr.arpa"),
        ("client.example.", b"client.example"),
        ("localhost", b"localhost"),
    ],
)
def test_host_names(name: str, value: bytes) -> None:
    assert values(xclient_commands(ALL, ClientIdentity(address=None, name=name)))["NAME"] == value


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..example",
        ".example",
        "-a.example",
        "a-.example",
        "192.0.2.7",
        "12345",
        "2001:db8::7",
        "a b.example",
        "a.example\r\nMAIL FROM:<>",
        "a.example\n",
        "a.example\0",
        "a.example LOGIN=admin",
        "a.example+20LOGIN=admin",
        "ä.example",
        "[UNAVAILABLE]",
        "x" * 64 + ".example",
        "x." * 127 + "xx",
        "\ud800",
    ],
    ids=repr,
)
def test_what_the_dns_says_but_is_no_host_name_is_not_passed_on(name: str) -> None:
    """
    PTR records hold anything their owner likes; nginx passed it on into XCLIENT (CVE-2026-28753).
    """
    assert values(xclient_commands(ALL, ClientIdentity(address=None, name=name)))["NAME"] == b"[UNAVAILABLE]"


@pytest.mark.parametrize(
    ("helo", "value"),
    [
        ("client.example", b"client.example"),
        ("[192.0.2.7]", b"[192.0.2.7]"),
        ("a+b=c", b"a+2Bb+3Dc"),
        ("my laptop", b"my+20laptop"),
        ("x ADDR=127.0.0.1", b"x+20ADDR+3D127.0.0.1"),
        ("bücher.example", b"b+C3+BCcher.example"),
        ("x" * 255, b"x" * 255),
    ],
    ids=repr,
)
@pytest.mark.parametrize("attribute", ["HELO", "LOGIN"])
def test_what_the_client_says_is_xtext(attribute: str, helo: str, value: bytes) -> None:
    assert values(xclient_commands(ALL, saying(attribute, helo)))[attribute] == value


@pytest.mark.parametrize(
    "text",
    ["", "x" * 256, "é" * 128, "=" * 134, "a\r\nQUIT", "a\n", "a\0b", "a\x7f", "\x1b[2J"],
    ids=lambda text: repr(text)[:30],
)
@pytest.mark.parametrize("attribute", ["HELO", "LOGIN"])
def test_what_no_backend_should_see_is_unknown(attribute: str, text: str) -> None:
    assert values(xclient_commands(ALL, saying(attribute, text)))[attribute] == b"[UNAVAILABLE]"


@pytest.mark.parametrize("protocol", [None, "", "esmtp", "ESMTPS", "SMTP\r\nQUIT"], ids=repr)
def test_a_protocol_is_one_of_two_or_not_said(protocol: str | None) -> None:
    assert "PROTO" not in values(xclient_commands(ALL, ClientIdentity(address=None, protocol=protocol)))


LONG = ClientIdentity(
    address=IPv6Address("2001:db8:1111:2222:3333:4444:5555:6666"),
    port=65535,
    destination_address=IPv6Address("2001:db8:1111:2222:3333:4444:5555:7777"),
    destination_port=65535,
    name="x" * 63 + ("." + "x" * 63) * 3,
    protocol="ESMTP",
)


def test_what_is_always_known_fits_into_one_command() -> None:
    assert len(xclient_commands(ALL, LONG)) == 1
    assert len(xclient_commands(ALL, evolve(LONG, name=None, reverse_name=LONG.name))) == 1


def test_long_values_take_two_commands_and_the_address_comes_last() -> None:
    """
    Postfix 3.7 answers 550 to an XCLIENT behind the one with ADDR, and forgets PROTO, HELO and LOGIN with each.
    """
    first, second = xclient_commands(ALL, evolve(LONG, helo="+" * 60, login="y" * 200))
    assert set(values([first])) == {"NAME", "PORT", "DESTADDR", "DESTPORT"}
    told = values([second])
    assert set(told) == {"ADDR", "PROTO", "HELO", "LOGIN"}
    assert decoded(told["HELO"]) == b"+" * 60
    assert told["LOGIN"] == b"y" * 200


def test_a_name_that_does_not_fit_beside_the_login_is_left_to_the_clients_own_ehlo() -> None:
    _, second = xclient_commands(ALL, evolve(LONG, helo="h" * 255, login="y" * 255))
    assert set(values([second])) == {"ADDR", "PROTO", "LOGIN"}


def test_there_is_no_first_command_without_attributes() -> None:
    (command,) = xclient_commands(frozenset({"ADDR", "HELO", "LOGIN"}), evolve(LONG, helo="h" * 255, login="y" * 255))
    assert set(values([command])) == {"ADDR", "LOGIN"}


@given(st.binary(max_size=300))
def test_xtext_is_one_printable_word_and_loses_nothing(octets: bytes) -> None:
    assert decoded(xtext(octets)) == octets


hostile = st.text(st.sampled_from("ab1.-_+= \r\n\0\t[]IPV6:é\ud800\u2028"), max_size=90)
texts = st.none() | st.text(max_size=260) | hostile
addresses = st.none() | st.ip_addresses(v=4) | st.ip_addresses(v=6)
ports = st.none() | st.integers(0, 65535)


@given(
    st.builds(
        ClientIdentity,
        address=addresses,
        port=ports,
        destination_address=addresses,
        destination_port=ports,
        name=texts,
        name_deferred=st.booleans(),
        reverse_name=texts,
        reverse_name_deferred=st.booleans(),
        helo=texts,
        login=texts,
        protocol=texts,
    ),
    st.frozensets(st.sampled_from(sorted(ALL))),
)
def test_no_value_breaks_out(who: ClientIdentity, offered: frozenset[str]) -> None:
    """
    Whatever a client, a balancer or the DNS says: whole commands, known attributes, each once, the address last.
    """
    commands = xclient_commands(offered, who)
    told = values(commands)
    assert set(told) <= offered
    assert ("ADDR" in told) == bool(commands) == ("ADDR" in offered)
    if commands:
        assert b" ADDR=" in commands[-1]
    for value in told.values():
        decoded(value)
