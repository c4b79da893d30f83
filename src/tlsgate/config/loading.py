"""
Where a configuration comes from: a file, a text, or the options of the command line.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from tlsgate.config.consistency import check
from tlsgate.config.faults import ConfigError, Findings, told
from tlsgate.config.reading import Reader
from tlsgate.config.tree import Config
from tlsgate.config.warnings import warnings_of

# Far more than rules for ten thousand partners need; /dev/zero and a mailbox file end here.
FILE_OCTETS_MAX = 4 * 1024 * 1024

# What is to be written in a file -> what is to be done on a command line.
_ON_A_COMMAND_LINE = {
    'write certificates = [{ chain = "mx.pem", key = "mx.key" }]': "give --certificate PEM --key PEM",
    'write client_ca = "partners-ca.pem"': "that takes a configuration file (--config) with tls.client_ca",
    "set acknowledge_rfc3207 = true on the listener": (
        "say so in a configuration file (--config): acknowledge_rfc3207 = true on the listener"
    ),
    'write "tcp:PORT", with tls = "implicit"': "give tcp:PORT to --listen-tls",
    'write "tcp:HOST:PORT", with tls = "implicit"': (
        'write "tcp:HOST:PORT"; TLS to the backend takes a configuration file (--config) with backend.tls'
    ),
}
_TAKEN = re.compile(r"is taken by [\w.]+\[(\d+)\]$")

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def load(path: str | Path) -> Config:
    """
    Read a configuration file. Paths of files in it are relative to its folder.

    Raises:
        ConfigError: It cannot be read, is not TOML, or says something that cannot be used.
    """
    file = Path(path).absolute()
    try:
        with file.open("rb") as stream:
            octets = stream.read(FILE_OCTETS_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be the path of a file"
        raise ConfigError((f"{path}: {reason}",)) from None
    if len(octets) > FILE_OCTETS_MAX:
        raise ConfigError((f"{path}: is larger than {FILE_OCTETS_MAX} octets, and no configuration file",))
    if octets.startswith(_BYTE_ORDER_MARKS):
        raise ConfigError((f"{path}: begins with a byte order mark; save it as UTF-8 without one",))
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{path}: line {line} is not UTF-8 (octet 0x{octets[error.start]:02x})",)) from None
    try:
        return parse(text, file.parent)
    except ConfigError as error:
        if isinstance(error.__cause__, ValueError | RecursionError):
            raise ConfigError(tuple(f"{path}: {problem}" for problem in error.problems)) from None
        raise


def parse(text: str, base: Path) -> Config:
    """
    Read a configuration from *text*; paths of files in it are relative to *base*.

    Raises:
        ConfigError: It is not TOML, or says something that cannot be used.
    """
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError((f"not TOML: {_one_line(str(error))}",)) from error
    except RecursionError as error:
        raise ConfigError(("not a configuration: brackets within brackets within brackets",)) from error
    return _checked(data, base, {})


def from_options(  # noqa: PLR0913 - one parameter per option, all by name
    *,
    backend: Sequence[str],
    listen: Sequence[str] = (),
    listen_tls: Sequence[str] = (),
    certificates: Sequence[tuple[str, str]] = (),
    level: str = "required",
    client_address: str = "none",
    hostname: str | None = None,
    accept_open_relay: bool = False,
) -> Config:
    """
    Build a configuration from the options of the short form; *certificates* are pairs of chain and key.

    Raises:
        ConfigError: An option cannot be used; the problems name options, not keys.
    """
    listeners = [{"endpoint": endpoint, "level": level} for endpoint in listen]
    listeners += [{"endpoint": endpoint, "level": level, "tls": "implicit"} for endpoint in listen_tls]
    options = {f"listener[{index}]": "--listen" for index in range(len(listen))}
    options |= {f"listener[{index}]": "--listen-tls" for index in range(len(listen), len(listeners))}
    options |= {f"listener[{index}].level": "--level" for index in range(max(len(listeners), 1))}
    options |= {f"tls.certificates[{index}].key": "--key" for index in range(len(certificates))}
    options |= {
        "tls.certificates": "--certificate",
        "tls.client_ca": "--level",
        "backend": "--backend",
        "backend.client_address": "--client-address",
        "hostname": "--hostname",
    }
    data: dict[str, Any] = {
        "listener": listeners or [{"level": level}],
        "tls": {"certificates": [{"chain": chain, "key": key} for chain, key in certificates]},
        "backend": {
            "endpoints": list(backend),
            "client_address": client_address,
            "accept_open_relay": accept_open_relay,
        },
    }
    if hostname is not None:
        data["hostname"] = hostname
    return _checked(data, Path().absolute(), options)


def _checked(data: dict[str, Any], base: Path, options: Mapping[str, str]) -> Config:
    """
    Read and check *data*; the keys in *options* are called by the name of the option that set them.
    """
    findings = Findings()
    config = Reader(base, findings).read(data)
    check(config, findings)
    if findings:
        entries = [(_called(path, options), text) for path, text in findings.entries()]
        problems = dict.fromkeys(told(path, _on_a_command_line(text) if options else text) for path, text in entries)
        raise ConfigError(tuple(problems))
    warnings = dict.fromkeys(told(_called(path, options), text) for path, text in warnings_of(config))
    return evolve(config, warnings=tuple(warnings))


def _called(path: str, options: Mapping[str, str]) -> str:
    """
    Return the option that set the key at *path*, the longest match first; without one, the path itself.
    """
    within = [key for key in options if path == key or path.startswith((f"{key}.", f"{key}["))]
    return options[max(within, key=len)] if within else path


def _on_a_command_line(text: str) -> str:
    """
    Return the *text* of a fault with what can be done about it where there is no file to write to.
    """
    for in_a_file, here in _ON_A_COMMAND_LINE.items():
        text = text.replace(in_a_file, here)
    return _TAKEN.sub("is given twice", text)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
