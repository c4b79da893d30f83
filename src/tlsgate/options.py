"""
The command line of `twistd tlsgate`.
"""

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
        "the other options; ENDPOINT is a Twisted endpoint string."
    )
    optParameters: ClassVar = [
        ["config", "c", None, "TOML configuration file; goes with no other option"],
        ["level", "l", None, "demanded of every session: offered, required, strong, verified  [default: required]"],
        ["client-address", None, None, "how the backend learns it: none, xclient, proxy-v1, proxy-v2, transparent"],
        ["hostname", None, None, "our name in greetings  [default: the name in the backend's greeting]"],
    ]

    optFlags: ClassVar = [
        ["accept-open-relay", None, "start although the mail server relays for whoever comes from our address"],
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
            level=self["level"] or "required",
            client_address=self["client-address"] or "none",
            hostname=self["hostname"],
            accept_open_relay=bool(self["accept-open-relay"]),
        )
