"""
Several backends: which one a session goes to, and how the dead are found, left out, and taken back.
"""

import socket
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.messages import SENDER
from tests.integration.processes import free_port, private_folder
from tests.integration.routes import TLS_MODES, Mode, Route
from tests.integration.test_backend_tls import REQUIRETLS, ROOT, Part, Scripted, config, context, send
from tests.integration.test_proxy import LISTENER, Caller
from tests.integration.wire import CLIENT_NAME
from tests.support.certificates import pem

SESSIONS = 12


def named(name: str) -> Part:
    """
    Return the part of a backend of that name.
    """
    return Part(greeting=f"220 {name}.example ESMTP\r\n".encode(), keywords=(b"PIPELINING", b"X-" + name.encode()))


def keys(*backends: Scripted, more: str = "") -> str:
    """
    Return the lines of a group of *backends*.
    """
    endpoints = ", ".join(f'"{backend.endpoint}"' for backend in backends)
    return f'endpoints = [{endpoints}]\naccept_open_relay = true\nkeywords = ["X-FIRST", "X-SECOND"]\n{more}'


def served_by(gate: ConfiguredGate, port: int, mode: Mode = "starttls", name: str = "gate.example") -> str:
    """
    Return the name of the backend that a client meets there.
    """
    with Caller(Route(port, mode, gate.authority), name=name) as wire:
        [met] = [word for word in wire.greeted().keywords if word.startswith("X-")]
        wire.quit()
    return met.removeprefix("X-").lower()


def told_at_once(gate: ConfiguredGate, port: int) -> bool:
    """
    Whether a client gets 421 4.3.2 instead of a greeting, and without having to wait for a backend.
    """
    begin = time.monotonic()
    with Caller(Route(port, "plain", gate.authority)) as wire:
        refused = wire.reply()
        assert (refused.code, refused.lines[0][:6], wire.line()) == (421, "4.3.2 ", "")
    return time.monotonic() - begin < 10


def test_the_first_that_is_up_has_all_the_sessions(identity: Identity, tmp_path: Path) -> None:
    """
    When it dies, the client that finds out is served by the second, and those after it do not even ask; when it is
    back, it has the sessions again. Where both are dead, clients are told at once.
    """
    port = free_port()
    with ExitStack() as stack:
        second = Scripted(named("second"))
        stack.enter_context(second)
        with Scripted(named("first")) as first:
            told = config(identity, port, keys(first, second, more="probe_seconds = 0"))
            gate = stack.enter_context(configured(tmp_path, told, identity.authority))
            first.wait(1)
            assert [served_by(gate, port) for _ in range(3)] == ["first"] * 3
        assert [served_by(gate, port) for _ in range(3)] == ["second"] * 3
        [down] = gate.journal("backend-down")
        assert down["backend"] == first.endpoint
        assert "refused" in down["reason"]
        with Scripted(named("first"), port=first.port):
            assert gate.wait_for(1, "backend-up")[0]["backend"] == first.endpoint
            assert served_by(gate, port) == "first"
        assert served_by(gate, port) == "second"
        second.__exit__(None, None, None)
        assert served_by_nobody(gate, port)
        assert told_at_once(gate, port)
        assert {entry["backend"] for entry in gate.wait_for(3, "backend-down")} == {first.endpoint, second.endpoint}


def served_by_nobody(gate: ConfiguredGate, port: int) -> bool:
    """
    Whether the client that finds the last one dead is asked to come again.
    """
    with Caller(Route(port, "starttls", gate.authority)) as wire:
        wire.reply()
        wire.command(f"EHLO {CLIENT_NAME}")
        wire.command("STARTTLS")
        wire.handshake()
        assert wire.command(f"EHLO {CLIENT_NAME}").code == 451
        refused = wire.command(f"MAIL FROM:<{SENDER}>")
        wire.quit()
    return refused.code == 451 and refused.lines[0].startswith("4.4.1 ")


def test_a_dead_backend_is_asked_less_and_less(identity: Identity, tmp_path: Path) -> None:
    """
    After 1 s, 2 s, 4 s: here it greets, with a refusal each time.
    """
    port = free_port()
    with (
        Scripted(Part(greeting=b"421 4.3.2 Not now\r\n")) as backend,
        configured(tmp_path, config(identity, port, keys(backend)), identity.authority) as gate,
    ):
        [down] = gate.wait_for(1, "backend-down")
        assert "greeted with 421 4.3.2 Not now" in down["reason"]
        for count in (2, 3, 4):
            asked = backend.wait(count)
            assert told_at_once(gate, port)
        pauses = [after.began - before.began for before, after in pairwise(asked[:4])]
        # A prober looks once a second who is due; and a call may be noticed late here.
        assert all(least < pause < least + 6 for least, pause in zip((0.5, 1.5, 3.5), pauses, strict=True)), pauses
        assert len(gate.journal("backend-down")) == 1


