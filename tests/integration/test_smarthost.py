"""
The gate turned round: an old server sends in plaintext, and its mail goes on over verified TLS, or not at all.

The configuration is conf/smarthost.toml, with addresses of this machine in it.
"""

import base64
import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from tests.integration import messages
from tests.integration.clients import PROGRAMS, PostfixClient
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.mailserver import DOMAIN
from tests.integration.messages import RECIPIENT
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, private_folder
from tests.integration.routes import Route
from tests.integration.test_backend_tls import Part, Scripted, context
from tests.integration.test_proxy import Caller, logged
from tests.integration.wire import CLIENT_NAME, Wire
from tests.support.certificates import DAY, NOW, Authority, Issued, pem, self_signed

EXAMPLE = Path(__file__).parents[2] / "conf" / "smarthost.toml"
PROVIDER = "smtp.provider.example"
ROOT = Authority.root("Provider's root", number=120)
PLAINTEXT_CLIENTS = [name for name in PROGRAMS if name != "openssl"]


def example(folder: Path, backend_port: int) -> tuple[str, int]:
    """
    Return the example's text for this machine, and the port that the old server sends to.
    """
    port = free_port()
    trusted = folder / "provider-ca.pem"
    trusted.write_bytes(pem(ROOT.certificate))
    text = EXAMPLE.read_text()
    for ours, here in (
        ('"tcp:2525:interface=10.0.0.1"', f'"tcp:{port}:interface=127.0.0.1"'),
        ('"tcp:smtp.provider.example:587"', f'"tcp:127.0.0.1:{backend_port}"'),
        ('# tls_ca = "/etc/tlsgate/provider-ca.pem" ', f'tls_ca = "{trusted}" # '),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, here)
    return text, port


@contextmanager
def provider(shown: Issued) -> Iterator[Postfix]:
    """
    Have a Postfix that takes mail over STARTTLS, and shows that certificate.
    """
    with private_folder("provider") as folder:
        files = shown.write(folder)
        settings = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(files.chain),
            "smtpd_tls_key_file": str(files.key),
            "smtpd_tls_loglevel": "1",
            "smtpd_tls_received_header": "yes",
        }
        server = Postfix(folder, settings=settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ConfiguredGate, Postfix, Route]]:
    """
    A gate, the provider it is for, and where the old server sends to.
    """
    folder = tmp_path_factory.mktemp("smarthost")
    with provider(ROOT.issue(PROVIDER)) as server:
        text, port = example(folder, server.port)
        with configured(folder, text) as gate:
            yield gate, server, Route(port, "plain")


@pytest.mark.parametrize("name", PLAINTEXT_CLIENTS)
def test_what_comes_in_plaintext_goes_on_over_tls(
    verified: tuple[ConfiguredGate, Postfix, Route], tmp_path: Path, name: str
) -> None:
    _, server, route = verified
    sent = messages.dotted()
    PROGRAMS[name](tmp_path).send(route, [RECIPIENT], sent)
    [arrived] = server.mailbox.collect(sent)
    assert arrived.message == sent
    assert re.search(r"\(using TLSv1\.3 with cipher ", arrived.trace), arrived.trace
    assert "ESMTPS" in arrived.trace


def test_an_old_postfix_sends_its_mail_that_way(
    verified: tuple[ConfiguredGate, Postfix, Route], postfix_client: PostfixClient
) -> None:
    """
    A mail server as the client, with `smtp_tls_security_level = none`.
    """
    _, server, route = verified
    sent = messages.tiny()
    postfix_client.send(route, [RECIPIENT, f"carol@{DOMAIN}"], sent)
    arrived = server.mailbox.collect(sent, copies=2)
    assert {one.recipient for one in arrived} == {RECIPIENT, f"carol@{DOMAIN}"}
    assert all("(using TLSv1.3 with cipher " in one.trace for one in arrived)
    assert logged(server, "Anonymous TLS connection established from unknown[127.0.0.1]: TLSv1.3")


def test_the_old_server_is_not_shown_a_tls_it_cannot_do(verified: tuple[ConfiguredGate, Postfix, Route]) -> None:
    """
    Neither the provider's STARTTLS nor one of the gate's; what the provider says otherwise is what it hears.
    """
    _, _, route = verified
    with Wire(route) as wire:
        keywords = wire.greeted().keywords
        assert "STARTTLS" not in keywords
        assert {"8BITMIME", "PIPELINING", "SIZE"} <= keywords
        assert wire.command("STARTTLS").code == 502
        wire.quit()


FAULTS = {
    "another name": (ROOT.issue("smtp.elsewhere.example"), "certificate is for another name"),
    "expired": (ROOT.issue(PROVIDER, not_before=NOW - 9 * DAY, not_after=NOW - DAY), "certificate has expired"),
    "self-signed": (self_signed(PROVIDER), "self-signed certificate"),
}


@pytest.mark.parametrize("which", FAULTS)
def test_to_somebody_else_nothing_is_sent(tmp_path: Path, which: str) -> None:
    """
    The old server keeps its mail, to try again; in the provider's log there is no transaction, and no plaintext.
    """
    shown, reason = FAULTS[which]
    with provider(shown) as server:
        text, port = example(tmp_path, server.port)
        with configured(tmp_path, text) as gate:
            with pytest.raises(smtplib.SMTPConnectError) as refused:
                smtplib.SMTP("127.0.0.1", port, CLIENT_NAME, 30)
            assert refused.value.smtp_code == 421
            # The operator is told, though the gate has not got as far as to ask.
            told = gate.wait_for(1, "warning")[0]["text"]
            assert told.startswith(f"backend.endpoints[0]: tcp:127.0.0.1:{server.port} cannot be asked")
            assert reason in told
        assert "client=" not in server.said()
        assert "mail=" not in server.said()
        assert "TLS connection established" not in server.said()
        assert server.mailbox.unread() == []


def test_a_provider_that_stops_being_itself_gets_no_more(tmp_path: Path) -> None:
    """
    A session that begins before the gate knows is told to come again as well; no password goes out.
    """
    good = Part(
        "starttls",
        context(ROOT.issue(PROVIDER), tmp_path),
        keywords=(b"8BITMIME", b"AUTH PLAIN LOGIN"),
        answers={b"AUTH": b"235 2.7.0 Welcome\r\n"},
    )
    password = base64.b64encode(b"\0printer\0secret").decode()
    with Scripted(good) as backend:
        text, port = example(tmp_path, backend.port)
        text = text.replace("[backend]", "[backend]\naccept_open_relay = true\nprobe_seconds = 0")
        with configured(tmp_path, text) as gate:
            backend.wait(1)
            with Caller(Route(port, "plain")) as wire:
                assert "AUTH" in wire.greeted().keywords
                assert wire.command(f"AUTH PLAIN {password}").code == 235
                wire.quit()
            [heard] = backend.wait(2)[1:]
            assert f"AUTH PLAIN {password}".encode() in heard.inside
            assert password not in str(heard.plain)
            (tmp_path / "elsewhere").mkdir()
            other = context(ROOT.issue("smtp.elsewhere.example"), tmp_path / "elsewhere")
            backend.play(evolve(good, context=other))
            with Caller(Route(port, "plain")) as wire:
                refused = wire.reply()
                assert (refused.code, wire.line()) == (421, "")
            assert "certificate is for another name" in gate.wait_for(1, "backend-failed")[0]["reason"]
            assert not any(password in str(one.lines) for one in backend.heard()[2:])
