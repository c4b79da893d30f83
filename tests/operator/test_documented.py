"""
docs/operation.md says what each of the gate's replies and journal events means: all of them.
"""

import re
from pathlib import Path

import pytest

from tlsgate.smtp import reply
from tlsgate.smtp.reply import Reply

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operation.md").read_text()
REPLIES = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}
WRITTEN = re.compile(r'''(?:_record|_journal|\bjournal|\bRecord)\(\s*"([a-z-]+)"''')


def events() -> set[str]:
    """
    Return the events that the sources write to the journal.
    """
    return {event for path in (ROOT / "src").rglob("*.py") for event in WRITTEN.findall(path.read_text())}


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_of_the_gates_is_explained(name: str) -> None:
    assert f"`{REPLIES[name].encode().decode('ascii').strip()}`" in DOCUMENT


def test_every_journal_event_is_explained() -> None:
    assert {"session", "transaction", "verdict"} <= events()
    assert [event for event in sorted(events()) if f"`{event}`" not in DOCUMENT] == []