def test_a_probe_finds_a_dead_backend_before_a_client_does(identity: Identity, tmp_path: Path) -> None:
    port = free_port()
    with Scripted(named("first")) as first, Scripted(named("second")) as second:
        told = config(identity, port, keys(first, second, more="probe_seconds = 1"))
        with configured(tmp_path, told, identity.authority) as gate:
            first.wait(2)
            first.play(Part(greeting=b"554 5.3.2 Closed\r\n"))
            assert "554 5.3.2 Closed" in gate.wait_for(1, "backend-down")[0]["reason"]
            calls = len(first.heard())
            assert served_by(gate, port) == "second"
            assert not any(CLIENT_NAME in str(one.lines) for one in first.heard(calls))
            # It is asked nothing but its greeting.
            assert {line for one in first.heard() for line in one.lines} <= {b"QUIT"}


@pytest.mark.parametrize("greeting", [b"421 4.3.2 Later\r\n", b"554 5.3.2 No\r\n", b"220", b"HTTP/1.1 400\r\n"])
def test_a_greeting_that_is_none_sends_the_client_to_the_next(
    identity: Identity, tmp_path: Path, greeting: bytes
) -> None:
    port = free_port()
    with Scripted(named("first")) as first, Scripted(named("second")) as second:
        limits = "[limits]\nbackend_timeout_seconds = 4"
        told = config(identity, port, keys(first, second, more="probe_seconds = 0"), rest=limits)
        with configured(tmp_path, told, identity.authority) as gate:
            first.wait(1)
            first.play(Part(greeting=greeting))
            assert served_by(gate, port) == "second"
            assert gate.wait_for(1, "backend-down")[0]["backend"] == first.endpoint


