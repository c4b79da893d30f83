"""
What OpenSSL can do and pyOpenSSL's public interface cannot: the only place that touches pyOpenSSL's internals.
"""

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

ALERT_FATAL = 2  # SSL_TLSEXT_ERR_ALERT_FATAL; for a server name, OpenSSL's alert is then unrecognized_name


def session_reused(connection: SSL.Connection) -> bool:
    """
    Whether the handshake resumed an earlier session.
    """
    return bool(lib.SSL_session_reused(connection._ssl) == 1)  # noqa: SLF001 - no public name for it


def knows_group(name: str) -> bool:
    """
    Whether OpenSSL has a key exchange group of that name.
    """
    if name.upper() == "DEFAULT":
        return False  # means all that it would take by itself
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    known = lib.SSL_CTX_set1_curves_list(context._context, name.encode("utf-8")) == 1  # noqa: SLF001 - see above
    lib.ERR_clear_error()  # some versions leave one, which the next operation would take for its own
    return bool(known)


def verification_phrase(code: int) -> str:
    """
    Return OpenSSL's words for a verification error, such as "certificate has expired".
    """
    if code == SSL.X509VerificationCodes.ERR_CERT_NOT_YET_VALID:
        # OpenSSL 4 adds a remark about our clock, which is no business of who reads a refusal.
        return "certificate is not yet valid"
    return bytes(ffi.string(lib.X509_verify_cert_error_string(code))).decode("ascii", "replace")


def set_server_name_callback(context: SSL.Context, accept: Callable[[SSL.Connection], bool]) -> None:
    """
    Let *accept* look at each ClientHello; `False` ends the handshake with the alert unrecognized_name.

    pyOpenSSL's own setter can refuse only by an exception, which it prints to standard error, for whoever connects.
    """

    def called(ssl: Any, alert: Any, argument: Any) -> int:  # noqa: ARG001 - OpenSSL's signature
        connection = SSL.Connection._reverse_mapping[ssl]  # noqa: SLF001 - how pyOpenSSL finds it
        return 0 if accept(connection) else ALERT_FATAL

    callback = ffi.callback("int (*)(SSL *, int *, void *)", called, error=ALERT_FATAL)
    # The context must keep the callback alive; pyOpenSSL has this place for it.
    context._tlsext_servername_callback = callback  # noqa: SLF001 - see above
    lib.SSL_CTX_set_tlsext_servername_callback(context._context, callback)  # noqa: SLF001 - see above
