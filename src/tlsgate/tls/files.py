"""
Read PEM files that may be anything: missing, half written, binary, a directory, a device.

Every function raises `CertificateError` and nothing else, with the file's name in each problem.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

# The largest file with a good reason is a revocation list of a public authority: some megabytes.
FILE_OCTETS_MAX = 32 * 1024 * 1024

T = TypeVar("T")

# What cryptography raises for what it cannot read; much is parsed only when first looked at.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,  # a kind of string that cryptography before 50 does not know
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATE_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})
_LIST_LABELS = frozenset({b"X509 CRL"})


class CertificateError(Exception):
    """
    Certificates cannot be used. *problems* lists every fault found: the file, what is wrong, what would be right.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems: tuple[str, ...] = problems


def read_octets(path: Path) -> bytes:
    """
    Return what the regular file *path* holds.
    """
    try:
        # A named pipe would block for ever without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CertificateError(f"{path!s}: is not a file name: {error}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise CertificateError(f"{path}: is {what}; name a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(FILE_OCTETS_MAX + 1)
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if not content:
        raise CertificateError(f"{path}: is empty")
    if len(content) > FILE_OCTETS_MAX:
        raise CertificateError(f"{path}: is larger than {FILE_OCTETS_MAX // 1024 // 1024} MiB; that is no certificate")
    return content


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """
    Return the certificates in *path*, in their order; other PEM blocks (a key in the same file) are passed over.
    """
    return tuple(_parsed(path, "certificate", _CERTIFICATE_LABELS, x509.load_pem_x509_certificate))


def read_revocation_lists(path: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """
    Return the certificate revocation lists in *path*.
    """
    return tuple(_parsed(path, "revocation list", _LIST_LABELS, x509.load_pem_x509_crl))


def read_private_key(path: Path) -> PrivateKeyTypes:
    """
    Return the one private key in *path*; certificates and parameters beside it are passed over.
    """
    blocks = [block for label, block in _blocks(path, read_octets(path)) if label.endswith(b"PRIVATE KEY")]
    if not blocks:
        raise CertificateError(f"{path}: holds no private key; a PEM file with a PRIVATE KEY block is needed")
    if len(blocks) > 1:
        raise CertificateError(f"{path}: holds {len(blocks)} private keys; exactly one is needed")
    block = blocks[0]
    if b"BEGIN ENCRYPTED" in block or b"Proc-Type: 4,ENCRYPTED" in block:
        raise CertificateError(f"{path}: the private key is encrypted; give it without a passphrase")
    try:
        return load_pem_private_key(block, password=None)
    except UNREADABLE as error:
        raise CertificateError(f"{path}: the private key cannot be read: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """
    Return the first line of a library's complaint, for an operator.
    """
    return (str(error) or type(error).__name__).partition("\n")[0][:200]


def _parsed(path: Path, what: str, labels: frozenset[bytes], load: Callable[[bytes], T]) -> Iterator[T]:
    blocks = [block for label, block in _blocks(path, read_octets(path)) if label in labels]
    if not blocks:
        raise CertificateError(f"{path}: holds no {what} in PEM")
    problems = []
    for number, block in enumerate(blocks, 1):
        try:
            yield load(block)
        except UNREADABLE as error:
            problems.append(f"{path}: {what} {number} cannot be read: {first_line(error)}")
    if problems:
        raise CertificateError(*problems)


def _blocks(path: Path, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while begin := _BEGIN.search(content, position):
        end_line = b"-----END " + begin[1] + b"-----"
        end = content.find(end_line, begin.end())
        if end < 0:
            label = begin[1].decode("ascii")
            raise CertificateError(f"{path}: the {label} is cut off: its END line is missing; write the file whole")
        position = end + len(end_line)
        yield begin[1], content[begin.start() : position] + b"\n"
