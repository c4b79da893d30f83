"""
`tlsgate check`: would this configuration work, and would it do harm?
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from attrs import define
from rich.console import Console
from rich.text import Text

from tlsgate.config import Config, ConfigError, from_options, load
from tlsgate.operator.inspect_backends import backends
from tlsgate.operator.inspect_dns import name_servers
from tlsgate.operator.inspect_files import certificates, folders, levels, names_served
from tlsgate.operator.remarks import Remark, Severity, fault, warning

_WAYS = ("none", "xclient", "proxy-v1", "proxy-v2", "transparent")
_COLOURS = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.FAULT: "bold red"}


@define
class _Short:
    """
    The options of the short form, as given.
    """

    listen: Sequence[str]
    listen_tls: Sequence[str]
    backend: Sequence[str]
    certificate: Sequence[str]
    key: Sequence[str]
    level: str | None
    client_address: str | None
    hostname: str | None
    accept_open_relay: bool

    def given(self) -> list[str]:
        values = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("__")}
        return [f"--{name.replace('_', '-')}" for name, value in values.items() if value]

    def config(self) -> Config:
        if len(self.certificate) != len(self.key):
            counts = f"{len(self.certificate)} --certificate and {len(self.key)} --key"
            raise click.UsageError(f"there must be one --key for each --certificate, but there are {counts}")
        return from_options(
            backend=self.backend,
            listen=self.listen,
            listen_tls=self.listen_tls,
            certificates=list(zip(self.certificate, self.key, strict=True)),
            level=self.level or "required",
            client_address=self.client_address or "none",
            hostname=self.hostname,
            accept_open_relay=self.accept_open_relay,
        )


@click.command()
@click.option("-c", "--config", "file", type=Path, help="TOML configuration file; goes with no option of the gate's.")
@click.option("--listen", multiple=True, metavar="ENDPOINT", help="As for `twistd tlsgate`, and so are those below.")
@click.option("--listen-tls", multiple=True, metavar="ENDPOINT")
@click.option("--backend", multiple=True, metavar="ENDPOINT")
@click.option("--certificate", multiple=True, metavar="PEM")
@click.option("--key", multiple=True, metavar="PEM")
@click.option("-l", "--level", metavar="NAME", help="offered, required or strong.")
@click.option("--client-address", type=click.Choice(_WAYS))
@click.option("--hostname", metavar="NAME")
@click.option("--accept-open-relay", is_flag=True)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of lines.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to talk to a backend at most; some greet strangers only after a while.",
)
def check(file: Path | None, *, as_json: bool, timeout: float, **options: object) -> None:
    """
    Look at a configuration and at everything it depends on.

    The configuration itself, certificates and keys, name servers if host names are to be looked up, each backend (is it
    up, does it take what it will be sent, who is it), and whether a backend would relay for strangers. It says one line
    about each: OK, WARNING or FAULT. Backends are called, and asked whether they would take a message for example.com;
    none is sent.

    Exit status: 0 without a FAULT, 1 with one, 2 if the command line cannot be understood.
    """
    remarks = _remarks(file, _Short(**options), timeout)  # type: ignore[arg-type]  # click names them alike
    if as_json:
        click.echo(_json(remarks))
    else:
        _print(remarks)
    if any(remark.severity is Severity.FAULT for remark in remarks):
        raise SystemExit(1)


def _remarks(file: Path | None, short: _Short, timeout_seconds: float) -> list[Remark]:
    given = short.given()
    if file is not None and given:
        raise click.UsageError(f"--config goes with no other option of the gate's, but there is {', '.join(given)}")
    if file is None and not given:
        raise click.UsageError("give --config FILE, or --backend ENDPOINT and what else `twistd tlsgate` is given")
    try:
        config = short.config() if file is None else load(file)
    except ConfigError as error:
        return [fault("", problem) for problem in error.problems]
    now = datetime.now(UTC)
    return [
        *(warning("", text) for text in config.warnings),
        *levels(config),
        *certificates(config, now),
        *folders(config),
        *name_servers(config, timeout_seconds),
        *backends(config, names_served(config, now), timeout_seconds),
    ]


def _json(remarks: list[Remark]) -> str:
    findings = [{"severity": each.severity.value, "at": each.at, "text": each.text} for each in remarks]
    faultless = not any(remark.severity is Severity.FAULT for remark in remarks)
    return json.dumps({"ok": faultless, "findings": findings}, indent=2)


def _print(remarks: list[Remark]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for remark in remarks:
        console.print(Text(f"{remark.severity.name:<8}", style=_COLOURS[remark.severity]) + Text(str(remark)))
    counts = {severity: sum(remark.severity is severity for remark in remarks) for severity in Severity}
    faults, warnings = counts[Severity.FAULT], counts[Severity.WARNING]
    console.print(f"{faults} {_plural(faults, 'fault')}, {warnings} {_plural(warnings, 'warning')}")


def _plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"
