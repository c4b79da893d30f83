"""
The bounds of one session: what either side may make it hold or do. Each has its reason; none can be switched off.
"""

from attrs import frozen


@frozen
class Bounds:
    """
    Upper bounds of one session.
    """

    line_octets_max: int = 4096  # RFC 5321 asks for 512, extensions add some (RFC 3461: 500 for ORCPT alone)
    sasl_octets_max: int = 12288  # RFC 4954 section 4: an AUTH line or an exchange line, CRLF included
    reply_octets_max: int = 65536  # one reply of the backend, all its lines: some EHLO and HELP replies are long
    reply_lines_max: int = 500  # EHLO replies have some thirty lines, HELP replies may have hundreds
    pipeline_max: int = 1024  # replies outstanding; 100 recipients in one group are a client's right (RFC 5321)
    held_octets_max: int = 262144  # input that waits; a paused TLS transport still delivers what it has read
    pause_above_octets: int = 8192  # input that waits before the client is read no more
    commands_before_tls_max: int = 100  # NOOP and EHLO keep a session open for free
    errors_max: int = 100  # refusals of our own: who has read so many will not read the next
