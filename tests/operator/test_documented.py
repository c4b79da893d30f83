"""
The documents explain each of the gate's replies, each journal event, and each key of the configuration.
"""

import re
from pathlib import Path

import attrs
import pytest

from tlsgate.config import tree
from tlsgate.observe.metrics import (
    BACKEND_FAILURES,
    NONE,
    OTHER,
    OUTCOMES,
    REFUSALS,
    SESSION_OUTCOMES,
    STAGES,
    TRANSACTION_OUTCOMES,
    Metrics,
)
from tlsgate.smtp import reply
from tlsgate.smtp.reply import Reply

ROOT = Path(__file__).parents[2]
DOCUMENT = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
REPLIES = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}
WRITTEN = re.compile(r'(?:witness\.record|self\.record|_record|_journal|\bjournal|\bRecord)\(\s*"([a-z-]+)"')
SOURCES = {path: path.read_text() for path in (ROOT / "src").rglob("*.py")}


def events() -> set[str]:
    """
    Return the events that the sources write to the journal.
    """
    return {event for source in SOURCES.values() for event in WRITTEN.findall(source)}


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_of_the_gates_is_explained(name: str) -> None:
    assert f"`{REPLIES[name].encode().decode('ascii').strip()}`" in DOCUMENT


def test_every_journal_event_is_explained() -> None:
    assert {"session", "transaction", "verdict"} <= events()
    assert [event for event in sorted(events()) if f"`{event}`" not in DOCUMENT] == []


@pytest.mark.parametrize("module", ["session/session.py", "session/transaction.py", "session/gatekeeper.py"])
def test_every_field_of_the_journal_is_explained(module: str) -> None:
    operation = (ROOT / "docs" / "operation.md").read_text()
    fields = set(re.findall(r'^ +"(\w+)": ', SOURCES[ROOT / "src/tlsgate" / module], re.MULTILINE))
    assert {"outcome"} <= fields or {"tls"} <= fields
    assert [name for name in sorted(fields) if f"`{name}`" not in operation] == []


def test_every_series_is_explained() -> None:
    operation = (ROOT / "docs" / "operation.md").read_text()
    series = {family.name.removeprefix("tlsgate_") for family in Metrics().registry.collect()}
    watched = {name for source in SOURCES.values() for name in re.findall(r'metrics\.watch\(\s*"(\w+)"', source)}
    assert "sessions_open" in watched
    assert [name for name in series | watched if not re.search(rf"`{name}(_total)?`", operation)] == []


def test_every_word_of_a_label_is_explained() -> None:
    operation = (ROOT / "docs" / "operation.md").read_text()
    words = {*STAGES, *OUTCOMES, *TRANSACTION_OUTCOMES, *SESSION_OUTCOMES, OTHER, NONE}
    words |= {*REFUSALS.values(), *BACKEND_FAILURES.values()}
    assert [word for word in sorted(words) if f"`{word}`" not in operation] == []


def keys() -> list[tuple[str, str]]:
    """
    Return the keys of the configuration file that the gate goes by, each behind its table's class.
    """
    used = "".join(source for path, source in SOURCES.items() if not {"config", "operator"} & set(path.parts))
    tables = [value for value in vars(tree).values() if isinstance(value, type) and issubclass(value, tree.Table)]
    return [
        (table.__name__, key)
        for table in tables
        if table is not tree.Config
        for field in attrs.fields(table)
        if (key := field.metadata.get(tree.KEY, field.name)) is not None and f".{field.name}" in used
    ]


@pytest.mark.parametrize(("table", "key"), keys())
def test_every_key_of_the_configuration_is_explained(table: str, key: str) -> None:
    assert f"`{key}`" in DOCUMENT
