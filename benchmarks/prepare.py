"""
What a measurement needs before it begins: the compiled tools, a certificate, an interpreter with aiosmtpd, the cores.

Everything lands in `.build/` beside this file and is made again only when its source is newer.
"""

import datetime as dt
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
COMPILER_FLAGS = ["-O2", "-Wall", "-Wextra"]
TOOLS = {
    "load": (["load.c", "dialogue.c", "wire.c", "tally.c"], ["dialogue.h", "wire.h", "tally.h"], ["-lssl", "-lcrypto"]),
    "sink": (["sink.c"], [], []),
}


class NotPreparedError(Exception):
    """
    The benchmark cannot run at all here; the text says what is missing and how to get it.
    """


@attrs.frozen
class Tools:
    """
    The compiled programs.
    """

    load: Path
    sink: Path


@attrs.frozen
class Certificate:
    """
    The chain and key every gate uses, as PEM files.
    """

    kind: str
    chain: Path
    key: Path


@attrs.frozen
class Cores:
    """
    The core the measured gate runs on, and the one for everything else; `None` where nothing can be pinned.
    """

    gate: int | None
    load: int | None

    def pinned(self, command: list[str], core: int | None) -> list[str]:
        """
        Return *command*, made to stay on *core*.
        """
        return command if core is None else ["taskset", "-c", str(core), *command]


def find_cores() -> Cores:
    """
    Choose two of the cores this process may use.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or shutil.which("taskset") is None:
        return Cores(None, None)
    return Cores(gate=usable[0], load=usable[1])


def compile_tools() -> Tools:
    """
    Compile the load generator and the sink.

    Raises:
        NotPreparedError: there is no C compiler, or no OpenSSL to compile against.
    """
    BUILD.mkdir(exist_ok=True)
    for name, (sources, headers, libraries) in TOOLS.items():
        target = BUILD / name
        files = [HERE / file for file in (*sources, *headers)]
        if target.exists() and target.stat().st_mtime >= max(file.stat().st_mtime for file in files):
            continue
        command = ["gcc", *COMPILER_FLAGS, *(str(HERE / source) for source in sources), "-o", str(target), *libraries]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise NotPreparedError("gcc is needed: apt-get install gcc libc6-dev libssl-dev") from None
        if done.returncode:
            raise NotPreparedError(f"{name} does not compile (apt-get install libssl-dev?):\n{done.stderr}")
    return Tools(BUILD / "load", BUILD / "sink")


def make_certificate(folder: Path, kind: str) -> Certificate:
    """
    Make a self-signed certificate for mx.example.org in *folder*; *kind* is `ecdsa` (P-256) or `rsa` (2048 bits).
    """
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example.org")])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.example.org")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(kind, folder / "chain.pem", folder / "key.pem")
    made.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.key.chmod(0o600)
    return made


def python_with_aiosmtpd() -> Path | None:
    """
    Return an interpreter that can import aiosmtpd: this one, or one of its own in `.build/`.

    Returns:
        `None` if it is not installed here and cannot be fetched either.
    """
    if importlib.util.find_spec("aiosmtpd"):
        return Path(sys.executable)
    own = BUILD / "aiosmtpd"
    python = own / "bin" / "python"
    if not (own / "complete").exists():
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(own)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "aiosmtpd>=1.4.6"],
        ):
            if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
                return None
        (own / "complete").touch()
    return python
