"""
Faulty configurations and what is to be said of them, from `faulty/*.txt`.

A file holds cases with a line of "---" between them: TOML, then one line "> key: what is wrong" per fault. A case that
has no [tls] or no [backend] of its own gets a sound one.
"""

from pathlib import Path

from attrs import frozen

TLS = '[tls]\ncertificates = [{ chain = "mx.pem", key = "mx.key" }]\n'
BACKEND = '[backend]\nendpoints = ["tcp:127.0.0.1:2525"]\n'

# Relative paths in a configuration are relative to this folder; nothing is looked for in it.
BASE = Path("/etc/tlsgate")


@frozen
class Case:
    """
    A configuration and the problems it has.
    """

    id: str
    text: str
    problems: tuple[str, ...]


def completed(text: str) -> str:
    """
    Return *text* with the tables every configuration needs.
    """
    for table, default in (("tls", TLS), ("backend", BACKEND)):
        if f"[{table}]" not in text:
            text += default
    return text


def cases() -> list[Case]:
    """
    Return the whole corpus.
    """
    return [
        _case(f"{path.stem}-{number}", block)
        for path in sorted(Path(__file__).with_name("faulty").glob("*.txt"))
        for number, block in enumerate(path.read_text("utf-8").split("---\n"), start=1)
    ]


def _case(name: str, block: str) -> Case:
    lines = block.splitlines()
    text = "".join(f"{line}\n" for line in lines if not line.startswith("> "))
    return Case(name, completed(text), tuple(line.removeprefix("> ") for line in lines if line.startswith("> ")))
