"""
The clients before the gate: what operators and their users really send mail with.

Each sends one message to several recipients, verifies the certificate where it can be told to, and fails the test with
its own words when it does not succeed.
"""

import smtplib
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from attrs import define, frozen

from tests.integration.messages import SENDER, stuffed
from tests.integration.openssl import CLIENT_SECONDS, SClient
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, need
from tests.integration.routes import Route
from tests.integration.wire import CLIENT_NAME


class Client(Protocol):
    """
    Whatever sends mail.
    """

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        """
        Send *message*, whose line ends are CRLF.
        """


def run(argv: Sequence[str], standard_input: bytes = b"") -> str:
    """
    Run a client to its end and return what it said; its failure is the test's.
    """
    done = subprocess.run(
        argv,
        input=standard_input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=CLIENT_SECONDS,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        pytest.fail(f"{argv[0]} ended with status {done.returncode}:\n{said}")
    return said


@frozen
class Swaks:
    """
    The Swiss army knife for SMTP.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        data = self.folder / "swaks.eml"
        # swaks ends the last line itself.
        data.write_bytes(message.removesuffix(b"\r\n").replace(b"\r\n", b"\n"))
        tls = {
            "plain": [],
            "starttls": ["--tls", "--tls-verify", "--tls-ca-path", str(route.authority)],
            "implicit": ["--tls-on-connect", "--tls-verify", "--tls-ca-path", str(route.authority)],
        }[route.mode]
        where = ["--server", route.host, "--port", str(route.port), "--helo", CLIENT_NAME]
        run([need("swaks"), *where, *tls, "--from", SENDER, "--to", ",".join(recipients), "--data", f"@{data}"])


@frozen
class Curl:
    """
    curl, which stuffs dots and pipelines nothing.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        data = self.folder / "curl.eml"
        data.write_bytes(message)
        scheme = "smtps" if route.mode == "implicit" else "smtp"
        tls = [] if route.mode == "plain" else ["--ssl-reqd", "--cacert", str(route.authority)]
        to = [part for recipient in recipients for part in ("--mail-rcpt", recipient)]
        url = f"{scheme}://{route.host}:{route.port}/{CLIENT_NAME}"
        run([need("curl"), "-sS", "-v", "--url", url, *tls, "--mail-from", SENDER, *to, "--upload-file", str(data)])


@frozen
class Msmtp:
    """
    msmtp, which pipelines and speaks TLS with GnuTLS.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        config = self.folder / "msmtprc"
        config.write_text(
            f"account default\nhost {route.host}\nport {route.port}\nfrom {SENDER}\ndomain {CLIENT_NAME}\nauth off\n"
            f"tls {'off' if route.mode == 'plain' else 'on'}\n"
            f"tls_starttls {'off' if route.mode == 'implicit' else 'on'}\n"
            f"tls_trust_file {route.authority}\n"
            "set_date_header off\nset_msgid_header off\nset_from_header off\n"
        )
        run([need("msmtp"), "-v", "-C", str(config), *recipients], message.replace(b"\r\n", b"\n"))


@frozen
class Smtplib:
    """
    Python's own client.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        context = ssl.create_default_context(cafile=route.authority)
        if route.mode == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                route.host, route.port, CLIENT_NAME, timeout=CLIENT_SECONDS, context=context
            )
        else:
            client = smtplib.SMTP(route.host, route.port, CLIENT_NAME, CLIENT_SECONDS)
        with client:
            if route.mode == "starttls":
                client.starttls(context=context)
            assert client.sendmail(SENDER, list(recipients), message) == {}


@frozen
class Openssl:
    """
    A scripted dialogue through `openssl s_client`.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        with SClient(route, self.folder) as client:
            if route.mode == "implicit":
                assert client.reply().code == 220, client.said()
            script = [(f"EHLO {CLIENT_NAME}", 250), (f"MAIL FROM:<{SENDER}>", 250)]
            script += [(f"RCPT TO:<{recipient}>", 250) for recipient in recipients]
            for command, code in [*script, ("DATA", 354)]:
                assert client.command(command.encode() + b"\r\n").code == code, client.said()
            assert client.command(stuffed(message)).code == 250
            assert client.command(b"QUIT\r\n").code == 221
            assert client.status() == 0, client.said()


ROUTES = "/^(plain|starttls|implicit)-([0-9]+)@/ FILTER $1:[127.0.0.1]:$2\n"
TRANSPORTS = """
plain unix - - n - - smtp -o smtp_tls_security_level=none
starttls unix - - n - - smtp -o smtp_tls_security_level=encrypt -o smtp_tls_loglevel=1
implicit unix - - n - - smtp -o smtp_tls_security_level=encrypt -o smtp_tls_wrappermode=yes -o smtp_tls_loglevel=1
"""


@define
class PostfixClient:
    """
    A Postfix that relays to the gate: it takes the message in plaintext, and the sender's name says where it goes on.

    It adds a trace field of its own, and sends later than `send` returns.
    """

    server: Postfix

    @classmethod
    def made(cls, folder: Path) -> "PostfixClient":
        """
        Return one that is running in *folder*; its server must be stopped.
        """
        (folder / "routes").write_text(ROUTES)
        settings = {
            "myhostname": CLIENT_NAME,
            "virtual_mailbox_domains": "",
            # A bounce has nowhere to go (discard port) and stays in the queue.
            "default_transport": "smtp:[127.0.0.1]:9",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_recipient_restrictions": f"check_sender_access regexp:{folder}/routes, permit",
        }
        server = Postfix(folder, free_port(), settings=settings, services=TRANSPORTS)
        server.start()
        return cls(server)

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        with smtplib.SMTP("127.0.0.1", self.server.port, CLIENT_NAME, CLIENT_SECONDS) as client:
            client.sendmail(f"{route.mode}-{route.port}@client.example", list(recipients), message)


PROGRAMS: dict[str, Callable[[Path], Client]] = {
    "swaks": Swaks,
    "curl": Curl,
    "msmtp": Msmtp,
    "smtplib": Smtplib,
    "openssl": Openssl,
}
CLIENTS = (*PROGRAMS, "postfix")
