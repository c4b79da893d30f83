"""
Phase by input, exhaustively: whatever comes, wherever the session stands, it answers; it never raises, and the laws that
`tests.support.stage` watches hold.
"""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import pytest

from tests.policy.samples import TLS12_CBC, TLS13
from tests.session.preludes import (
    DATA,
    GREETED,
    INSIDE,
    MODERN,
    OFFERED,
    OFFERED_EHLO,
    OLD,
    STARTED,
    TLS,
    TRANSACTION,
    WEAK_TLS,
)
from tests.support.dialogue import play_once
from tests.support.stage import Stage, terms
from tlsgate.session.bounds import Bounds
from tlsgate.session.phases import Phase
from tlsgate.session.verbs import VERBS
from tlsgate.smtp.message import BareNewlines
from tlsgate.smtp.reply import SHUTTING_DOWN

SMALL = Bounds(
    line_octets_max=600, sasl_octets_max=900, pipeline_max=8, held_octets_max=4000, pause_above_octets=400, errors_max=5
)

AUTH = """
    client  > AUTH LOGIN
    backend < AUTH LOGIN
"""
CHUNK = """
    client >> BDAT 10\\r\\n123
    backend << BDAT 10\\r\\n123
"""
NOOPS = """
    client  > NOOP 1
    client  > NOOP 2
    backend < NOOP 1
    backend < NOOP 2
"""

# What it is called, the level, changes to the terms, the dialogue that leads there, and the phase that it leads to.
BEGINNINGS: list[tuple[str, str, dict[str, Any], str, Phase]] = [
    ("TLS demanded", "required", {}, GREETED, Phase.COMMANDS),
    ("TLS demanded, swallowing a chunk", "required", {}, GREETED + "client >> BDAT 10\\r\\n123\n", Phase.CHUNK),
    ("handshaking, dialling", "strong", {}, STARTED, Phase.DISCARDED),
    ("handshaking, backend there", "strong", {}, STARTED + "backend > 220 x\n", Phase.DISCARDED),
    ("handshaking, no backend", "strong", {}, STARTED + "backend lost\n", Phase.DISCARDED),
    ("handshaking, implicit TLS", "strong", {"implicit": True}, "dial\n", Phase.DISCARDED),
    ("dialling", "required", {}, STARTED + TLS + "\n", Phase.COMMANDS),
    ("dialling, implicit TLS", "required", {"implicit": True}, "dial\n" + TLS + "\n", Phase.COMMANDS),
    ("dialling, TLS offered", "offered", {}, "dial\n", Phase.COMMANDS),
    ("greeted, TLS offered", "offered", {}, OFFERED, Phase.COMMANDS),
    ("commands, TLS offered", "offered", {}, OFFERED_EHLO + TRANSACTION, Phase.COMMANDS),
    (
        "STARTTLS waits",
        "offered",
        {},
        OFFERED_EHLO + "client > NOOP\nclient > STARTTLS\nbackend < NOOP\n",
        Phase.DISCARDED,
    ),
    ("greeted inside TLS", "required", {}, INSIDE, Phase.COMMANDS),
    ("commands", "required", {}, MODERN, Phase.COMMANDS),
    ("commands, old backend", "required", {}, OLD, Phase.COMMANDS),
    ("commands under way", "required", {}, MODERN + NOOPS, Phase.COMMANDS),
    ("transaction", "required", {}, MODERN + TRANSACTION, Phase.COMMANDS),
    ("held by EHLO", "required", {}, INSIDE + "client > EHLO x\nbackend < EHLO x\n", Phase.HELD),
    (
        "held by HELO",
        "required",
        {},
        INSIDE + "client > EHLO x\nbackend < EHLO x\nbackend > 500 what\nbackend < HELO x\n",
        Phase.HELD,
    ),
    ("EHLO waits", "required", {}, MODERN + "client > NOOP\nclient > EHLO x\nbackend < NOOP\n", Phase.HELD),
    ("held by DATA", "required", {}, MODERN + TRANSACTION + "client > DATA\nbackend < DATA\n", Phase.HELD),
    ("message", "required", {}, MODERN + DATA + "client >> a\nbackend << a\n", Phase.MESSAGE),
    (
        "message to be rejected",
        "required",
        {"bare_newlines": BareNewlines.REJECT},
        MODERN + DATA + "client >> a\\nb\ndrop\n",
        Phase.MESSAGE,
    ),
    ("message sent", "required", {}, MODERN + DATA + "client > .\nbackend < .\n", Phase.COMMANDS),
    ("message sent to an old backend", "required", {}, OLD + DATA + "client > .\nbackend < .\n", Phase.HELD),
    ("chunk", "required", {}, MODERN + TRANSACTION + CHUNK, Phase.CHUNK),
    ("chunk swallowed", "required", {}, OLD + TRANSACTION + "client >> BDAT 10\\r\\n123\n", Phase.CHUNK),
    ("held by AUTH", "required", {}, MODERN + AUTH, Phase.HELD),
    ("SASL", "required", {}, MODERN + AUTH + "backend > 334 x\nclient < 334 x\n", Phase.SASL),
    ("held by QUIT", "required", {}, MODERN + "client > QUIT\nbackend < QUIT\n", Phase.HELD),
    ("refusing", "strong", {}, STARTED + WEAK_TLS + "\ndrop\n", Phase.REFUSING),
    (
        "refusing, swallowing a chunk",
        "strong",
        {},
        STARTED + WEAK_TLS + "\ndrop\nclient >> BDAT 10 LAST\\r\\n123\n",
        Phase.CHUNK,
    ),
    ("refusing, no backend", "required", {}, STARTED + TLS + "\nbackend lost\n", Phase.REFUSING),
    ("ended", "required", {}, GREETED + "client > QUIT\nclient < 221 2.0.0 ...\nclose\n", Phase.ENDED),
]
PHASES: dict[str, tuple[Callable[[], Stage], Phase]] = {
    name: (partial(play_once, terms(level, bounds=SMALL, **changes), script), phase)
    for name, level, changes, script, phase in BEGINNINGS
}

