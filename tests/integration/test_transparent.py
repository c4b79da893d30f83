"""
A backend sees the client's address, set up as docs/transparent.md says, in network namespaces.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.gate import Identity
from tests.integration.namespaces import Namespace, cable, namespaces
from tests.integration.processes import Daemon
from tests.integration.transparent_dial import BULK_OCTETS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "transparent.md"
PROGRAM = (sys.executable, "-m", "tests.integration.transparent_dial")

CLIENT = "203.0.113.7"
OTHER_CLIENT = "198.51.100.200"
CLIENT6 = "2001:db8:7::1"
NO_ROUTE_BACK = "no answer; see that what the backend sends to clients is routed back through this machine"


def recipe(name: str) -> str:
    """
    Return the commands under that name in the document.
    """
    found = re.search(rf"<!-- {name} -->\n```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found, name
    return found[1]


@contextmanager
def serving(where: Namespace, port: int, *hosts: str) -> Iterator[None]:
    process = subprocess.Popen(
        where.command(*PROGRAM, "serve", str(port), *hosts),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def dialled(
    where: Namespace, host: str, port: int, *sources: str, setpriv: tuple[str, ...] = (), seconds: int = 30
) -> dict[str, list[str]]:
    """
    Return what each source got from the backend: its greeting, and the length of its answer; or why nothing.
    """
    command = where.command(*setpriv, *PROGRAM, "dial", host, str(port), str(seconds), *sources)
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    got: dict[str, list[str]] = json.loads(done.stdout)
    return got


def served(source: str) -> list[str]:
    return [f"220 {source}", str(BULK_OCTETS)]


@pytest.fixture
def gate_and_backend() -> Iterator[tuple[Namespace, Namespace]]:
    """
    Two machines on one cable, addressed as in the document; no routes yet.
    """
    with namespaces("gate", "backend") as (gate, backend):
        cable(gate, "eth1", backend, "eth0")
        gate.shell("ip addr add 10.0.0.1/24 dev eth1; ip -6 addr add fd00::1/64 dev eth1 nodad; ip link set eth1 up")
        backend.shell("ip addr add 10.0.0.2/24 dev eth0; ip -6 addr add fd00::2/64 dev eth0 nodad; ip link set eth0 up")
        # As strict as a careful administrator has it.
        gate.shell("echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter")
        with serving(backend, 25, "0.0.0.0", "::"):
            yield gate, backend


def test_a_backend_on_another_machine_sees_the_client(gate_and_backend: tuple[Namespace, Namespace]) -> None:
    gate, backend = gate_and_backend
    backend.shell("echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter")
    backend.shell(recipe("backend"))
    gate.shell(recipe("gate"))
    got = dialled(gate, "10.0.0.2", 25, CLIENT, OTHER_CLIENT)
    assert got == {CLIENT: served(CLIENT), OTHER_CLIENT: served(OTHER_CLIENT)}
    assert dialled(gate, "fd00::2", 25, CLIENT6) == {CLIENT6: served(CLIENT6)}


def test_a_backend_that_routes_only_its_answers_through_the_gate(
    gate_and_backend: tuple[Namespace, Namespace],
) -> None:
    gate, backend = gate_and_backend
    backend.shell(recipe("backend, answers only"))
    gate.shell(recipe("gate"))
    assert dialled(gate, "10.0.0.2", 25, CLIENT) == {CLIENT: served(CLIENT)}
    assert dialled(gate, "fd00::2", 25, CLIENT6) == {CLIENT6: served(CLIENT6)}


def test_without_the_routes_there_is_no_connection(gate_and_backend: tuple[Namespace, Namespace]) -> None:
    """
    Fail closed: the backend must not take the client for the gate.
    """
    gate, backend = gate_and_backend
    backend.shell(recipe("backend"))
    [[told]] = dialled(gate, "10.0.0.2", 25, CLIENT, seconds=2).values()
    assert NO_ROUTE_BACK in told


def test_without_the_capability_there_is_no_connection(gate_and_backend: tuple[Namespace, Namespace]) -> None:
    gate, backend = gate_and_backend
    backend.shell(recipe("backend"))
    gate.shell(recipe("gate"))
    without = ("setpriv", "--bounding-set=-net_admin,-net_raw")
    [[told]] = dialled(gate, "10.0.0.2", 25, CLIENT, setpriv=without).values()
    assert "needs CAP_NET_ADMIN or CAP_NET_RAW" in told
    with_the_smaller = ("setpriv", "--bounding-set=-net_admin")
    assert dialled(gate, "10.0.0.2", 25, CLIENT, setpriv=with_the_smaller) == {CLIENT: served(CLIENT)}


def test_a_backend_on_the_same_machine_sees_the_client() -> None:
    with namespaces("same", "router") as (machine, router):
        # A way out, as any machine has one: answers must not take it.
        cable(machine, "eth0", router, "eth0")
        router.shell("ip link set eth0 up")
        machine.shell("ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up")
        machine.shell("ip route add default via 192.0.2.254; ip -6 addr add fd00::1/64 dev eth0 nodad")
        machine.shell("ip -6 route add default via fd00::fe")
        machine.shell(recipe("same machine"))
        with serving(machine, 2526, "127.0.0.1", "::1"):
            got = dialled(machine, "127.0.0.1", 2526, CLIENT, OTHER_CLIENT)
            assert got == {CLIENT: served(CLIENT), OTHER_CLIENT: served(OTHER_CLIENT)}
            assert dialled(machine, "::1", 2526, CLIENT6) == {CLIENT6: served(CLIENT6)}


CONFIG = """
[[listener]]
name = "mx"
endpoint = "{listen}"
level = "offered"

