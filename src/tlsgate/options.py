"""
The command line of `twistd tlsgate`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from twisted.python import usage

from tlsgate import __version__
from tlsgate.config import Config, ConfigError, from_options, load


class Options(usage.Options):
    """
    The command line: a configuration file, or the short form.
    """

    synopsis = "[--config FILE | --backend ENDPOINT [options]]"
    longdesc = (
        "STARTTLS gate in front of a mail server that knows no TLS, or only a bad one. Give a configuration file, or "
        "the other options; ENDPOINT is a Twisted endpoint string. Options of twistd, such as -n to stay in the "
        "foreground, stand before the word tlsgate. `tlsgate check` takes the same options, and says whether all would "
        "be well without starting anything."
    )
    optParameters: ClassVar = [
        ["config", "c", None, "TOML configuration file; goes with no other option"],
        ["level", "l", None, "Demanded of every session: offered, required, strong  [default: required]"],
        [
            *("client-address", None, None),
            "How the backend learns the client's: none, xclient, proxy-v1, proxy-v2, transparent  [default: none]",
        ],
        ["hostname", None, None, "Our name in greetings  [default: the name in the backend's greeting]"],
    ]

    optFlags: ClassVar = [
        ["accept-open-relay", None, "Start although the mail server relays for whoever comes from our address"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted is typed in part
        self.repeated: dict[str, list[str]] = {
            "listen": [], "listen-tls": [], "backend": [], "certificate": [], "key": []
        }  # fmt: skip

    def opt_listen(self, endpoint: str) -> None:
        """Server endpoint for clients that use STARTTLS, as tcp:25; repeatable  [default: tcp:2525 on 127.0.0.1]"""
        self.repeated["listen"].append(endpoint)

    def opt_listen_tls(self, endpoint: str) -> None:
        """Server endpoint for clients that begin with TLS, as tcp:465; repeatable"""
        self.repeated["listen-tls"].append(endpoint)

    def opt_backend(self, endpoint: str) -> None:
        """Client endpoint of the mail server, as tcp:127.0.0.1:2526 or unix:/path; repeatable, tried in order"""
        self.repeated["backend"].append(endpoint)

    def opt_certificate(self, path: str) -> None:
        """PEM file with the certificate chain, leaf first; repeatable, with --key"""
        self.repeated["certificate"].append(path)

    def opt_key(self, path: str) -> None:
        """PEM file with the private key of the --certificate in the same place"""
        self.repeated["key"].append(path)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Take the command line; what cannot be understood is said in one line, as everything else.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            print(f"tlsgate: {error}; `twistd tlsgate --help` lists all options", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None

    def parseArgs(self, *words: str) -> None:
        """
        Refuse what is no option.
        """
        if words:
            raise usage.UsageError(f"{words[0]!r} is no option; a configuration file is given as --config FILE")

    def opt_version(self) -> None:
        """Show the version and exit"""
        print(f"tlsgate {__version__}")  # noqa: T201 - this is the option's purpose
        raise SystemExit(0)

    def config(self) -> Config:
        """
        Return the configuration that the options ask for.

        Raises:
            ConfigError: It cannot be used.
        """
        given = [f"--{name}" for name, values in self.repeated.items() if values]
        given += [f"--{name}" for name in ("level", "client-address", "hostname") if self[name] is not None]
        given += ["--accept-open-relay"] if self["accept-open-relay"] else []
        if self["config"] is not None:
            if given:
                raise ConfigError((f"--config: goes with no other option, but there is {', '.join(given)}",))
            if not self["config"]:
                raise ConfigError(("--config: needs the path of a file",))
            return load(Path(self["config"]))
        certificates, keys = self.repeated["certificate"], self.repeated["key"]
        if len(certificates) != len(keys):
            counts = f"{len(certificates)} --certificate and {len(keys)} --key"
            raise ConfigError((f"--key: there must be one for each --certificate, but there are {counts}",))
        return from_options(
            backend=self.repeated["backend"],
            listen=self.repeated["listen"],
            listen_tls=self.repeated["listen-tls"],
            certificates=list(zip(certificates, keys, strict=True)),
            level="required" if self["level"] is None else self["level"],
            client_address="none" if self["client-address"] is None else self["client-address"],
            hostname=self["hostname"],
            accept_open_relay=bool(self["accept-open-relay"]),
        )
