"""
Host names in certificates: how they are compared, and how foreign text is made fit for a log line.
"""

from cryptography import x509


def normalized(host: str) -> str:
    """
    Return *host* as it is compared: lower case, without the dot of the root.
    """
    return host.lower().removesuffix(".")


def wildcard_for(host: str) -> str:
    """
    Return the only pattern that may stand for *host*: the wildcard is the whole left-most label (RFC 9525 section 6.3).
    """
    return f"*.{host.partition('.')[2]}"


def covered(host: str, names: tuple[str, ...]) -> bool:
    """
    Whether a certificate with *names* holds for *host*.
    """
    host = normalized(host)
    return host in names or wildcard_for(host) in names


def dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    Return the DNS names of *certificate*, normalized; the common name is none of them (RFC 9525 section 2).

    Raises:
        ValueError: The extension cannot be read.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(normalized(name) for name in extension.value.get_values_for_type(x509.DNSName))


def printable(text: str, octets_max: int) -> str:
    """
    Return *text* in printable ASCII, everything else escaped, at most *octets_max* long.
    """
    if text.isascii() and text.isprintable() and len(text) <= octets_max:
        return text
    # Cut first: escaping makes up to ten characters of one.
    escaped = "".join(
        char if " " <= char <= "~" else char.encode("unicode_escape").decode("ascii") for char in text[:octets_max]
    )
    if len(escaped) > octets_max or len(text) > octets_max:
        return escaped[: octets_max - 3] + "..."
    return escaped