def test_sessions_are_spread(identity: Identity, tmp_path: Path) -> None:
    """
    Each goes to the backend with the fewest, and one that was dead gets no more than its share.
    """
    port = free_port()
    with Scripted(named("first")) as first, Scripted(named("second")) as second, ExitStack() as open_:
        told = config(identity, port, keys(first, second, more='spread = "least-sessions"'))
        gate = open_.enter_context(configured(tmp_path, told, identity.authority))
        first.wait(1)
        second.wait(1)
        wires = []
        met = []
        for _ in range(SESSIONS):
            wire = open_.enter_context(Caller(Route(port, "starttls", gate.authority)))
            met.append("X-FIRST" in wire.greeted().keywords)
            wires.append(wire)
        assert met.count(True) == met.count(False) == SESSIONS // 2
        # All of the second's end; the next ones are its own.
        for wire, was_first in zip(wires, met, strict=True):
            if not was_first:
                wire.quit()
        gate.wait_for(SESSIONS // 2, "session")
        assert {served_by(gate, port) for _ in range(3)} == {"second"}


@pytest.mark.parametrize("mode", TLS_MODES)
def test_a_backend_may_be_a_unix_socket(identity: Identity, tmp_path: Path, mode: Mode) -> None:
    port, sent = free_port(), messages.dotted()
    with (
        private_folder("unix") as folder,
        Scripted(named("first"), folder / "socket") as backend,
        configured(
            tmp_path,
            config(identity, port, keys(backend), listener='tls = "implicit"' if mode == "implicit" else ""),
            identity.authority,
        ) as gate,
    ):
        with Caller(Route(port, mode, gate.authority)) as wire:
            wire.greeted()
            send(wire, sent)
            wire.quit()
        [message] = [message for one in backend.heard() for message in one.messages]
        assert message == messages.stuffed(sent).removesuffix(b".\r\n")


def test_a_crowd_before_a_unix_socket_takes_it_from_nobody(identity: Identity, tmp_path: Path) -> None:
    """
    Where the queue of a TCP port is full the kernel tries again; where that of a UNIX socket is, a connection fails. Who
    meets that is told to come again, and the next one is served.
    """
    port = free_port()
    with private_folder("crowd") as folder, socket.socket(socket.AF_UNIX) as crowded, ExitStack() as crowd:
        crowded.bind(str(folder / "socket"))
        crowded.listen(0)
        lines = f'endpoints = ["unix:{folder}/socket"]\naccept_open_relay = true\nprobe_seconds = 0'
        told = config(identity, port, lines, listener='level = "offered"')
        gate = crowd.enter_context(configured(tmp_path, told, identity.authority))
        # The gate's own first call is in the queue, and is all that it holds.
        for count in (1, 2):
            assert told_at_once(gate, port)
            assert "queue" in gate.wait_for(count, "backend-failed")[-1]["reason"]
        crowd.enter_context(crowded.accept()[0])
        with Caller(Route(port, "plain", gate.authority)) as wire:
            served = crowd.enter_context(crowded.accept()[0])
            served.sendall(b"220 crowded.example ESMTP\r\n")
            assert wire.reply().code == 220
        assert gate.journal("backend-down") == []


def test_a_listener_has_its_own_group(identity: Identity, tmp_path: Path) -> None:
    """
    One group dead does not close the door to the other.
    """
    port, other = free_port(), free_port()
    with Scripted(named("first")) as first, Scripted(named("second")) as second:
        endpoint = f"tcp:{other}:interface=127.0.0.1"
        listener = LISTENER.format(name="other", endpoint=endpoint, backend="tenant", keys="")
        group = f'[[backend_group]]\nname = "tenant"\n{keys(second)}'
        told = config(identity, port, keys(first), rest=listener + group)
        with configured(tmp_path, told, identity.authority) as gate:
            second.wait(1)
            assert (served_by(gate, port), served_by(gate, other)) == ("first", "second")
            second.__exit__(None, None, None)
            assert served_by_nobody(gate, other)
            assert told_at_once(gate, other)
            assert served_by(gate, port) == "first"


@pytest.mark.parametrize("mode", TLS_MODES)
def test_the_name_asked_for_chooses_the_group(identity: Identity, tmp_path: Path, mode: Mode) -> None:
    """
    What a group is told and does is its own: its way of TLS, the promise of REQUIRETLS that comes of it (8689-01), its
    trace line, and the keywords let through.
    """
    port, sent = free_port(), messages.tiny()
    trusted = tmp_path / "root.pem"
    trusted.write_bytes(pem(ROOT.certificate))
    secure = Part("starttls", context(ROOT.issue("127.0.0.1"), tmp_path), keywords=(*REQUIRETLS, b"X-FIRST", b"X-TEST"))
    plaintext = Part(keywords=(*REQUIRETLS, b"X-SECOND", b"X-TEST"))
    with Scripted(secure) as first, Scripted(plaintext) as second:
        default = keys(first, more=f'tls = "starttls"\ntls_ca = "{trusted}"\nreceived_header = true')
        group = f"""
            [[rule]]
            sni = ["gate.example"]
            backend = "tenant"
            [[backend_group]]
            name = "tenant"
            endpoints = ["{second.endpoint}"]
            accept_open_relay = true
            keywords = ["X-TEST"]
        """
        listener = 'tls = "implicit"' if mode == "implicit" else ""
        told = config(identity, port, default, listener=listener, rest=group)
        with configured(tmp_path, told, identity.authority) as gate:
            for backend in (first, second):
                backend.wait(1)
            offered = {}
            for name in ("127.0.0.1", "gate.example"):
                with Caller(Route(port, mode, gate.authority), name=name) as wire:
                    offered[name] = wire.greeted().keywords & {"REQUIRETLS", "X-FIRST", "X-SECOND", "X-TEST"}
                    send(wire, sent)
                    wire.quit()
            [traced] = [message for one in first.heard() for message in one.messages]
            [untraced] = [message for one in second.heard() for message in one.messages]
    assert offered == {"127.0.0.1": {"REQUIRETLS", "X-FIRST"}, "gate.example": {"X-TEST"}}
    assert traced.startswith(b"Received: from ")
    assert traced.endswith(sent)
    assert untraced == sent


def test_nobody_is_turned_away_for_the_dead_of_another_name(identity: Identity, tmp_path: Path) -> None:
    """
    Before the handshake it is not known which group a client will ask for: it is turned away when all are down.
    """
    port = free_port()
    with Scripted(named("second")) as second:
        dead = f'endpoints = ["tcp:127.0.0.1:{free_port()}"]\naccept_open_relay = true'
        group = (
            f'[[rule]]\nsni = ["gate.example"]\nbackend = "tenant"\n[[backend_group]]\nname = "tenant"\n{keys(second)}'
        )
        with configured(tmp_path, config(identity, port, dead, rest=group), identity.authority) as gate:
            gate.wait_for(1, "backend-down")
            assert served_by(gate, port, name="gate.example") == "second"
            second.__exit__(None, None, None)
            assert served_by_nobody(gate, port)
            assert told_at_once(gate, port)
