"""
The journal: what entries look like, that hostile text stays in its line, and that trouble stays out of the mail's way.
"""

import io
import json
import math
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum, IntEnum
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.observe.journal import LIST_ITEMS_MAX, STRING_CHARACTERS_MAX, Journal, plain

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
START = '{"time":"2026-11-22T12:00:00.123Z","event":'


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Number(IntEnum):
    ONE = 1


def entry(event: str, /, **fields: object) -> str:
    stream = io.StringIO()
    Journal.to(stream, lambda: NOON).write(event, **fields)
    return stream.getvalue()


def words(event: str, /, **fields: object) -> str:
    stream = io.StringIO()
    Journal.to(stream, lambda: NOON, "text").write(event, **fields)
    return stream.getvalue()


def test_an_entry_is_time_and_event_and_then_the_fields_in_their_order() -> None:
    assert entry("session", zeta=1, alpha="x") == START + '"session","zeta":1,"alpha":"x"}\n'


def test_the_time_is_written_in_utc_whatever_the_zone_of_the_clock() -> None:
    stream = io.StringIO()
    zone = timezone(timedelta(hours=2))
    Journal.to(stream, lambda: datetime(2026, 11, 22, 14, 0, tzinfo=zone)).write("x")
    assert json.loads(stream.getvalue())["time"] == "2026-11-22T12:00:00.000Z"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (7, 7),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "caf\\xe9"),
        (NOON, "2026-11-22T12:00:00.123Z"),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05.000"),  # noqa: DTZ001 - a naive time is shown as it is
        (date(2027, 3, 1), "2027-03-01"),
        (ip_address("192.0.2.1"), "192.0.2.1"),
        (ip_address("2001:db8::1"), "2001:db8::1"),
        (Colour.RED, "red"),
        (Colour.BLUE, "BLUE"),
        (Number.ONE, "ONE"),
        ([1, "a", b"b", None], [1, "a", "b", None]),
        (("x", ip_address("192.0.2.1")), ["x", "192.0.2.1"]),
        (frozenset({"b", "a"}), ["a", "b"]),
    ],
)
def test_values_are_written_as_json_knows_them(value: object, expected: object) -> None:
    assert json.loads(entry("x", value=value))["value"] == expected


def test_a_value_of_an_unforeseen_type_shows_its_type_and_not_its_text() -> None:
    class Password:
        def __str__(self) -> str:
            return "hunter2"

    assert json.loads(entry("x", value=Password()))["value"] == "<Password>"


@pytest.mark.parametrize("value", ["x" * 100_000, b"x" * 100_000])
def test_strings_are_bounded(value: object) -> None:
    shown = plain(value)
    assert isinstance(shown, str)
    assert len(shown) == STRING_CHARACTERS_MAX
    assert shown.endswith("x...")


def test_a_string_that_just_fits_is_not_shortened() -> None:
    assert plain("x" * STRING_CHARACTERS_MAX) == "x" * STRING_CHARACTERS_MAX


@pytest.mark.parametrize("value", [list(range(1000)), tuple(range(1000)), set(range(1000))])
def test_lists_are_bounded(value: object) -> None:
    shown = plain(value)
    assert isinstance(shown, list)
    assert len(shown) == LIST_ITEMS_MAX


def test_fields_cannot_replace_time_and_event() -> None:
    assert entry("true", event="false", time="never") == START + '"true"}\n'


@given(st.text(), st.binary(), st.sampled_from([entry, words]))
def test_whatever_a_client_says_an_entry_is_one_line_of_printable_ascii(
    text: str, octets: bytes, line: Callable[..., str]
) -> None:
    written = line("x", text=text, octets=octets, both=[text, octets])
    assert written.endswith("\n")
    assert all(" " <= c <= "~" for c in written[:-1])


@given(st.text(max_size=STRING_CHARACTERS_MAX))
def test_text_can_be_read_back_from_json(text: str) -> None:
    assert json.loads(entry("x", text=text))["text"] == text


def test_text_is_words_and_quotes_what_is_not_a_word() -> None:
    line = words(
        "session", client=ip_address("192.0.2.1"), helo="a b", none=None, dash="-", empty="", octets=3, ok=True
    )
    assert line == (
        '2026-11-22T12:00:00.123Z session client=192.0.2.1 helo="a b" none=- dash="-" empty="" octets=3 ok=true\n'
    )


