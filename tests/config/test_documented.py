"""
docs/policy.md and docs/backends.md tell every key with its default, and their examples are configurations.
"""

import re
from pathlib import Path

import attrs
import pytest

from tests.config.corpus import BASE
from tlsgate.config import BUILT_IN_LEVELS, Certificate, Config, Level, Listener, Ramp, Rule, Tls, parse
from tlsgate.config.tree import KEY, Backend, BackendGroup, Dns, Limits, Message, Observe

ROOT = Path(__file__).parents[2] / "docs"
DOCUMENT = (ROOT / "policy.md").read_text("utf-8")
BACKENDS = (ROOT / "backends.md").read_text("utf-8")
EXAMPLES = re.findall(r"^### (S\d)\. .*?^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
ROWS = re.compile(r"^\| `(\w+)` \| (.*?) \| .+ \|$", re.MULTILINE)

LISTENING = """
[[listener]]
endpoint = "tcp:2525"
level = "offered"
[tls]
certificates = [{ chain = "mx.pem", key = "mx.key" }]
"""

# Keys whose default depends on another key, or must be given.
SPECIAL = {"name": {"the endpoint", "needed"}, "floor": {'`"TLSv1.2"`'}, "authenticated": {"`true`"}}


def rows_below(heading: str, document: str = DOCUMENT) -> dict[str, str]:
    """
    Return the first table of keys below *heading*: key -> default.
    """
    below = document[document.index(heading) :]
    table = below[below.index("| key | default | meaning |") :].partition("\n\n")[0]
    return dict(ROWS.findall(table))


def default_of(attribute: "attrs.Attribute[object]") -> str:
    """
    Return the default of a key as the document writes it.
    """
    match attribute.default:
        case attrs.NOTHING:
            return "needed"
        case None:
            return "none"
        case bool() as truth:
            return f"`{str(truth).lower()}`"
        case tuple():
            return "`[]`"
        case int() as number:
            return f"`{number}`"
        case text:
            return f'`"{text}"`'


def test_each_scenario_has_its_example() -> None:
    assert [name for name, _ in EXAMPLES] == [f"S{number}" for number in range(1, 9)]
    assert DOCUMENT.count("```toml") == len(EXAMPLES)


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_each_example_is_a_configuration_without_a_warning(name: str, text: str) -> None:
    assert parse(text, BASE).warnings == (), name


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("## `[[listener]]`", Listener),
        ("## `[tls]`", Tls),
        ("`certificates` may hold", Certificate),
        ("## `[[level]]`", Level),
        ("### The ramp", Ramp),
        ("## `[[rule]]`", Rule),
    ],
)
def test_each_key_is_told_with_its_default(heading: str, table: type) -> None:
    same_keys(rows_below(heading), table)


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("## `[backend]`", Backend),
        ("## `[[backend_group]]`", BackendGroup),
        ("#### `[dns]`", Dns),
        ("## `[message]`", Message),
        ("## `[limits]`", Limits),
        ("## `[observe]`", Observe),
    ],
)
def test_each_key_of_the_way_to_the_backends_is_told(heading: str, table: type) -> None:
    same_keys(rows_below(heading, BACKENDS), table)


def test_the_key_that_belongs_to_no_table_is_told() -> None:
    tables = {"listener", "tls", "level", "rule", "backend", "backend_group", "dns", "message", "limits", "observe"}
    keys = {attribute.metadata.get(KEY, attribute.name) for attribute in attrs.fields(Config)} - {None}
    assert keys - tables == {"hostname"}
    assert "`hostname = " in DOCUMENT.partition("\n## ")[0]


def test_each_key_is_told_in_one_place() -> None:
    """
    What stands twice drifts.
    """
    homes = {"policy.md", "backends.md"}
    tables = {
        path.name for path in ROOT.rglob("*.md") if re.search(r"^\| key[ |]", path.read_text("utf-8"), re.MULTILINE)
    }
    assert tables == homes


def test_each_example_of_a_backend_is_a_configuration() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", BACKENDS, re.MULTILINE | re.DOTALL)
    assert examples
    for text in examples:
        # One that shows only the way to the backend needs a listener to be whole.
        parse(text if "[[listener]]" in text else LISTENING + text, BASE)


def same_keys(told: dict[str, str], table: type) -> None:
    """
    Assert that what is *told*, key -> default, are the keys of *table* in their order.
    """
    fields = {attribute.metadata.get(KEY, attribute.name): attribute for attribute in attrs.fields(table)}
    fields.pop(None)
    assert list(told) == list(fields)
    for key, attribute in fields.items():
        assert told[key] in SPECIAL.get(key, {default_of(attribute)}), key


def test_each_built_in_level_is_told() -> None:
    table = DOCUMENT[DOCUMENT.index("## Built-in levels") :].partition("\n\nThey cannot")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(BUILT_IN_LEVELS)
