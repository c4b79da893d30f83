"""
Data as TOML gives it -> the tree, going by the annotations in `tree.py`, with every fault noted.

Nothing is coerced: a number in quotes is not a number, `true` is not 1, a single value is not a list.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from attrs import NOTHING, Attribute, fields, frozen, has
from cattrs import Converter

from tlsgate.config import values
from tlsgate.config.faults import Fault, Findings, Unusable, key_shown, shown
from tlsgate.config.tree import EXAMPLE, INSTEAD, KEY, Config, Journal, Ramp

_PATH_MAX = 4_096


@frozen
class _Place:
    """
    Where the reader is: the key path of the value in hand.
    """

    path: str = ""

    def key(self, key: str) -> "_Place":
        return _Place(f"{self.path}.{key_shown(key)}" if self.path else key_shown(key))

    def entry(self, index: int) -> "_Place":
        return _Place(f"{self.path}[{index}]")


class Reader:
    """
    Reads one configuration. Faults are noted in *findings*; paths of files are relative to *base*.
    """

    def __init__(self, base: Path, findings: Findings) -> None:
        self._base = base
        self._findings = findings
        self._place = _Place()
        self._converter = Converter()
        # Classes and types made of other types are registered apart, or cattrs' own hooks, which coerce, come first.
        for kind, hook in (
            (str, _text),
            (bool, _truth),
            (int, _number),
            (Path, self._path),
            (datetime, lambda value, _: values.moment(value)),
            (values.Network, lambda value, _: values.network(value)),
            (Journal, self._journal),
            (bool | Ramp, self._enforcement),
        ):
            self._converter.register_structure_hook(kind, hook)
        for predicate, hook in (
            (_is_made_of(Literal), _choice),
            (_is_made_of(Annotated), self._checked),
            (_is_made_of(tuple), self._list),
            (has, self._table),
            (_is_optional, self._optional),
        ):
            self._converter.register_structure_hook_func(predicate, hook)

    def read(self, data: dict[str, Any]) -> Config:
        """
        Return the tree. A faulty value is replaced by its default, an entry that cannot do without it is left out.
        """
        config: Config = self._converter.structure(data, Config)
        return config

    @contextmanager
    def _at(self, place: _Place) -> Iterator[None]:
        """
        Go to *place*, note the fault found there if there is one, come back.
        """
        outside, self._place = self._place, place
        try:
            yield
        except Fault as fault:
            self._findings.note(place.path, str(fault))
        except Unusable:
            pass
        finally:
            self._place = outside

    def _table(self, value: object, kind: Any) -> object:
        if not isinstance(value, dict):
            hint = f"; write [{self._place.path}], once" if isinstance(value, list) else ""
            raise Fault(f"{shown(value)} is not a table{hint}")
        place = self._place
        known = {key: attribute for attribute in fields(kind) if (key := _key_of(attribute)) is not None}
        arguments: dict[str, Any] = {"at": place.path}
        for key, entry in value.items():
            with self._at(place.key(key)):
                if key not in known:
                    raise Fault(_unknown(key, list(known)))
                attribute = known[key]
                arguments[attribute.name] = self._converter.structure(entry, attribute.type)
        for key, attribute in known.items():
            if attribute.default is not NOTHING or attribute.name in arguments:
                continue
            if key not in value:
                self._findings.note(place.key(key).path, f"is missing; write {key} = {attribute.metadata[EXAMPLE]}")
            if INSTEAD not in attribute.metadata:
                raise Unusable
            arguments[attribute.name] = attribute.metadata[INSTEAD]
        return kind(**arguments)

    def _list(self, value: object, kind: Any) -> tuple[object, ...]:
        element = get_args(kind)[0]
        if not isinstance(value, list):
            raise Fault(f"{shown(value)} is not a list{self._list_hint(value, element)}")
        place = self._place
        entries = []
        for index, entry in enumerate(value):
            with self._at(place.entry(index)):
                entries.append(self._converter.structure(entry, element))
        return tuple(entries)

    def _list_hint(self, value: object, element: Any) -> str:
        if has(element):
            return f"; write [[{self._place.path}]]" if isinstance(value, dict) else ""
        return f"; write [{shown(value)}]" if isinstance(value, str) else ""

    def _checked(self, value: object, kind: Any) -> object:
        inner, *checks = get_args(kind)
        known = len(self._findings)
        result = self._converter.structure(value, inner)
        for check in checks if len(self._findings) == known else ():
            result = check(result)
        return result

    def _optional(self, value: object, kind: Any) -> object:
        (inner,) = (argument for argument in get_args(kind) if argument is not NoneType)
        return self._converter.structure(value, inner)

    def _path(self, value: object, _: object) -> Path:
        if not isinstance(value, str):
            raise Fault(f'{shown(value)} is not the path of a file, such as "mx.pem"')
        if not value or "\x00" in value or len(value) > _PATH_MAX:
            raise Fault(f"{shown(value)} cannot be the path of a file")
        return self._base / value

    def _journal(self, value: object, kind: object) -> object:
        if value in ("json", "text"):
            return value
        if not isinstance(value, str) or "/" not in value:
            raise Fault(f'{shown(value)} is not one of json, text, nor the path of a file, such as "./journal.log"')
        return self._path(value, kind)

    def _enforcement(self, value: object, _: object) -> object:
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            raise Fault(f"{shown(value)} is not true, false, nor a table such as {{ from = 2027-01-31, share = 25 }}")
        return self._table(value, Ramp)


def _text(value: object, _: object) -> str:
    if not isinstance(value, str):
        quotes = "" if isinstance(value, list | dict) else "; write it in quotes"
        raise Fault(f"{shown(value)} is not text{quotes}")
    return value


def _truth(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        quotes = "; write it without quotes" if value in ("true", "false") else ""
        raise Fault(f"{shown(value)} is not true or false{quotes}")
    return value


def _number(value: object, _: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        quotes = "; write it without quotes" if isinstance(value, str) and value.isdecimal() else ""
        raise Fault(f"{shown(value)} is not a whole number{quotes}")
    return value


def _choice(value: object, kind: Any) -> object:
    choices = get_args(kind)
    if not isinstance(value, str) or value not in choices:
        raise Fault(f"{shown(value)} is not one of {', '.join(choices)}")
    return value


def _is_made_of(origin: object) -> Callable[[Any], bool]:
    """
    Return the question whether a type is made of *origin*, as `tuple[int, ...]` is of `tuple`.
    """
    return lambda kind: get_origin(kind) is origin


def _is_optional(kind: object) -> bool:
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def _key_of(attribute: "Attribute[Any]") -> str | None:
    """
    Return the key that stands for an attribute in the file, `None` if none does.
    """
    key: str | None = attribute.metadata.get(KEY, attribute.name)
    return key


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known here: {', '.join(known)}"
