"""
Tests of the tools of tests: a playbook fails where it should, and says why.
"""

import pytest

from tests.support.cuts import at, bytewise, cuttings
from tests.support.dialogue import play, play_once
from tests.support.stage import Stage, terms
from tlsgate.session.actions import CloseClient, DialBackend, SendBackend, SendClient, StartTls

GREETED = "client < 220 mx.example.org ESMTP\n"


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("client > NOOP\nclient < 250 2.0.0 Okay\n", "- client < 250 2.0.0 Okay"),
        ("client > NOOP\n", "+ client < 250 2.0.0 OK"),
        ("client > NOOP\nclient < 250 2.0.0 OK\ndial\n", "- dial"),
        ("client > QUIT\nclient < 221 ...\n", "+ close"),
        ("client >> NOOP\\r\nclient < 250 ...\n", "- client < 250 ..."),
    ],
)
def test_a_wrong_script_fails_with_its_difference(script: str, line: str) -> None:
    """What the script says and does not happen has a minus, what happens and it does not say has a plus."""
    with pytest.raises(AssertionError) as caught:
        play(terms(), script, after=GREETED)
    assert line in str(caught.value)


def test_a_line_that_says_nothing() -> None:
    """A misspelt line is no silence."""
    with pytest.raises(AssertionError, match="not a line of a dialogue: clint > NOOP"):
        play_once(terms(), "clint > NOOP", after=GREETED)


@pytest.mark.parametrize(
    "action",
    [SendBackend(b"NOOP\r\n"), SendClient(b""), SendClient(b"250-half\r\n"), StartTls()],
)
def test_a_stage_fails_what_no_world_can_do(action: object) -> None:
    """Octets to a backend that is not there, nothing, half a reply, TLS without a 220."""
    with pytest.raises(AssertionError):
        Stage(terms())._perform([action])  # type: ignore[list-item]


def test_a_stage_fails_what_comes_behind_the_end() -> None:
    """The last word is the last."""
    for action in (SendClient(b"250 ok\r\n"), DialBackend(), CloseClient()):
        with pytest.raises(AssertionError):
            Stage(terms()).client(b"QUIT\r\n")._perform([action])


def test_a_stage_fails_a_command_before_the_level() -> None:
    """Law 3 is watched at every step."""
    stage = Stage(terms())
    stage._perform([DialBackend()])
    stage.leg = "up"
    with pytest.raises(AssertionError, match="law 3"):
        stage._perform([SendBackend(b"NOOP\r\n")])


def test_cuts() -> None:
    """However octets are cut, they stay the same."""
    assert list(cuttings(b"ab")) == [[b"ab"], [b"a", b"b"], [b"", b"ab"], [b"a", b"b"], [b"ab", b""]]
    assert bytewise(b"") == []
    assert at(b"abc", [5, 1]) == [b"a", b"", b"bc"]
