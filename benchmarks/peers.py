"""
The gates that are measured, each started as an operator would start it, in front of the same sink.

A peer is a command line, made from a `Setup`, and a way to ask for its version. One that is not installed has no
version; whoever reports must say that it was not measured.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import attrs
import prepare
from OpenSSL import SSL


@attrs.frozen
class Setup:
    """
    What a gate needs to know to be started.
    """

    folder: Path
    port: int
    sink_port: int
    auth_port: int
    certificate: prepare.Certificate


@attrs.frozen
class Peer:
    """
    One kind of gate.
    """

    name: str
    version: Callable[[], str | None]
    command: Callable[[Setup], list[str]]
    # Whether the message arrives octet by octet as it was sent.
    transparent: bool = True


def _program(name: str) -> str | None:
    # Debian puts daemons where a user's PATH does not look.
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr


def _openssl_in(text: str) -> str:
    # What a program was built with may have been updated since.
    used = re.search(r"running +with (OpenSSL \S+)", text, re.IGNORECASE)
    built = re.search(r"(?:built|compiled) +with (OpenSSL \S+)", text, re.IGNORECASE)
    found = used or built
    return found[1] if found else "OpenSSL ?"


def _tlsgate_version() -> str | None:
    if not _twistd().exists() or "tlsgate" not in _output([str(_twistd()), "--help"]):
        return None
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("Twisted", "pyOpenSSL"))
    library = " ".join(SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().split(" ")[:2])
    return f"{metadata.version('tlsgate')} (Python {platform.python_version()}, {packages}, {library})"


def _twistd() -> Path:
    return Path(sys.executable).parent / "twistd"


def _tlsgate_command(setup: Setup) -> list[str]:
    return [
        str(_twistd()), "--nodaemon", "--pidfile=", f"--rundir={setup.folder}", "tlsgate",
        "--listen", f"tcp:{setup.port}:interface=127.0.0.1:backlog=1024",
        "--backend", f"tcp:127.0.0.1:{setup.sink_port}",
        "--certificate", str(setup.certificate.chain), "--key", str(setup.certificate.key),
        "--level", "required",
    ]  # fmt: skip


NGINX_CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 4096; }}
mail {{
    server_name mx.example.org;
    auth_http 127.0.0.1:{auth_port}/;
    proxy on;
    xclient off;
    starttls only;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    smtp_auth none;
    smtp_capabilities PIPELINING 8BITMIME "SIZE 1073741824";
    {buffers}
    server {{ listen 127.0.0.1:{port} backlog=1024; protocol smtp; }}
}}
"""


def _nginx_module() -> Path | None:
    program = _program("nginx")
    if program is None:
        return None
    path = re.search(r"--modules-path=(\S+)", _output([program, "-V"]))
    module = Path(path[1] if path else "/usr/lib/nginx/modules") / "ngx_mail_module.so"
    return module if module.exists() else None


def _nginx_version() -> str | None:
    program = _program("nginx")
    if program is None or _nginx_module() is None:
        return None
    text = _output([program, "-V"])
    version = re.search(r"nginx/(\S+)", text)
    return f"{version[1] if version else '?'} (mail module, {_openssl_in(text)})"


def _nginx_command(setup: Setup, buffers: str = "") -> list[str]:
    configuration = setup.folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            module=_nginx_module(),
            folder=setup.folder,
            auth_port=setup.auth_port,
            chain=setup.certificate.chain,
            key=setup.certificate.key,
            port=setup.port,
            buffers=buffers,
        )
    )
    return [
        str(_program("nginx")),
        "-c",
        str(configuration),
        "-p",
        str(setup.folder),
        "-e",
        str(setup.folder / "nginx.log"),
    ]


def _nginx_64k_command(setup: Setup) -> list[str]:
    return _nginx_command(setup, "smtp_client_buffer 64k; proxy_buffer 64k;")


STUNNEL_CONFIGURATION = """
foreground = yes
pid =
syslog = no
debug = warning
output = {folder}/stunnel.log
[smtp]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{sink_port}
protocol = smtp
cert = {chain}
key = {key}
sslVersionMin = TLSv1.2
"""


def _stunnel_version() -> str | None:
    program = _program("stunnel")
    if program is None:
        return None
    text = _output([program, "-version"])
    version = re.search(r"stunnel (\S+)", text)
    return f"{version[1] if version else '?'} ({_openssl_in(text)})"


def _stunnel_command(setup: Setup) -> list[str]:
    configuration = setup.folder / "stunnel.conf"
    configuration.write_text(
        STUNNEL_CONFIGURATION.format(
            folder=setup.folder,
            port=setup.port,
            sink_port=setup.sink_port,
            chain=setup.certificate.chain,
            key=setup.certificate.key,
        )
    )
    return [str(_program("stunnel")), str(configuration)]


def _aiosmtpd_version() -> str | None:
    python = prepare.python_with_aiosmtpd()
    if python is None:
        return None
    question = (
        "import aiosmtpd, platform, ssl; print(aiosmtpd.__version__, platform.python_version(), ssl.OPENSSL_VERSION)"
    )
    version, python_version, library, number, *_ = _output([str(python), "-c", question]).split(" ")
    return f"{version} (Python {python_version}, {library} {number})"


def _aiosmtpd_command(setup: Setup) -> list[str]:
    ports = [str(setup.port), str(setup.sink_port)]
    files = [str(setup.certificate.chain), str(setup.certificate.key)]
    return [str(prepare.python_with_aiosmtpd()), str(prepare.HERE / "aiosmtpd_gate.py"), *ports, *files]


PEERS = (
    Peer("tlsgate", _tlsgate_version, _tlsgate_command),
    Peer("nginx", _nginx_version, _nginx_command),
    Peer("stunnel", _stunnel_version, _stunnel_command),
    # It adds a header, and ends every line its own way.
    Peer("aiosmtpd", _aiosmtpd_version, _aiosmtpd_command, transparent=False),
    # Buffers of 64 KiB instead of the default of 4 KiB.
    Peer("nginx-64k", _nginx_version, _nginx_64k_command),
)
DEFAULT_PEERS = ("tlsgate", "nginx", "stunnel", "aiosmtpd")
