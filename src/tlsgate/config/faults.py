"""
How a fault of the configuration is found, named and told.

Every fault carries its key path ("level[0].min_version"), what is wrong, and what would be right. Nothing stops at the
first one: a faulty value is noted, its default takes its place, and reading goes on.
"""

import itertools
import json
import re
from collections.abc import Collection
from datetime import datetime

from attrs import Factory, define

_TEXT_SHOWN_MAX = 60
_NAMES_SHOWN_MAX = 20
_NUMBER_SHOWN_MAX = 10**18
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ConfigError(Exception):
    """
    The configuration cannot be used. *problems* lists every fault found, each with its key.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Fault(Exception):  # noqa: N818 - it never leaves this package, and "fault" is the word used all over it
    """
    One value is wrong; the text says what, and what would be right.
    """


class Unusable(Exception):  # noqa: N818 - not an error of its own: its faults have been noted already
    """
    A table cannot be built; why has been noted.
    """


@define
class Findings:
    """
    The faults found so far, in order, each a key path and a text.
    """

    # A dictionary for its order and for the quick look: a file may well have ten thousand faults.
    _entries: dict[tuple[str, str], None] = Factory(dict)
    _at_fault: set[str] = Factory(set)

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, path: str, text: str) -> None:
        """
        Add a fault, unless the same one is known.
        """
        self._entries[path, text] = None
        while path:
            self._at_fault.add(path)
            path = path[: max(path.rfind("."), path.rfind("["), 0)]

    def clean(self, path: str) -> bool:
        """
        Whether neither the key at *path* nor anything inside it is at fault.
        """
        return path not in self._at_fault

    def names_known(self, table: str) -> bool:
        """
        Whether every entry of the array of tables *table* has told its name.
        """
        nameless = re.compile(rf"{table}(\[\d+\](\.name)?)?")
        return not any(nameless.fullmatch(path) for path, _ in self._entries)

    def entries(self) -> tuple[tuple[str, str], ...]:
        """
        Return all faults as (key path, text).
        """
        return tuple(self._entries)


def told(path: str, text: str) -> str:
    """
    Return a fault or a warning as one line.
    """
    return f"{path}: {text}" if path else text


def shown(value: object) -> str:
    """
    Return *value* as a message may show it: bounded, ASCII, no control characters.
    """
    match value:
        case str():
            quoted = json.dumps(value[:_TEXT_SHOWN_MAX]).replace("\x7f", "\\u007f")
            text = f"{quoted}..." if len(value) > _TEXT_SHOWN_MAX else quoted
        case bool():
            text = "true" if value else "false"
        case int():
            text = str(value) if abs(value) < _NUMBER_SHOWN_MAX else "a huge number"
        case dict():
            text = "a table"
        case list():
            text = "a list"
        case datetime():
            text = value.isoformat()
        case _:
            text = str(value)
    return text


def choices(names: Collection[str]) -> str:
    """
    Return the *names* there are to choose from, the first of them if they are many.
    """
    first = ", ".join(itertools.islice(names, _NAMES_SHOWN_MAX))
    return first if len(names) <= _NAMES_SHOWN_MAX else f"{first} ... ({len(names)} in all)"


def key_shown(key: str) -> str:
    """
    Return *key* as it would stand in the file, quoted where TOML asks for it.
    """
    return key if _BARE_KEY.fullmatch(key) and len(key) <= _TEXT_SHOWN_MAX else shown(key)
