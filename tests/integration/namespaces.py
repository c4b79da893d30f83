"""
Network namespaces: machines of their own, as far as the network goes, for tests of routing.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
from attrs import frozen

from tests.integration.processes import need


@frozen
class Namespace:
    """
    One namespace, with its loopback interface up.
    """

    name: str

    def command(self, *words: str) -> list[str]:
        """
        Return the command line that runs *words* inside.
        """
        return [need("ip", root=True), "netns", "exec", self.name, *words]

    def shell(self, script: str) -> None:
        """
        Run *script* inside; each of its commands must succeed.
        """
        done = subprocess.run(
            self.command("sh", "-exc", script), check=False, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"


@contextmanager
def namespaces(*names: str) -> Iterator[Sequence[Namespace]]:
    """
    Make namespaces, and remove them with all that is in them.

    Where the system does not let us, the tests are skipped on a laptop and fail in CI.
    """
    ip = need("ip", root=True)
    with ExitStack() as stack:
        made = []
        for name in names:
            namespace = Namespace(f"tlsgate-{os.getpid()}-{name}")
            done = subprocess.run(
                [ip, "netns", "add", namespace.name], check=False, capture_output=True, text=True, timeout=30
            )
            if done.returncode != 0:
                lack = f"network namespaces cannot be made here: {done.stderr.strip()}"
                if os.environ.get("CI"):
                    pytest.fail(lack)
                pytest.skip(lack)
            stack.callback(subprocess.run, [ip, "netns", "delete", namespace.name], check=True, timeout=30)
            namespace.shell("ip link set lo up")
            made.append(namespace)
        yield made


def cable(one: Namespace, interface: str, other: Namespace, other_interface: str) -> None:
    """
    Join two namespaces by an interface in each; both are down, and without addresses.

    Theirs need not be looked for twice: an interface whose own IPv6 address is still in doubt finds no neighbour.
    """
    ip = need("ip", root=True)
    ends = ["name", interface, "netns", one.name, "type", "veth", "peer", "name", other_interface, "netns", other.name]
    subprocess.run([ip, "link", "add", *ends], check=True, timeout=30)
    for end, name in ((one, interface), (other, other_interface)):
        end.shell(f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_dad")
