"""
A configuration file is read whatever is the matter with it, or it is said what that is.
"""

import os
from pathlib import Path

import pytest

from tests.config.corpus import BACKEND, TLS
from tlsgate.config import ConfigError, load

SOUND = TLS + BACKEND


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gate.toml"


def problem(file: Path) -> str:
    """
    Return the one thing that is wrong with *file*, without the file's name, which must stand before it.
    """
    with pytest.raises(ConfigError) as raised:
        load(file)
    (told,) = raised.value.problems
    assert told.startswith(f"{file}: ")
    return told.removeprefix(f"{file}: ")


def test_paths_are_relative_to_the_folder_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(SOUND)
    monkeypatch.chdir(file.parent)
    config = load("gate.toml")
    os.chdir("/")
    assert config.tls.certificates[0].chain == file.parent / "mx.pem"
    assert load(str(file)) == load(file) == config


@pytest.mark.parametrize("text", [SOUND.replace("\n", "\r\n"), SOUND.replace(" = ", "\t=\t"), f"\n\n{SOUND}#"])
def test_line_ends_and_tabs_do_not_matter(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    assert load(file).backend.endpoints == ("tcp:127.0.0.1:2525",)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_a_byte_order_mark_is_named(file: Path, mark: bytes) -> None:
    file.write_bytes(mark + SOUND.encode())
    assert problem(file) == "begins with a byte order mark; save it as UTF-8 without one"


def test_what_is_not_utf_8_is_named_with_its_line(file: Path) -> None:
    file.write_bytes(SOUND.encode() + b"# caf\xc3\xa9\n# caf\xe9\n[limits]\n")
    assert problem(file) == "line 6 is not UTF-8 (octet 0xe9)"


def test_a_missing_file_is_named(file: Path) -> None:
    assert problem(file) == "No such file or directory"


def test_a_folder_is_named(file: Path) -> None:
    file.mkdir()
    assert problem(file) == "Is a directory"


def test_an_unreadable_file_is_named(file: Path) -> None:
    file.write_text(SOUND)
    file.chmod(0)
    ourselves = os.geteuid()
    if ourselves == 0:
        os.seteuid(65_534)  # nobody: root may read everything
    try:
        assert problem(file) == "Permission denied"
    finally:
        os.seteuid(ourselves)


def test_a_path_through_a_file_is_named(file: Path) -> None:
    file.write_text(SOUND)
    assert problem(file / "gate.toml") == "Not a directory"


def test_a_name_that_can_be_none_is_named(tmp_path: Path) -> None:
    assert problem(tmp_path / "gate\x00.toml") == "cannot be the path of a file"


def test_a_circle_of_links_is_named(file: Path) -> None:
    file.symlink_to(file)
    assert problem(file) == "Too many levels of symbolic links"


def test_what_never_ends_is_not_read_to_its_end() -> None:
    assert problem(Path("/dev/zero")).startswith("is larger than")


def test_an_empty_file_lacks_what_it_lacks(file: Path) -> None:
    file.write_bytes(b"")
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert raised.value.problems == (
        'backend: is missing; write backend = { endpoints = ["tcp:127.0.0.1:2525"] }',
        'tls.certificates: level "required" offers TLS; write certificates = [{ chain = "mx.pem", key = "mx.key" }]',
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("listen", "at end of document"),
        ("a = 1\na = 2\n", "at line 2, column 6"),
        ('[tls]\nfloor = "TLSv1.2\n', "at line 2, column 17"),
        ('a = "tcp:\\:\\:1:25"\n', "at line 1, column 12"),
        ("a = yes\n", "at line 1, column 5"),
        ("a = 2027-02-30\n", "at line 1, column 5"),
    ],
)
def test_what_is_not_toml_is_named_with_its_place(file: Path, text: str, place: str) -> None:
    file.write_text(text)
    told = problem(file)
    assert told.startswith("not TOML: ")
    assert told.endswith(f"({place})")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 100_000, f"a = {'9' * 100_000}\n", "\x00", "\x1b[31m = 1", "a = 1\rb = 2"]
)
def test_what_would_break_a_parser_is_still_only_a_problem(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    told = problem(file)
    assert told.startswith("not ")
    assert told.isprintable()


def test_the_error_shows_one_problem_per_line(file: Path) -> None:
    file.write_text('hostnam = "x"\n[limit]\n' + SOUND)
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert str(raised.value) == "hostnam: unknown key; did you mean hostname?\nlimit: unknown key; did you mean limits?"
