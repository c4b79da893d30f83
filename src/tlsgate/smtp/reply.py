"""
Replies: the ones tlsgate gives itself, all of them in one catalogue, and the ones a backend gave.

A reply of our own carries an enhanced status code (RFC 3463), except in answer to EHLO and HELO (RFC 2034 section 4).
A reply of the backend is never rewritten: it is kept as it came.
"""

from attrs import evolve, frozen

LINE_OCTETS_MAX = 512  # RFC 5321 section 4.5.3.1.5, the CRLF included
_TOLD_CHARACTERS_MAX = 200


def printable(text: str, characters_max: int) -> str:
    """
    Return *text* as printable ASCII, at most *characters_max* long: whatever it holds, it stays one harmless line.
    """
    escaped = "".join(
        c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text[:characters_max]
    )
    return escaped if len(escaped) <= characters_max else escaped[: characters_max - 3] + "..."


@frozen
class Reply:
    """
    A reply of our own: one line.
    """

    code: int
    enhanced: str
    text: str

    def encode(self, *, to_ehlo: bool = False) -> bytes:
        """
        Return the line to send. *to_ehlo* says that EHLO or HELO is what it answers: no enhanced code then.
        """
        start = f"{self.code} " if to_ehlo or not self.enhanced else f"{self.code} {self.enhanced} "
        return (start + printable(self.text, LINE_OCTETS_MAX - 2 - len(start))).encode("ascii") + b"\r\n"

    def saying(self, text: str) -> "Reply":
        """
        Return the same reply in other words.
        """
        return evolve(self, text=text)


@frozen
class BackendReply:
    """
    One whole reply of the backend: its code, and the octets as they came, every line with its CRLF.
    """

    code: int
    raw: bytes

    @property
    def positive(self) -> bool:
        """
        Whether it is a positive completion reply, 2yz (RFC 5321 section 4.2.1).
        """
        return 200 <= self.code < 300

    def lines(self) -> list[bytes]:
        """
        Return the texts of its lines, without codes and line ends.
        """
        return [line[4:] for line in self.raw.split(b"\r\n")[:-1]]

    def told(self) -> str:
        """
        Return it as one line of printable ASCII, bounded, for the journal and for people.
        """
        return printable(b" / ".join(self.raw.split(b"\r\n")[:-1]).decode("latin-1"), _TOLD_CHARACTERS_MAX)


# RFC 3207
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")  # section 4
MUST_ISSUE_STARTTLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first")  # section 4
LACK_OF_SECURITY = Reply(554, "5.7.0", "Command refused due to lack of security")  # section 4.1
TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS not available due to temporary reason")  # section 4
STARTTLS_ARGUMENT = Reply(501, "5.5.4", "Syntax error: STARTTLS takes no arguments")  # section 4
TLS_ALREADY_ACTIVE = Reply(503, "5.5.1", "TLS is already active")  # section 4.2
STARTTLS_NOT_OFFERED = Reply(502, "5.5.1", "STARTTLS is not offered here")
PLAINTEXT_BEHIND_STARTTLS = Reply(554, "5.5.0", "Plaintext behind STARTTLS; nothing of it was executed")  # section 4.2

# RFC 4954
ENCRYPTION_REQUIRED_FOR_AUTH = Reply(538, "5.7.11", "Encryption required for the requested authentication mechanism")
MECHANISM_UNUSABLE = Reply(504, "5.5.4", "This authentication mechanism cannot be used through this gate")
SASL_LINE_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")  # section 4

# RFC 5321
CLOSING = Reply(221, "2.0.0", "Closing the connection")
OK = Reply(250, "2.0.0", "OK")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")  # section 4.5.3.1.9
LINE_INVALID = Reply(500, "5.5.2", "A command is one line of text, ended by CRLF")  # sections 2.3.8 and 4.1.1
NOT_RECOGNIZED = Reply(500, "5.5.2", "Command not recognized")
NOT_RELAYED = Reply(502, "5.5.1", "Command not available through this gate")
PATH_INVALID = Reply(501, "5.5.4", "Syntax error in the address")
NO_CHUNKING = Reply(503, "5.5.1", "CHUNKING was not offered")  # RFC 3030
CHUNK_SIZE_INVALID = Reply(501, "5.5.4", "Syntax: BDAT size [LAST]")  # RFC 3030 section 2
RESET_NEEDED = Reply(503, "5.5.1", "BDAT failed; RSET is needed")  # RFC 3030 section 2
BARE_NEWLINE = Reply(554, "5.6.0", "Message refused: it holds a CR or LF that is not part of CRLF")  # section 2.3.8

# Closing the session, or unable to go on
BACKEND_DOWN = Reply(421, "4.3.2", "The mail server is not available, try again later")
BACKEND_UNREACHABLE = Reply(451, "4.4.1", "The mail server cannot be reached, try again later")
BACKEND_LOST = Reply(421, "4.4.2", "Lost the connection to the mail server")
BACKEND_SPENT = Reply(421, "4.6.0", "The message before was refused; begin a new session")
BACKEND_BROKEN = Reply(421, "4.4.2", "The mail server broke the protocol")
BACKEND_SILENT = Reply(421, "4.4.2", "The mail server did not answer in time")
BACKEND_TLS = Reply(451, "4.7.5", "No secure connection to the mail server")
CLIENT_SILENT = Reply(421, "4.4.2", "Timeout, closing the connection")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, try again later")  # section 3.8
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands before STARTTLS")
TOO_MUCH_INPUT = Reply(421, "4.7.0", "Too much input while a reply was outstanding")
TOO_MANY_SESSIONS = Reply(421, "4.7.0", "Too many sessions, try again later")
TOO_MANY_SESSIONS_OF_YOURS = Reply(421, "4.7.0", "Too many sessions from your address, try again later")
TOO_SLOW = Reply(421, "4.4.2", "Message data arrives too slowly")
SECURITY_SOON_REQUIRED = Reply(421, "4.7.0", "Security too low, refused for now")
RECIPIENT_DEFERRED = Reply(450, "4.7.0", "Security too low for this address, refused for now")
