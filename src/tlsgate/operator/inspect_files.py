"""
The part of `tlsgate check` that looks at what is on this machine: the files that a configuration names, and OpenSSL.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tlsgate.config import Config
from tlsgate.operator.remarks import Remark, fault, ok, warning
from tlsgate.tls.certificates import CertificateError, CertificateFiles, Credential, load_credential
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.groups import unknown_groups
from tlsgate.tls.identity import Identity

_NAMES_SHOWN_MAX = 10


def certificates(config: Config, now: datetime) -> Iterator[Remark]:
    """
    Load what TLS needs, as the gate would.
    """
    table = config.tls
    files = tuple(CertificateFiles(entry.chain, entry.key, entry.ocsp) for entry in table.certificates)
    for number, each in enumerate(files):
        at = f"tls.certificates[{number}]"
        try:
            credential = load_credential(each, now)
        except CertificateError as error:
            yield from (fault(at, problem) for problem in error.problems)
            continue
        yield ok(at, _described(credential))
        yield from (warning(at, text) for text in credential.warnings)
    if not files:
        return
    terms = TlsTerms(
        files,
        floor=table.floor,
        legacy=table.legacy,
        client_ca=table.client_ca,
        client_crls=table.client_crls,
        request_client_certificate=table.client_ca is not None,
        hostname=config.hostname,
    )
    try:
        identity = Identity.load(terms, now)
    except CertificateError as error:
        # What is wrong with a single certificate was said above.
        own = {str(path) for each in files for path in each.paths}
        yield from (fault("tls", text) for text in error.problems if text.partition(": ")[0] not in own)
        return
    said = {text for credential in identity.credentials for text in credential.warnings}
    yield from (warning("tls", text) for text in identity.warnings if text not in said)
    if table.client_ca is not None:
        yield ok("tls.client_ca", f"{table.client_ca}: can be used")


def levels(config: Config) -> Iterator[Remark]:
    """
    Look for demands that nobody could meet here.
    """
    for level in config.levels:
        faults, doubts = unknown_groups(f"{level.at}.groups", level.groups)
        yield from (fault("", text) for text in faults)
        yield from (warning("", text) for text in doubts)


def names_served(config: Config, now: datetime) -> tuple[str, ...]:
    """
    Return the names of all certificates that can be used.
    """
    names: list[str] = []
    for entry in config.tls.certificates:
        try:
            names.extend(load_credential(CertificateFiles(entry.chain, entry.key), now).names)
        except CertificateError:
            continue
    return tuple(names)


def folders(config: Config) -> Iterator[Remark]:
    """
    Look for the folders that the gate will write to.
    """
    journal, posture = config.observe.journal, config.observe.posture
    for at, path in (("observe.journal", journal), ("observe.posture", posture)):
        if isinstance(path, Path) and not os.access(path.parent, os.W_OK | os.X_OK):
            yield warning(at, f"{path}: its folder is missing, or not writable to who runs this check")


def _described(credential: Credential) -> str:
    names = ", ".join(credential.names[:_NAMES_SHOWN_MAX]) + (
        " ..." if len(credential.names) > _NAMES_SHOWN_MAX else ""
    )
    until = credential.not_after.astimezone(UTC).strftime("%Y-%m-%d")
    return f"{credential.files.chain}: {credential.kind} for {names}, until {until}"
