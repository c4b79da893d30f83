"""
The house keeps its order: who imports whom, what the pure rooms never touch, how long a module may be.

Every check is a function of a module's name and source, and is itself shown a source that must not pass.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tlsgate

FOLDER = Path(tlsgate.__file__).parent
LINES_MAX = 300

# Who may import whom; a room may always import from itself. What stands at the root composes, and may import everything.
ALLOWED = {
    "smtp": set(),
    "policy": set(),
    "session": {"policy", "smtp"},
    "tls": {"policy.facts"},
    "observe": {"policy.facts"},
    "net": {"session", "policy", "smtp", "tls"},
    "operator": {"config", "tls", "policy", "observe", "smtp"},
    "config": set(),
}
# Pure: bytes and values in, bytes and values out. The configuration is read from a file, and its endpoints are Twisted's.
PURE = {"smtp", "policy", "session"}
IMPURE = {
    "asyncio", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "select", "selectors", "signal",
    "socket", "socketserver", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
    "OpenSSL", "cryptography", "twisted", "zope",
}  # fmt: skip
PURE_ALL_THE_SAME = {"io.IncrementalNewlineDecoder"}  # text in, text out
IMPURE_CALLS = {"open", "print", "input", "now", "today", "utcnow"}
CONFIG_BANNED = {"logging", "socket", "time", "OpenSSL"}
BANNED = {"twisted.mail"}
# Paths of a machine on which this was made, in source that others will read.
OF_ONE_MACHINE = re.compile(r"/(?:home|root|Users|work)/")


def modules() -> Iterator[tuple[str, str]]:
    """
    Yield the name below `tlsgate`, and the source, of every module; a package is called `its.name.__init__`.
    """
    for path in sorted(FOLDER.rglob("*.py")):
        yield ".".join(path.relative_to(FOLDER).with_suffix("").parts), path.read_text()


MODULES = dict(modules())


def imported(source: str, module: str = "", *, nested: bool = True) -> set[str]:
    """
    Return every name that *source* imports, dotted to the full; without *nested*, only what is imported at once.
    """
    found = set()
    for node in ast.walk(ast.parse(source)) if nested else at_once(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["tlsgate", *module.split(".")][: -node.level] if node.level else []
            start = [*package, node.module] if node.module else package
            found |= {".".join([*start, alias.name]) for alias in node.names}
    return found


def at_once(node: ast.AST) -> Iterator[ast.AST]:
    """
    Yield the nodes that are executed when the module is imported.
    """
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_once(child)


def is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def wrong_rooms(module: str, source: str) -> list[str]:
    """
    Return what a module imports from rooms it must not know.
    """
    room = module.partition(".")[0]
    if room not in ALLOWED:
        return []
    ours = {name.removeprefix("tlsgate.") for name in imported(source, module) if is_of(name, "tlsgate")} - {
        "__version__"
    }
    allowed = ALLOWED[room] | {room}
    return sorted(name for name in ours if not any(is_of(name, each) for each in allowed))


def impurities(module: str, source: str) -> list[str]:
    """
    Return what makes a module of a pure room impure: I/O, clocks, chance, logging, Twisted, OpenSSL.
    """
    room = module.partition(".")[0]
    if room == "config":
        return sorted(name for name in imported(source) if any(is_of(name, each) for each in CONFIG_BANNED))
    if room not in PURE:
        return []
    found = {name for name in imported(source) - PURE_ALL_THE_SAME if any(is_of(name, each) for each in IMPURE)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IMPURE_CALLS:
                found.add(f"{called}()")
    return sorted(found)


def bound_to_a_reactor(module: str, source: str) -> list[str]:
    """
    Return what chooses the reactor at import: whoever imports that can use no other.
    """
    names = imported(source, nested=False)
    return sorted(name for name in names if name == "twisted.internet.reactor" or name.endswith("reactor.install"))


def banned(module: str, source: str) -> list[str]:
    return sorted(name for name in imported(source) if any(is_of(name, each) for each in BANNED))


def too_long(module: str, source: str) -> list[str]:
    lines = source.count("\n")
    return [f"{lines} lines"] if lines > LINES_MAX else []


def of_one_machine(module: str, source: str) -> list[str]:
    return OF_ONE_MACHINE.findall(source)


def not_said(module: str, source: str) -> list[str]:
    """
    Return a complaint about a module that has something in it, but does not begin with its contract.
    """
    return [] if not source or ast.get_docstring(ast.parse(source)) else ["no docstring"]


CHECKS: dict[Callable[[str, str], list[str]], list[tuple[str, str]]] = {
    wrong_rooms: [
        ("smtp.reply", "from tlsgate.policy.facts import TlsFacts"),
        ("smtp.reply", "def later():\n    import tlsgate.config"),
        ("policy.level", "from tlsgate.smtp import reply"),
        ("session.session", "from tlsgate.net.relay import Relay"),
        ("session.session", "from tlsgate import tls"),
        ("tls.context", "from tlsgate.policy.level import Level"),
        ("observe.journal", "from tlsgate.session.actions import Record"),
        ("net.relay", "from tlsgate.config import Config"),
        ("net.relay", "from tlsgate.observe.journal import Journal"),
        ("operator.check", "from tlsgate.net.relay import Relay"),
        ("config.tree", "from tlsgate.policy.level import Level"),
        ("net.relay", "from tlsgate import service"),
        ("net.__init__", "from tlsgate.service import GateService"),
        ("smtp.reply", "from ..policy import facts"),
        ("net.proxy_protocol.values", "from ...service import GateService"),
    ],
    impurities: [
        ("smtp.reply", "import time"),
        ("smtp.reply", "from os import path"),
        ("policy.ramp", "from datetime import datetime\nNOW = datetime.now()"),
        ("policy.ramp", "import random"),
        ("session.session", "from twisted.internet import defer"),
        ("session.session", "def f():\n    import twisted"),
        ("session.session", "from OpenSSL.SSL import Connection"),
        ("session.session", "import logging"),
        ("session.state", "open('x')"),
        ("config.tree", "import logging"),
    ],
    bound_to_a_reactor: [
        ("net.relay", "from twisted.internet import reactor"),
        ("service", "try:\n    from twisted.internet import reactor\nexcept ImportError:\n    pass"),
        ("net.relay", "class Relay:\n    from twisted.internet import reactor"),
        ("net.relay", "import twisted.internet.reactor"),
    ],
    banned: [("net.relay", "from twisted.mail import smtp"), ("operator.x", "import twisted.mail.smtp")],
    too_long: [("net.relay", "x = 1\n" * (LINES_MAX + 1))],
    of_one_machine: [("service", "# see /home/somebody/src")],
    not_said: [("net.relay", "x = 1\n")],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_module_breaks_the_law(check: Callable[[str, str], list[str]]) -> None:
    assert {module: found for module, source in MODULES.items() if (found := check(module, source))} == {}


@pytest.mark.parametrize(
    ("check", "module", "source"),
    [(check, *bad) for check, sources in CHECKS.items() for bad in sources],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_check_finds_what_it_looks_for(check: Callable[[str, str], list[str]], module: str, source: str) -> None:
    assert check(module, source)


@pytest.mark.parametrize(
    ("check", "module", "source"),
    [
        (wrong_rooms, "session.session", "from tlsgate.smtp import reply\nfrom tlsgate.session.phases import Phase"),
        (wrong_rooms, "tls.peer", "from tlsgate.policy.facts import TlsFacts"),
        (wrong_rooms, "net.proxy_protocol.reading", "from .values import Address\nfrom ..wire import close"),
        (wrong_rooms, "net.__init__", "from .relay import Relay"),
        (wrong_rooms, "service", "from tlsgate.net.relay import Relay"),
        (wrong_rooms, "operator.main", "from tlsgate import __version__"),
        (impurities, "net.relay", "import time"),
        (bound_to_a_reactor, "service", "def make():\n    from twisted.internet import reactor"),
        (bound_to_a_reactor, "service", "from twisted.internet.interfaces import IReactorTime"),
        (too_long, "net.relay", "x = 1\n" * LINES_MAX),
        (not_said, "net.__init__", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_check_finds_nothing_else(check: Callable[[str, str], list[str]], module: str, source: str) -> None:
    assert check(module, source) == []


def test_every_room_is_known() -> None:
    """A new room without a law would be a way around it."""
    rooms = {module.partition(".")[0] for module in MODULES if "." in module}
    assert rooms == set(ALLOWED)


def test_the_plugin_imports_nothing_of_ours() -> None:
    """`twistd --help` imports every plugin there is."""
    plugin = FOLDER.parent.parent / "twisted" / "plugins" / "tlsgate_plugin.py"
    if not plugin.exists():
        pytest.skip("not run from a checkout")
    assert imported(plugin.read_text()) == {"twisted.application.service.ServiceMaker"}
