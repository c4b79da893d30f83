"""
A playbook: an SMTP session written down as a dialogue, and played by a session.

    client  > EHLO client.example      the client says this line
    backend < EHLO client.example      the backend hears it
    backend > 250 mx.example.org       the backend says this line; the first reply of a connection is its greeting
    client  < 250 mx.example.org       the client hears it; "..." stands for any rest of the line
    client >> a\\n.\\r\\n              octets with escapes, and no line end but theirs; likewise <<

Between the lines stand, one word each, what else the session does:

    dial  hangup (with a QUIT of the gate's)  leave (behind a QUIT that was answered)  drop (at once, without QUIT)
    starttls  close (the client's connection)

and what else happens to it:

    tls TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256 128 (the handshake is done)    backend lost    client lost
    silence (a timeout)    drain (the service stops)

Lines that one side says in a row are one chunk. Before the next thing happens, the session must have done all that the
script has up to there, and no more; what the client sees and what the backend sees are compared each in its own order.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import ndiff
from functools import cache
from itertools import groupby

from attrs import evolve, frozen

from tests.support.cuts import bytewise, two_way
from tests.support.stage import Stage
from tlsgate.policy.facts import TlsFacts
from tlsgate.session.state import Terms

_SPOKEN = re.compile(r"(client|backend) *(>>|<<|>|<) ?(.*)")
_DONE = {"dial": b"\0dial\0", "hangup": b"QUIT\r\n\0leave\0", "leave": b"\0leave\0", "drop": b"\0drop\0"}
_DONE_TO_CLIENT = {"starttls": b"\0starttls\0", "close": b"\0close\0"}
_HAPPENING = ("tls ", "backend lost", "client lost", "silence", "drain")


@frozen
class Happening:
    """
    Something that happens to the session, and what it does then: patterns of what client and backend get.
    """

    what: str
    chunks: list[bytes]
    client: bytes = b""
    backend: bytes = b""
    cuttable: bool = True


def play(terms: Terms, script: str, *, after: str = "") -> None:
    """
    Play *script* whole, byte by byte, and with each chunk of either side cut in two at every place; always *after*
    another, which is not cut.
    """
    play_once(terms, script, after=after)
    for variant in _variants(_read(script, after=after)):
        _play(terms, variant, after + script)


def play_once(terms: Terms, script: str, *, after: str = "") -> Stage:
    """
    Play *script* as it stands, *after* another; return the stage as it leaves it.
    """
    return _play(terms, _read(script, after=after), after + script)


def _octets(sign: str, text: str) -> bytes:
    if len(sign) == 2:
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    return text.encode() + b"\r\n"


@cache
def _read(script: str, *, after: str = "") -> tuple[Happening, ...]:
    before = _read(after) if after else (Happening("opened", []),)
    happenings = [evolve(happening, cuttable=False) for happening in before]
    for line in filter(None, map(str.strip, script.splitlines())):
        spoken = _SPOKEN.fullmatch(line)
        if spoken is None:
            if line in _DONE:
                happenings[-1] = _expecting(happenings[-1], "backend", re.escape(_DONE[line]))
            elif line in _DONE_TO_CLIENT:
                happenings[-1] = _expecting(happenings[-1], "client", re.escape(_DONE_TO_CLIENT[line]))
            else:
                assert line.startswith(_HAPPENING), f"not a line of a dialogue: {line}"
                happenings.append(Happening(line, []))
            continue
        who, sign, text = spoken.groups()
        octets = _octets(sign, text)
        if "<" in sign:
            pattern = re.escape(octets).replace(re.escape(b"..."), rb"[^\r\n]*")
            happenings[-1] = _expecting(happenings[-1], who, pattern)
        elif (
            happenings[-1].what == who
            and happenings[-1].cuttable
            and not (happenings[-1].client + happenings[-1].backend)
        ):
            happenings[-1] = evolve(happenings[-1], chunks=[happenings[-1].chunks[0] + octets])
        else:
            happenings.append(Happening(who, [octets]))
    return tuple(happenings)


def _expecting(happening: Happening, who: str, pattern: bytes) -> Happening:
    if who == "client":
        return evolve(happening, client=happening.client + pattern)
    return evolve(happening, backend=happening.backend + pattern)


def _variants(happenings: Sequence[Happening]) -> Iterator[Sequence[Happening]]:
    def cut(number: int, chunks: list[bytes]) -> list[Happening]:
        return [*happenings[:number], evolve(happenings[number], chunks=chunks), *happenings[number + 1 :]]

    spoken = [number for number, happening in enumerate(happenings) if happening.chunks and happening.cuttable]
    everything = list(happenings)
    for number in spoken:
        whole = happenings[number].chunks[0]
        everything[number] = evolve(happenings[number], chunks=bytewise(whole))
        for chunks in filter(all, two_way(whole)):
            yield cut(number, chunks)
    yield everything


def _play(terms: Terms, happenings: Sequence[Happening], script: str) -> Stage:
    stage: Stage | None = None
    done = 0
    for happening in happenings:
        stage = Stage(terms) if stage is None else _happen(stage, happening)
        heard, done = stage.heard[done:], len(stage.heard)
        for who, pattern in (("client", happening.client), ("backend", happening.backend)):
            got = b"".join(octets for hearer, octets in heard if hearer == who)
            if not re.fullmatch(pattern, got):
                raise AssertionError(_difference(script, happenings, happening, stage))
    assert stage is not None
    return stage


def _happen(stage: Stage, happening: Happening) -> Stage:
    what, chunks = happening.what, happening.chunks
    if what == "client":
        return stage.client(*chunks)
    if what == "backend":
        # A greeting comes whole: who opens the connection has read it.
        return stage.backend(b"".join(chunks)) if stage.leg == "dialling" else stage.backend(*chunks)
    if what.startswith("tls "):
        version, cipher, bits, *group = what.split()[1:]
        return stage.handshake(TlsFacts(version, cipher, int(bits), group=group[0] if group else "X25519"))
    return {
        "backend lost": stage.backend_lost,
        "client lost": stage.client_lost,
        "silence": stage.silence,
        "drain": stage.drain,
    }[what]()


def _difference(script: str, happenings: Sequence[Happening], last: Happening, stage: Stage) -> str:
    """
    Return how what the script says, up to *last*, differs from what was heard on *stage*.
    """
    expected = [" ".join(line.split()) for line in script.splitlines() if line.strip()]
    number = happenings.index(last)
    cut = f"at happening {number}, {last.what} {last.chunks}:"
    got = []
    for who, pieces in groupby(stage.heard, key=lambda piece: piece[0]):
        for octets in re.findall(rb"\0\w+\0|[^\0]+", b"".join(octets for _, octets in pieces)):
            if octets.startswith(b"\0"):
                got.append(octets.strip(b"\0").decode())
                continue
            for line in octets.splitlines(keepends=True):
                text = line.decode("latin-1").encode("unicode_escape").decode()
                got.append(f"{who} < {text[:-4]}" if line.endswith(b"\r\n") else f"{who} << {text}")
    heard_only = [line for line in expected if "<" in line or line in {*_DONE, *_DONE_TO_CLIENT}]
    return "\n".join([cut, *ndiff(heard_only, got), f"phase {stage.session.phase}"])
