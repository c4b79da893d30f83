"""
The clients before the gate: what operators and their users really send mail with.

Each sends a message to several recipients, to those that are not refused if there are others, verifies the certificate
where it can be told to, and fails the test with its own words when it does not succeed.
"""

import os
import pwd
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import pytest
from attrs import define, frozen

from tests.integration.mailserver import DOMAIN, MESSAGE_OCTETS_MAX, REFUSED
from tests.integration.messages import SENDER, stuffed
from tests.integration.openssl import CLIENT_SECONDS, SClient
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, need
from tests.integration.routes import Route
from tests.integration.servers import OpenSmtpd
from tests.integration.wire import CLIENT_NAME


class Client(Protocol):
    """
    Whatever sends mail.
    """

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        """
        Send *message*, whose line ends are CRLF.
        """


def parameters(recipients: Sequence[str]) -> list[str]:
    """
    Return the parameters of MAIL for such recipients (RFC 6531).
    """
    return [] if "".join(recipients).isascii() else ["SMTPUTF8", "BODY=8BITMIME"]


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
        self.send_all(route, recipients, [message])

    def send_all(self, route: Route, recipients: Sequence[str], sent: Sequence[bytes]) -> None:
        scheme = "smtps" if route.mode == "implicit" else "smtp"
        tls = [] if route.mode == "plain" else ["--ssl-reqd", "--cacert", str(route.authority)]
        to = [part for recipient in recipients for part in ("--mail-rcpt", recipient)]
        url = f"{scheme}://{route.host}:{route.port}/{CLIENT_NAME}"
        transfers: list[str] = []
        for number, message in enumerate(sent):
            data = self.folder / f"curl-{number}.eml"
            data.write_bytes(message)
            transfers += ["--next"] if number else []
            transfers += ["-sS", "-v", "--url", url, *tls, "--mail-from", SENDER, *to, "--mail-rcpt-allowfails"]
            transfers += ["--upload-file", str(data)]
        run([need("curl"), *transfers])


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
        self.send_all(route, recipients, [message])

    def send_all(self, route: Route, recipients: Sequence[str], sent: Sequence[bytes]) -> None:
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
            for message in sent:
                refused = client.sendmail(SENDER, list(recipients), message, parameters(recipients))
                assert refused.keys() <= {REFUSED}


@frozen
class Openssl:
    """
    A scripted dialogue through `openssl s_client`.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        self.send_all(route, recipients, [message])

    def send_all(self, route: Route, recipients: Sequence[str], sent: Sequence[bytes]) -> None:
        envelope = [(" ".join([f"MAIL FROM:<{SENDER}>", *parameters(recipients)]), 250)]
        envelope += [(f"RCPT TO:<{recipient}>", 550 if recipient == REFUSED else 250) for recipient in recipients]
        with SClient(route, self.folder) as client:
            if route.mode == "implicit":
                assert client.reply().code == 220, client.said()
            assert client.command(f"EHLO {CLIENT_NAME}\r\n".encode()).code == 250, client.said()
            for message in sent:
                for command, code in [*envelope, ("DATA", 354)]:
                    assert client.command(command.encode() + b"\r\n").code == code, client.said()
                assert client.command(stuffed(message)).code == 250
            assert client.command(b"QUIT\r\n").code == 221
            assert client.status() == 0, client.said()


EXIM = """
exim_path = {exim}
spool_directory = {folder}/spool
log_file_path = {folder}/%s.log
primary_hostname = {name}
keep_environment =
trusted_users = Debian-exim
message_size_limit = {size}
# It is its own user from the start and cannot become another.
deliver_drop_privilege = true
queue_run_in_order = true

begin routers
bounces:
  driver = redirect
  senders = :
  data = :blackhole:
gate:
  driver = manualroute
  route_list = * {host}::{port} byname
  self = send
  transport = gate

begin transports
gate:
  driver = smtp
  {tls}

