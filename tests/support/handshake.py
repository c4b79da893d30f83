"""
TLS handshakes in memory: two pyOpenSSL connections and no wire between them.
"""

from attrs import define
from OpenSSL import SSL

READ_OCTETS = 1 << 16
ROUNDS_MAX = 50


@define
class Outcome:
    """
    How a handshake ended; an error is OpenSSL's reason ("sslv3 alert handshake failure"), empty when there was none.
    """

    server_error: str = ""
    client_error: str = ""
    server_octets: int = 0

    @property
    def established(self) -> bool:
        return not self.server_error and not self.client_error


def reason_of(error: SSL.Error) -> str:
    """
    Return the last reason OpenSSL gave.
    """
    if error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][-1][2])
    return str(error) or type(error).__name__


def moved(source: SSL.Connection, sink: SSL.Connection) -> int:
    """
    Carry what *source* wants to send to *sink*; return the number of octets.
    """
    octets = 0
    while True:
        try:
            chunk = source.bio_read(READ_OCTETS)
        except SSL.WantReadError:
            return octets
        sink.bio_write(chunk)
        octets += len(chunk)


def stepped(connection: SSL.Connection) -> tuple[bool, str]:
    """
    Drive one side; return whether it is done, and its error.
    """
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False, ""
    except SSL.Error as error:
        return True, reason_of(error)
    return True, ""


def settle(*connections: SSL.Connection) -> str:
    """
    Let each side read what has arrived after the handshake (tickets, alerts); return the first error.
    """
    for connection in connections:
        try:
            connection.recv(READ_OCTETS)
        except SSL.WantReadError:
            continue
        except SSL.Error as error:
            return reason_of(error)
    return ""


def handshake(server: SSL.Connection, client: SSL.Connection) -> Outcome:
    """
    Run the handshake to its end, tickets included.
    """
    outcome = Outcome()
    client_done = server_done = False
    for _ in range(ROUNDS_MAX):
        if not client_done:
            client_done, outcome.client_error = stepped(client)
        moved(client, server)
        if not server_done:
            server_done, outcome.server_error = stepped(server)
        outcome.server_octets += moved(server, client)
        if client_done and (server_done or outcome.client_error):
            break
        if outcome.server_error and not client_done:
            client_done, outcome.client_error = stepped(client)
            break
    if not outcome.server_error and not outcome.client_error:
        outcome.client_error = settle(client)
        moved(client, server)
        outcome.server_error = settle(server)
    return outcome


def sent(source: SSL.Connection, sink: SSL.Connection, data: bytes) -> bytes:
    """
    Send *data* over an established pair and return what came out.
    """
    source.sendall(data)
    moved(source, sink)
    return sink.recv(READ_OCTETS)


def client_connection(
    *,
    minimum: int = 0,
    maximum: int = 0,
    ciphers: bytes = b"DEFAULT:@SECLEVEL=0",
    sni: bytes | None = None,
    alpn: list[bytes] | None = None,
    certificate: object = None,
    context: SSL.Context | None = None,
) -> SSL.Connection:
    """
    Return a client that verifies nothing; *certificate* is an `Issued` to show when asked.
    """
    context = context or client_context(
        minimum=minimum, maximum=maximum, ciphers=ciphers, alpn=alpn, certificate=certificate
    )
    connection = SSL.Connection(context, None)
    if sni is not None:
        connection.set_tlsext_host_name(sni)
    connection.set_connect_state()
    return connection


def client_context(
    *,
    minimum: int = 0,
    maximum: int = 0,
    ciphers: bytes = b"DEFAULT:@SECLEVEL=0",
    alpn: list[bytes] | None = None,
    certificate: object = None,
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(minimum or SSL.TLS1_VERSION)
    context.set_max_proto_version(maximum)
    context.set_cipher_list(ciphers)
    if alpn is not None:
        context.set_alpn_protos(alpn)
    if certificate is not None:
        context.use_certificate(certificate.certificate)  # type: ignore[attr-defined]
        for between in certificate.between:  # type: ignore[attr-defined]
            context.add_extra_chain_cert(between)
        context.use_privatekey(certificate.key)  # type: ignore[attr-defined]
    return context