ARGUMENTS = {
    b"MAIL": b" FROM:<x@example.org>",
    b"RCPT": b" TO:<y@example.org>",
    b"BDAT": b" 5 LAST",
    b"EHLO": b" name.example",
    b"HELO": b" name.example",
    b"AUTH": b" PLAIN AGEAYg==",
}
COMMANDS = [
    verb + ARGUMENTS.get(verb, b"") + b"\r\n" for verb in [*VERBS, b"STARTTLS", b"XEXCH50", b"X-EXPS", b"FROBNICATE"]
]
FROM_CLIENT = [
    *COMMANDS,
    b"MAIL\r\n",
    b"STARTTLS x\r\n",
    b"starttls\r\nNOOP\r\n",
    b"BDAT\r\n",
    b"BDAT 0\r\n",
    b"BDAT 99999999999999999999\r\n",
    b"BDAT 6\r\nQUIT\r\n",
    b"AUTH EXTERNAL\r\n",
    b"AUTH SCRAM-SHA-256-PLUS\r\n",
    b"AUTH\r\n",
    b"",
    b"\r\n",
    b"\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r\n.\r\nQUIT\r\n",
    b"*\r\n",
    b"AGEAYg==\r\n",
    b"\x00\r\n",
    b"NOOP\x00\r\n",
    b"NOOP\n",
    b"NOOP\rXCLIENT\r\n",
    b" XCLIENT\r\n",
    b"NOOP",
    b"\xff\xfe\x00\x01" * 10,
    b"a" * 700 + b"\r\n",
    b"a" * 950 + b"\r\n",
    b"a" * 3000,
    b"AUTH PLAIN " + b"a" * 700 + b"\r\n",
    b"NOOP\r\n" * 6,
    b"XCLIENT\r\n" * 6,
    b"MAIL FROM:<x@example.org>\r\nRCPT TO:<y@example.org>\r\nDATA\r\ntext\r\n.\r\n",
]
FROM_BACKEND = [
    *(
        b"%d said\r\n" % code
        for code in (200, 220, 221, 235, 250, 299, 300, 334, 354, 421, 450, 500, 502, 535, 550, 554)
    ),
    b"250-one\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 XCLIENT\r\n",
    b"250-half\r\n",
    b"25",
    b"250 a\r\n550 b\r\n",
    b"354 a\r\n250 b\r\n",
    b"220 a\r\n220 b\r\n",
    b"250-a\r\n251 b\r\n",
    b"100 wait\r\n",
    b"rubbish\r\n",
    b"\n",
    b"\x00\xff",
    b"2" * 70_000,
]


def backend_says(octets: bytes, stage: Stage) -> object:
    """
    Have the backend say *octets*, or greet if it has not done so yet.
    """
    return stage.backend(b"220 late\r\n" if stage.leg == "dialling" else octets)


def handshake(facts: object, stage: Stage) -> object:
    """
    Complete the handshake, if one runs.
    """
    return stage.handshake(facts) if stage.handshaking and not stage.closed else None  # type: ignore[arg-type]


def event_of(who: str, octets: bytes) -> str:
    """
    Return the name of the event that *who* says *octets*.
    """
    return f"{who} {octets[:40]!r} {len(octets)}"


