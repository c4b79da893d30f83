"""
Messages as they are sent: octets with CRLF line ends, the first line unlike that of any other message.

Every one has the header fields a server would otherwise add, so that what arrives differs only by what stands before.
"""

import uuid

from tests.integration.mailserver import DOMAIN

SENDER = "sender@client.example"
RECIPIENT = f"bob@{DOMAIN}"
LINE_OCTETS_MAX = 998  # RFC 5321 section 4.5.3.1.6, without CRLF
BIG_OCTETS = 10 * 1024 * 1024


def message(body: bytes, *, subject: bytes = b"a message", mime: bytes = b"") -> bytes:
    """
    Return a message with that *body*; *mime* is whole header lines.
    """
    return (
        b"Message-ID: <" + uuid.uuid4().hex.encode() + b"@client.example>\r\n"
        b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\n"
        b"From: <" + SENDER.encode() + b">\r\n"
        b"To: <" + RECIPIENT.encode() + b">\r\n"
        b"Subject: " + subject + b"\r\n" + mime + b"\r\n" + body
    )


def tiny() -> bytes:
    """
    One short line.
    """
    return message(b"Hello.\r\n")


def empty() -> bytes:
    """
    A header and the line that ends it, no more.
    """
    return message(b"")


def dotted() -> bytes:
    """
    Lines that look like the end of data, or become longer than usual when they are stuffed.

    It does not end with a lone dot: swaks would take that for a mark its user has put there.
    """
    full = b"." + b"x" * (LINE_OCTETS_MAX - 1)
    lines = [b".", b"..", b".x", b"", b".", full, b"x" * LINE_OCTETS_MAX, b"QUIT", b"...", b"end"]
    return message(b"".join(line + b"\r\n" for line in lines))


def dot_at_the_end() -> bytes:
    """
    The last line is a lone dot.
    """
    return message(b"Hello.\r\n.\r\n")


def eight_bit() -> bytes:
    """
    Every octet above 127, as RFC 6152 allows them in a body.
    """
    octets = bytes(range(128, 256))
    mime = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
    return message(octets + b"\r\n" + octets * 7 + b"\r\n", mime=mime)


def internationalized() -> bytes:
    """
    UTF-8 in the header and the body (RFC 6532).
    """
    mime = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    return message("Grüße, 你好.\r\n".encode(), subject="Grüße".encode(), mime=mime)


def big() -> bytes:
    """
    10 MiB, with a dot at the beginning of many lines.
    """
    block = b"".join(b"%s%07d %s\r\n" % (b"." if number % 3 == 0 else b"", number, b"." * 60) for number in range(1000))
    return message(block * (BIG_OCTETS // len(block) + 1))


def stuffed(octets: bytes) -> bytes:
    """
    Return *octets* as they are sent after DATA, the end-of-data mark included (RFC 5321 section 4.5.2).
    """
    lines = (b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:]
    return lines + b".\r\n"
