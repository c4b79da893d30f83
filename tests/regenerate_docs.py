"""
The tables of docs/session.md, written from the code they describe: `python -m tests.regenerate_docs`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tlsgate import translation
from tlsgate.config import Limits
from tlsgate.session import session
from tlsgate.session.phases import Leg, Phase, Waiting
from tlsgate.session.verbs import UNKNOWN, VERBS, Verb, verb
from tlsgate.smtp import reply
from tlsgate.smtp.reply import Reply

DOCUMENT = Path(__file__).parents[1] / "docs" / "session.md"

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CATALOGUED = re.compile(r"([A-Z][A-Z_]*) = Reply\(.*?\)(?:  # (.*))?")
_TIMEOUTS = (
    "client_timeout_seconds",
    "handshake_timeout_seconds",
    "backend_timeout_seconds",
    "end_of_data_timeout_seconds",
)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """
    Return a table in Markdown.
    """
    heads = list(heads)
    lines = ["|" + "---|" * len(heads), *("| " + " | ".join(cells) + " |" for cells in rows)]
    return "\n".join(["", "| " + " | ".join(heads) + " |", *lines, "", ""]).replace("|  |", "| |")


def phases() -> str:
    """
    Return what the client's next octets may be, and which method takes them in.
    """
    return _table(
        ("phase", "the client's next octets are", "read by"),
        ((f"`{phase.name}`", phase.value, f"`{session._READERS[phase].__qualname__}`") for phase in Phase),
    )


def legs() -> str:
    """
    Return how far the backend's connection may be.
    """
    return _table(("leg", "the connection to the backend is"), ((f"`{leg.name}`", leg.value) for leg in Leg))


def waits() -> str:
    """
    Return whom a session may wait for, with the key of the configuration that says for how long.
    """
    numbers: dict[str, Any] = {key: number for number, key in enumerate(_TIMEOUTS, start=1)}
    told_apart = Limits(**numbers)
    timeouts, defaults = translation.timeouts(told_apart), translation.timeouts(Limits())

    def row(waiting: Waiting) -> tuple[str, str, str, str]:
        number, seconds = timeouts.of(waiting), defaults.of(waiting)
        if number is None or seconds is None:
            return f"`{waiting.name}`", waiting.value, "", ""
        return f"`{waiting.name}`", waiting.value, f"`{_TIMEOUTS[int(number) - 1]}`", f"{seconds:g}"

    return _table(("waiting", "for", "key of `[limits]`", "seconds"), map(row, Waiting))


def verbs() -> str:
    """
    Return what is done with each verb.
    """

    def row(name: str, entry: Verb) -> tuple[str, str, str, str]:
        if not entry.relayed:
            return name, "no", "", "`502 5.5.1`, the gate's own"
        return name, "yes", "yes" if entry.ends_group else "", entry.what.value

    # The one verb that is not in the table of the session: it never gets that far.
    rows = [("`STARTTLS`", "no", "yes", "the gate's own answer")]
    rows += [row(f"`{name.decode('ascii')}`", entry) for name, entry in VERBS.items()]
    rows.append(row("any other `X...`", verb(b"X-ANY")))
    rows.append(row("any other that begins with four letters of one above (`RCPTX`)", verb(b"RCPTX")))
    rows.append(row("any other", UNKNOWN))
    return _table(("verb", "relayed", "ends a group", "what the backend's reply means to the gate"), rows)


def _sources() -> Mapping[str, str]:
    """
    Return from which RFC each reply is, as the comments of its module say: one above a group, one behind a reply.
    """
    group, sources = "", {}
    for line in Path(reply.__file__).read_text("utf-8").splitlines():
        catalogued = _CATALOGUED.fullmatch(line)
        if line.startswith("# "):
            group = line.removeprefix("# ") if line.startswith("# RFC ") else ""
        elif catalogued is not None:
            name, behind = catalogued[1], catalogued[2] or ""
            whole = behind if behind.startswith("RFC") else f"{group or 'RFC 5321'} {behind}".strip()
            sources[name] = whole if group or behind else ""
    return sources


def replies() -> str:
    """
    Return the whole catalogue of the gate's own replies.
    """
    sources = _sources()
    catalogue = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}
    return _table(
        ("code", "enhanced", "text", "in the code", "from"),
        (
            (str(value.code), value.enhanced, value.text, f"`{name}`", sources[name])
            for name, value in sorted(catalogue.items(), key=lambda entry: (entry[1].code, entry[1].enhanced))
        ),
    )


TABLES: Mapping[str, Callable[[], str]] = {
    "phases": phases,
    "legs": legs,
    "waits": waits,
    "verbs": verbs,
    "replies": replies,
}


def regenerated(document: str) -> str:
    """
    Return *document* with every table written anew.
    """
    return _TABLE.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], document)


if __name__ == "__main__":
    DOCUMENT.write_text(regenerated(DOCUMENT.read_text("utf-8")), "utf-8")