OTHERS: dict[str, Callable[[Stage], object]] = {
    "backend lost": Stage.backend_lost,
    "client lost": Stage.client_lost,
    "silence": Stage.silence,
    "drain": Stage.drain,
    "refuse": lambda stage: stage.refuse(SHUTTING_DOWN),
    "good TLS": partial(handshake, TLS13),
    "weak TLS": partial(handshake, TLS12_CBC),
}
EVENTS: dict[str, Callable[[Stage], object]] = {
    **{
        event_of("client", octets): partial(lambda octets, stage: stage.client(octets), octets)
        for octets in FROM_CLIENT
    },
    **{event_of("backend", octets): partial(backend_says, octets) for octets in FROM_BACKEND},
    **OTHERS,
}
# The inputs that turn a session, and those that do most.
MANY_FROM_CLIENT = [
    octets
    for octets in FROM_CLIENT
    if (octets.strip() and octets not in COMMANDS) or octets[:4] in {b"EHLO", b"HELO", b"MAIL", b"DATA"}
]
FEW_FROM_CLIENT = (
    b"QUIT\r\n",
    b"BDAT 6\r\nQUIT\r\n",
    b"DATA\r\n",
    b"STARTTLS\r\n",
    b"\r\n.\r\n",
    b"EHLO name.example\r\n",
)
FEW_FROM_BACKEND = (b"250 said\r\n", b"354 said\r\n", b"421 said\r\n", b"250-half\r\n")
MANY = [
    *(event_of("client", octets) for octets in MANY_FROM_CLIENT[::2]),
    *(event_of("backend", octets) for octets in FROM_BACKEND[::2]),
    *OTHERS,
]
FEW = [
    *(event_of("client", octets) for octets in FEW_FROM_CLIENT),
    *(event_of("backend", octets) for octets in FEW_FROM_BACKEND),
    *OTHERS,
]


def test_every_phase_is_there() -> None:
    """The table has every phase that the session has."""
    assert {phase for _, phase in PHASES.values()} == set(Phase)


@pytest.mark.parametrize("name", PHASES)
class TestPhases:
    def test_is_reached(self, name: str) -> None:
        """Each beginning leads where the table says."""
        build, phase = PHASES[name]
        assert build().session.phase is phase

    def test_every_input(self, name: str) -> None:
        """Law 6: every input is taken, at once and cut in two."""
        build, _ = PHASES[name]
        faults = {}
        for event, happen in EVENTS.items():
            try:
                happen(build())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the fault looked for
                faults[event] = error
        assert not faults

    def test_every_octet(self, name: str) -> None:
        """Inputs that come byte by byte leave the client with the same words as inputs that come whole."""
        build, _ = PHASES[name]
        for octets in FROM_CLIENT:
            if len(octets) > 100 or b"STARTTLS" in octets.upper():
                continue
            whole, bytewise = build().client(octets), build()
            for octet in octets:
                bytewise.client(bytes([octet]))
            assert (whole.said, whole.backends) == (bytewise.said, bytewise.backends), octets

    def test_the_end_of_the_client_is_the_end(self, name: str) -> None:
        """A client that is gone leaves no backend connection and no wish behind, whatever comes later."""
        build, _ = PHASES[name]
        for event, happen in EVENTS.items():
            stage = build().client_lost()
            heard = list(stage.heard)
            happen(stage)
            assert stage.heard == heard, event

    def test_forbidden_verbs(self, name: str) -> None:
        """No phase lets XCLIENT, XFORWARD, PROXY, TURN, XEXCH50, X-ANONYMOUSTLS or X-EXPS through as a command."""
        build, phase = PHASES[name]
        if phase in {Phase.MESSAGE, Phase.CHUNK, Phase.SASL}:
            return  # there it would be text, octets, or a word in base64
        for verb in (
            b"XCLIENT ADDR=::1",
            b"xforward NAME=a",
            b"PROXY TCP4 a",
            b"Turn",
            b"XEXCH50 2 2",
            b"X-ANONYMOUSTLS",
            b"X-EXPS x",
        ):
            stage = build().client(verb + b"\r\n")
            for _ in range(4):
                backend_says(b"250 ok\r\n", stage)
            assert verb.split()[0].upper() not in b"".join(stage.backends).upper().replace(b"PROXY-", b""), verb


def test_every_two_inputs() -> None:
    """Law 6: each state that an input leaves behind takes every second one, too; a state is tried once."""
    seen = set()
    faults = {}
    for name, (build, _) in PHASES.items():
        for first in MANY:
            stage = build()
            with suppress(AssertionError):  # `test_every_input` reports it
                EVENTS[first](stage)
            state = repr((stage.session, stage.leg, stage.handshaking, stage.closed))
            if state in seen or stage.closed:
                continue
            seen.add(state)
            for second in FEW:
                try:
                    EVENTS[second](deepcopy(stage, {id(stage.terms): stage.terms}))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the fault looked for
                    faults[name, first, second] = error
    assert len(seen) > len(PHASES) * 3
    assert not faults