@given(st.text(min_size=1, max_size=20))
def test_a_text_value_cannot_pass_for_another_field(text: str) -> None:
    line = words("x", helo=text, tls="none")
    value = line.removeprefix("2026-11-22T12:00:00.123Z x helo=").removesuffix(" tls=none\n")
    assert json.loads(value) == text if value.startswith('"') else value == text


class TestFile:
    def test_entries_are_appended(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        path.write_text("before\n")
        journal = Journal.to(path, lambda: NOON)
        journal.write("a")
        journal.write("b")
        assert path.read_text() == "before\n" + START + '"a"}\n' + START + '"b"}\n'
        journal.close()

    def test_a_new_file_is_not_readable_by_everybody(self, tmp_path: Path) -> None:
        journal = Journal.to(tmp_path / "journal", lambda: NOON)
        assert (tmp_path / "journal").stat().st_mode & 0o007 == 0
        journal.close()

    def test_after_a_rotation_reopen_goes_on_in_a_new_file(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        journal = Journal.to(path, lambda: NOON)
        journal.write("old")
        path.rename(tmp_path / "journal.1")
        journal.write("old")
        assert journal.reopen()
        journal.write("new")
        assert (tmp_path / "journal.1").read_text().count('"old"') == 2
        assert path.read_text() == START + '"new"}\n'
        journal.close()

    def test_if_the_file_cannot_be_reopened_entries_go_on_to_the_old_one(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        journal = Journal.to(path, lambda: NOON)
        path.rename(tmp_path / "journal.1")
        path.mkdir()
        assert not journal.reopen()
        journal.write("kept")
        assert '"kept"' in (tmp_path / "journal.1").read_text()
        journal.close()

    def test_a_file_that_cannot_be_opened_is_said_so_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Journal.to(tmp_path / "missing" / "journal", lambda: NOON)

    def test_an_entry_after_the_end_is_dropped_and_lands_in_no_other_file(self, tmp_path: Path) -> None:
        journal = Journal.to(tmp_path / "journal", lambda: NOON)
        journal.close()
        with (tmp_path / "other").open("w") as other:
            journal.write("late")
            assert other.tell() == 0
        assert (tmp_path / "other").read_text() == ""
        assert journal.dropped == 1

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_is_counted_and_not_raised(self) -> None:
        journal = Journal.to(Path("/dev/full"), lambda: NOON)
        journal.write("a")
        journal.write("b")
        assert journal.dropped == 2
        journal.close()

    def test_after_a_torn_entry_the_next_one_begins_on_a_line_of_its_own(self, tmp_path: Path) -> None:
        """
        A pipe that is almost full takes only a part of a line, as a disk does.
        """
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        journal = Journal.to(path, lambda: NOON)
        os.set_blocking(journal._sink._descriptor, False)  # type: ignore[union-attr]
        long = ["y" * STRING_CHARACTERS_MAX] * LIST_ITEMS_MAX
        while not journal.dropped:
            journal.write("long", value=long)
        read = b""
        while True:
            try:
                read += os.read(reader, 1 << 20)
            except BlockingIOError:
                break
        assert not read.endswith(b"\n")
        journal.write("next")
        assert os.read(reader, 1 << 20) == b"\n" + (START + '"next"}\n').encode()
        journal.close()
        os.close(reader)


def test_a_stream_whose_reader_is_gone_is_counted_and_not_raised() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    journal = Journal.to(stream, lambda: NOON)
    journal.write("a")
    assert journal.dropped == 1
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_closed_stream_is_counted_and_not_raised() -> None:
    stream = io.StringIO()
    journal = Journal.to(stream, lambda: NOON)
    stream.close()
    journal.write("a")
    assert journal.dropped == 1


def test_a_stream_is_left_as_it_is_by_reopen_and_close() -> None:
    stream = io.StringIO()
    journal = Journal.to(stream, lambda: NOON)
    assert journal.reopen()
    journal.close()
    journal.write("still")
    assert '"still"' in stream.getvalue()