[tls]
certificates = [{{ chain = "{identity.certificate}", key = "{identity.key}" }}]

[backend]
endpoints = ["{endpoint}"]
client_address = "transparent"
"""
READ_GREETING = "import socket; print(socket.create_connection(('{address}', 2525), 60).makefile().readline())"


@pytest.mark.parametrize(
    ("client_address", "gate_address", "length", "listen", "endpoint"),
    [
        (CLIENT, "203.0.113.1", 24, "tcp:2525", "tcp:10.0.0.2:25"),
        (CLIENT6, "2001:db8:7::ff", 64, "tcp6:2525", r"tcp:fd00\\:\\:2:25"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_client_of_the_whole_gate_is_seen(  # noqa: PLR0917 - one row of the table
    gate_and_backend: tuple[Namespace, Namespace],
    identity: Identity,
    tmp_path: Path,
    client_address: str,
    gate_address: str,
    length: int,
    listen: str,
    endpoint: str,
) -> None:
    """
    The backend greets by address, and its greeting is what the client gets.
    """
    gate, backend = gate_and_backend
    backend.shell(recipe("backend"))
    gate.shell(recipe("gate"))
    with namespaces("client") as (client,):
        cable(gate, "eth0", client, "eth0")
        nodad = "nodad" if ":" in client_address else ""
        gate.shell(f"ip addr add {gate_address}/{length} dev eth0 {nodad}; ip link set eth0 up")
        client.shell(f"ip addr add {client_address}/{length} dev eth0 {nodad}; ip link set eth0 up")
        config = tmp_path / "gate.toml"
        config.write_text(CONFIG.format(identity=identity, listen=listen, endpoint=endpoint))
        twistd = str(Path(sys.executable).with_name("twistd"))
        argv = gate.command(twistd, "--nodaemon", "--pidfile=", "tlsgate", "--config", str(config))
        daemon = Daemon(argv, tmp_path / "gate.log")
        daemon.start(lambda: '"event":"listening"' in daemon.said())
        try:
            read = client.command(sys.executable, "-c", READ_GREETING.format(address=gate_address))
            done = subprocess.run(read, check=False, capture_output=True, text=True, timeout=60)
        finally:
            daemon.stop()
    assert client_address in done.stdout, f"{done}\n{daemon.said()}"
