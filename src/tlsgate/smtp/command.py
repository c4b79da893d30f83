"""
Commands: one line of the client's (RFC 5321 section 4.1.1).

A line is forwarded as it came or not at all, so parsing only has to decide what it *is*. Servers differ in what they
skip before a verb (Postfix skips white space and honours quotes there): a line that does not start with a plain verb is
invalid, lest gate and backend read two different commands from it.
"""

import re

from attrs import frozen

_LINE = re.compile(rb"([A-Za-z][A-Za-z0-9-]*)(?: ([^\x00-\x1f\x7f]*))?\r\n")
_UNCLEAN = re.compile(rb"[\x00-\x1f\x7f]")
# RFC 5321 section 4.1.2, and what servers accept besides: "_" in names, 8-bit (RFC 6531), blanks behind the colon, no
# brackets. A "%", a "!" or a quoted "@" in a local part may be a route to somewhere else: the like is left out.
_ATOMS = rb"[A-Za-z0-9#$&'*+/=?^_`{|}~.\x80-\xff-]+"
_QUOTED = rb'"(?:[^"\\@%!]|\\[^@%!])*"'
_DOMAIN = rb"(?:[A-Za-z0-9._\x80-\xff-]+|\[[A-Za-z0-9.:_-]*\])"
_ROUTE = rb"(?:@%b(?:,@%b)*:)?" % (_DOMAIN, _DOMAIN)
_MAILBOX = rb"(?:%b|%b)@%b|%b" % (_ATOMS, _QUOTED, _DOMAIN, _ATOMS)
_PATH = re.compile(
    rb"(?i:FROM|TO): *(?:<(?:%b(?P<path>%b))?>(?: .*)?|(?P<bare>%b)(?: [^<>]*)?)" % (_ROUTE, _MAILBOX, _MAILBOX)
)
# A leading zero is octal to some readers, and 2**32 + 5 is 5 to Exim, which counts in 32 bits: what is then a chunk to
# us would be commands to the backend. What the gate may add, a trace line, leaves it below 2**31.
CHUNK_OCTETS_MAX = 2_000_000_000
_CHUNK = re.compile(rb"(0|[1-9][0-9]{0,9})(?: +(?i:(LAST)))? *")


@frozen
class Command:
    """
    A command line: its *verb* in upper case, its *argument* without surrounding blanks, and the *line* as it came.

    *well_formed* is false if the line must not reach a backend: the verb is not a plain word.
    """

    verb: bytes
    argument: bytes
    line: bytes
    well_formed: bool = True


def parse(line: bytes) -> Command | None:
    """
    Return the command in *line*, which ends in LF; `None` if it is not one line of text ended by CRLF.
    """
    match = _LINE.fullmatch(line)
    if match is not None:
        return Command(match[1].upper(), (match[2] or b"").strip(b" "), line)
    if not line.endswith(b"\r\n") or _UNCLEAN.search(line, 0, len(line) - 2):
        return None
    verb, _, argument = line[:-2].partition(b" ")
    return Command(verb.upper(), argument.strip(b" "), line, well_formed=False)


def mailbox(argument: bytes) -> str | None:
    """
    Return the mailbox in the argument of MAIL or RCPT, "" for the null sender, `None` if it cannot be told for sure.

    A source route is dropped (RFC 5321 appendix C). A path without brackets is none, but some servers take it for one.
    Octets that are not UTF-8 make the mailbox unknowable, and so does whatever a backend may read in its own way:
    comments, blanks, other routes.
    """
    match = _PATH.fullmatch(argument)
    if match is None:
        return None
    path = match["path"] or match["bare"] or b""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return None


def chunk(argument: bytes) -> tuple[int, bool] | None:
    """
    Return size in octets and whether it is the last one, from the argument of BDAT (RFC 3030 section 2).
    """
    match = _CHUNK.fullmatch(argument)
    if match is None or int(match[1]) > CHUNK_OCTETS_MAX:
        return None
    return int(match[1]), match[2] is not None