begin retry
* * F,1h,1h
"""


@frozen
class EximClient:
    """
    Exim as a smarthost's client: where it is offered CHUNKING and PIPELINING, envelope, message and QUIT are one piece.

    It adds a trace field of its own. *folder* is one that it can enter; each sending has a folder and a queue in there.
    """

    folder: Path

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        exim = self._configured(route)
        exim.run(["-odi", "-oi", "-f", SENDER, *recipients], message)
        exim.assert_rid_of_all()

    def send_all(self, route: Route, recipients: Sequence[str], sent: Sequence[bytes]) -> None:
        exim = self._configured(route)
        for message in sent:
            exim.run(["-odq", "-oi", "-f", SENDER, *recipients], message)
        # A queue run in two stages: by the second it knows which messages go to the same host.
        exim.run(["-qq"])
        exim.assert_rid_of_all()

    def _configured(self, route: Route) -> "_Exim":
        program = need(Path("exim/usr/sbin/exim4"), root=True)
        folder = Path(mkdtemp(dir=self.folder))
        tls = ["hosts_avoid_tls = *"]
        if route.authority and route.mode != "plain":
            authority = folder / "authority.pem"
            authority.write_bytes(route.authority.read_bytes())
            tls = ["hosts_require_tls = *", "tls_verify_hosts = *", f"tls_verify_certificates = {authority}"]
        if route.mode == "implicit":
            tls.append("protocol = smtps")
        (folder / "exim.conf").write_text(
            EXIM.format(
                exim=program,
                folder=folder,
                name=CLIENT_NAME,
                size=MESSAGE_OCTETS_MAX,
                host=route.host,
                port=route.port,
                tls="\n  ".join(tls),
            )
        )
        owner = pwd.getpwnam("Debian-exim")
        folder.chmod(0o755)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_exim = [need("setpriv"), f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        return _Exim(folder, [*as_exim, program, "-C", str(folder / "exim.conf")])


@frozen
class _Exim:
    """
    One configuration, with a queue of its own.
    """

    folder: Path
    argv: Sequence[str]

    def run(self, options: Sequence[str], message: bytes = b"") -> str:
        return run([*self.argv, *options], message.replace(b"\r\n", b"\n"))

    def assert_rid_of_all(self) -> None:
        """
        Fail if anything is left in the queue, which is no failure of Exim's.
        """
        if self.run(["-bpc"]).strip() != "0":
            pytest.fail((self.folder / "main.log").read_text(errors="replace"))


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
            sender = f"{route.mode}-{route.port}@client.example"
            client.sendmail(sender, list(recipients), message, parameters(recipients))


SCHEMES = {"plain": "smtp+notls", "starttls": "smtp+tls", "implicit": "smtps"}
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@define
class OpenSmtpdClient:
    """
    OpenSMTPD as a smarthost's client, a new one for each message: it lets seconds pass before it connects again.

    It adds a trace field of its own, and sends later than `send` returns.
    """

    folder: Path
    _server: OpenSmtpd | None = None

    def send(self, route: Route, recipients: Sequence[str], message: bytes) -> None:
        self.stop()
        folder = Path(mkdtemp(dir=self.folder))
        folder.chmod(0o755)
        rules = f'action "gate" relay host {SCHEMES[route.mode]}://{route.host}:{route.port} helo {CLIENT_NAME}\n'
        rules += f'match from any for domain "{DOMAIN}" action "gate"\n'
        # Else it would keep the session for ten seconds, in case there is more to come.
        rules += "mta limit session-keepalive 0\n"
        binds = {AUTHORITIES: route.authority} if route.authority else {}
        self._server = server = OpenSmtpd(folder, free_port(), rules=rules, binds=binds)
        server.start()
        with smtplib.SMTP("127.0.0.1", server.port, CLIENT_NAME, CLIENT_SECONDS) as client:
            client.sendmail(SENDER, list(recipients), message, parameters(recipients))

    def stop(self) -> None:
        """
        Stop the one that was started last.
        """
        if self._server is not None:
            self._server.stop()


PROGRAMS: dict[str, Callable[[Path], Client]] = {
    "swaks": Swaks,
    "curl": Curl,
    "msmtp": Msmtp,
    "smtplib": Smtplib,
    "openssl": Openssl,
}
CLIENTS = (*PROGRAMS, "exim", "postfix", "opensmtpd")
