"""
`tlsgate check`: what it looks at, what it says, and its exit status.
"""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from attrs import define
from click.testing import CliRunner, Result
from twisted.names import dns

from tests.operator.scripted import running
from tests.support.certificates import NOW, Authority, pem
from tests.support.nameserver import Nameserver, Says, pointer
from tlsgate.net.proxy_protocol import HeaderReader, ProxyHeader
from tlsgate.operator.call import STRANGER_IPV4, STRANGER_IPV6, STRANGER_PORT, proxy_header
from tlsgate.operator.main import main

RELAYING = {b"RCPT": b"250 2.1.5 Ok\r\n"}
LOOPBACK = "1.0.0.127.in-addr.arpa"
STARTTLS = {b"EHLO": b"250-mail.example\r\n250 STARTTLS\r\n"}


@define
class Setting:
    """
    A folder with a certificate for mx.example, and the authority it comes from.
    """

    folder: Path
    root: Authority

    def write(self, endpoint: str, backend: str = "", head: str = "", tls: str = "") -> Path:
        path = self.folder / "gate.toml"
        path.write_text(
            f"{head}\n[[listener]]\nname = 'mx'\nendpoint = 'tcp:2525'\nlevel = 'offered'\n"
            f"[tls]\ncertificates = [{{ chain = 'mx.pem', key = 'mx.key' }}]\n{tls}\n"
            f"[backend]\nendpoints = ['{endpoint}']\n{backend}\n"
        )
        return path

    def check(self, endpoint: str, backend: str = "", head: str = "", tls: str = "") -> Result:
        return run("--config", str(self.write(endpoint, backend, head, tls)), "--timeout", "5")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["check", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    root = Authority.root()
    (tmp_path / "ca.pem").write_bytes(pem(root.certificate))
    root.issue("mx.example").write(tmp_path)
    return Setting(tmp_path, root)


def lines(result: Result, severity: str) -> list[str]:
    return [line.removeprefix(severity).lstrip() for line in result.output.splitlines() if line.startswith(severity)]


class TestReport:
    def test_a_sound_setup_has_only_good_lines(self, setting: Setting) -> None:
        with running() as server:
            result = setting.check(server.endpoint, head="hostname = 'mx.example'")
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[-1] == "0 faults, 0 warnings"
        good = lines(result, "OK")
        assert good[0].startswith("tls.certificates[0]: ")
        assert "ECDSA for mx.example, until 20" in good[0]
        assert good[1] == (
            f"backend.endpoints[0]: {server.endpoint}: 220 mail.example ESMTP; offers PIPELINING SIZE 1000"
        )
        assert "does not relay for strangers that come from this address" in good[2]
        assert len(good) == 3

    def test_each_fault_of_a_configuration_has_its_line(self, setting: Setting) -> None:
        path = setting.write("127.0.0.1:25", backend="client_adress = 'none'", head="hostname = 7")
        result = run("--config", str(path))
        assert result.exit_code == 1
        keys = {line.partition(":")[0] for line in lines(result, "FAULT")}
        assert keys == {"hostname", "backend.client_adress", "backend.endpoints[0]"}
        assert result.output.splitlines()[-1] == "3 faults, 0 warnings"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        result = run("--config", str(tmp_path / "missing.toml"))
        assert result.exit_code == 1
        assert lines(result, "FAULT") == [f"{tmp_path / 'missing.toml'}: No such file or directory"]

    def test_warnings_of_the_configuration_are_shown(self, setting: Setting) -> None:
        with running() as server:
            path = setting.write(server.endpoint, head="hostname = 'mx.example'")
            path.write_text(path.read_text() + "[limits]\nclient_timeout_seconds = 10\n")
            result = run("--config", str(path))
        assert result.exit_code == 0
        assert lines(result, "WARNING")[0].startswith("limits.client_timeout_seconds: 10 is less than the 300")

    def test_json_is_for_machines(self, setting: Setting) -> None:
        with running(RELAYING) as server:
            path = setting.write(server.endpoint, head="hostname = 'mx.example'")
            result = run("--config", str(path), "--json")
        told = json.loads(result.output)
        assert result.exit_code == 1
        assert told["ok"] is False
        assert [entry["severity"] for entry in told["findings"]] == ["ok", "ok", "fault"]
        assert {entry["at"] for entry in told["findings"]} == {"tls.certificates[0]", "backend.endpoints[0]"}

    def test_what_a_backend_says_cannot_draw_on_the_terminal(self, setting: Setting) -> None:
        with running({b"": b"220 [bold red]\x1b]0;x\x07 ESMTP\r\n"}) as server:
            result = setting.check(server.endpoint)
        assert "[bold red]" in result.output
        assert "\x1b" not in result.output
        assert "\x07" not in result.output

    def test_the_short_form(self, setting: Setting) -> None:
        certificate = ("--certificate", str(setting.folder / "mx.pem"), "--key", str(setting.folder / "mx.key"))
        with running() as server:
            result = run("--backend", server.endpoint, *certificate, "--hostname", "mx.example", "--level", "strong")
        assert result.exit_code == 0, result.output

    def test_the_short_form_can_accept_a_relay(self, setting: Setting) -> None:
        certificate = ("--certificate", str(setting.folder / "mx.pem"), "--key", str(setting.folder / "mx.key"))
        with running(RELAYING) as server:
            assert run("--backend", server.endpoint, *certificate).exit_code == 1
            assert run("--backend", server.endpoint, *certificate, "--accept-open-relay").exit_code == 0

    def test_a_faulty_option_is_called_by_its_name(self) -> None:
        result = run("--backend", "127.0.0.1:25")
        assert result.exit_code == 1
        assert any(line.startswith("--backend: ") for line in lines(result, "FAULT"))

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--config", "a.toml", "--backend", "tcp:localhost:25"],
            ["--backend", "tcp:localhost:25", "--certificate", "a.pem"],
            ["--backend", "tcp:localhost:25", "--client-address", "telepathy"],
            ["--timeout", "0"],
            ["--wat"],
        ],
    )
    def test_a_command_line_that_cannot_be_understood_is_status_2(self, arguments: list[str]) -> None:
        assert run(*arguments).exit_code == 2


class TestCertificates:
    def test_a_key_of_another_certificate(self, setting: Setting) -> None:
        setting.root.issue("mx.example", number=7).write(setting.folder, "other")
        (setting.folder / "mx.key").write_bytes((setting.folder / "other.key").read_bytes())
        with running() as server:
            result = setting.check(server.endpoint)
        assert result.exit_code == 1
        assert len(lines(result, "FAULT")) == 1
        assert "is not the key of the certificate" in lines(result, "FAULT")[0]

    def test_an_expired_certificate_and_one_about_to_expire(self, setting: Setting) -> None:
        with running() as server:
            setting.root.issue("mx.example", not_after=NOW - timedelta(hours=1)).write(setting.folder)
            expired = setting.check(server.endpoint)
            setting.root.issue("mx.example", not_after=NOW + timedelta(days=5)).write(setting.folder)
            expiring = setting.check(server.endpoint)
        assert "expired on" in lines(expired, "FAULT")[0]
        assert expiring.exit_code == 0
        assert "expires on" in lines(expiring, "WARNING")[0]

    def test_a_hostname_that_no_certificate_has(self, setting: Setting) -> None:
        with running() as server:
            result = setting.check(server.endpoint, head="hostname = 'mail.other.example'")
        assert result.exit_code == 0
        assert "no certificate has the name mail.other.example" in lines(result, "WARNING")[0]

    def test_a_backend_whose_name_no_certificate_has(self, setting: Setting) -> None:
        """
        Without a hostname, clients are greeted in the backend's name.
        """
        with running() as server:
            result = setting.check(server.endpoint)
        assert result.exit_code == 0
        assert "greets as mail.example, which no certificate is for; set hostname" in lines(result, "WARNING")[0]

    def test_a_client_ca_that_cannot_be_read(self, setting: Setting) -> None:
        with running() as server:
            result = setting.check(server.endpoint, tls="client_ca = 'missing.pem'")
        assert result.exit_code == 1
        assert "missing.pem: cannot be read" in lines(result, "FAULT")[0]


class TestLevels:
    """Demands that the TLS library of this machine cannot meet, for anybody."""

    LEVEL = '[[level]]\nname = "strange"\ntls = "required"\ngroups = [{}]\n[[rule]]\nhelo = ["x.example"]\nlevel = "strange"\n'

    def check(self, setting: Setting, groups: str) -> Result:
        with running() as server:
            return setting.check(server.endpoint, f"[observe]\n{self.LEVEL.format(groups)}")

    def test_groups_that_are_known(self, setting: Setting) -> None:
        assert self.check(setting, '"X25519"').output.splitlines()[-1].startswith("0 faults")

    def test_no_group_that_is_known(self, setting: Setting) -> None:
        result = self.check(setting, '"X25519MLKEM786"')
        assert result.exit_code == 1
        (line,) = lines(result, "FAULT")
        assert line.startswith("level[0].groups[0]: OpenSSL ")
        assert "'X25519MLKEM786'; the level would refuse everybody" in line

    def test_one_of_two(self, setting: Setting) -> None:
        result = self.check(setting, '"X25519MLKEM786", "P-256"')
        assert result.exit_code == 0
        assert lines(result, "WARNING")[0].startswith("level[0].groups[0]: OpenSSL ")


class TestBackends:
    def test_a_backend_that_is_down(self, setting: Setting) -> None:
        with running() as server:
            pass
        result = setting.check(server.endpoint)
        assert result.exit_code == 1
        assert lines(result, "FAULT") == [f"backend.endpoints[0]: {server.endpoint}: Connection refused"]

    def test_a_relay_is_a_fault(self, setting: Setting) -> None:
        with running(RELAYING) as server:
            result = setting.check(server.endpoint)
        assert result.exit_code == 1
        assert "set client_address (--client-address) to xclient" in lines(result, "FAULT")[0]

    def test_a_relay_that_is_accepted_is_a_warning(self, setting: Setting) -> None:
        with running(RELAYING) as server:
            result = setting.check(server.endpoint, backend="accept_open_relay = true", head="hostname = 'mx.example'")
        assert result.exit_code == 0
        assert lines(result, "WARNING")[0].endswith("which accept_open_relay = true puts up with")

    def test_a_server_that_says_neither_yes_nor_no_is_a_warning(self, setting: Setting) -> None:
        with running({b"RCPT": b"450 4.2.0 Greylisted\r\n"}) as server:
            result = setting.check(server.endpoint, head="hostname = 'mx.example'")
        assert result.exit_code == 0
        assert "450 4.2.0 Greylisted" in lines(result, "WARNING")[0]


class TestClientAddress:
    EHLO: Mapping[bytes, bytes] = {b"EHLO": b"250-mail.example\r\n250 XCLIENT NAME ADDR PORT\r\n"}

    def test_xclient_is_tried_with_a_stranger(self, setting: Setting) -> None:
        """
        A server that trusts the gate, but not strangers it is told of, is in order.
        """
        with running(self.EHLO) as server:
            result = setting.check(server.endpoint, "client_address = 'xclient'", "hostname = 'mx.example'")
        assert result.exit_code == 0, result.output
        assert b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=50025" in server.heard
        assert "takes XCLIENT with NAME ADDR PORT" in result.output
        assert "does not relay for strangers from elsewhere, such as 192.0.2.1" in result.output

    def test_the_stranger_has_no_name_of_ours(self, setting: Setting) -> None:
        ehlo = {b"EHLO": b"250-mail.example\r\n250 XCLIENT NAME ADDR PORT REVERSE_NAME\r\n"}
        with running(ehlo) as server:
            setting.check(server.endpoint, "client_address = 'xclient'", "hostname = 'mx.example'")
        told = b"XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=50025"
        assert told in server.heard

    def test_a_server_that_relays_for_whom_it_was_told_of_is_a_fault(self, setting: Setting) -> None:
        with running({**self.EHLO, **RELAYING}) as server:
            result = setting.check(server.endpoint, "client_address = 'xclient'", "hostname = 'mx.example'")
        assert result.exit_code == 1
        assert "it is an open relay, or does not heed who it is told the client is" in lines(result, "FAULT")[0]

    @pytest.mark.parametrize(
        ("replies", "reason"),
        [
            ({}, "does not offer XCLIENT with ADDR to us; allow it to this address there (Postfix: smtpd_authorized"),
            ({b"EHLO": b"250-a\r\n250 XCLIENT NAME\r\n"}, "does not offer XCLIENT with ADDR to us"),
            ({**EHLO, b"XCLIENT": b"550 5.7.0 no\r\n"}, "answered XCLIENT with 550 5.7.0 no"),
        ],
    )
    def test_a_server_that_cannot_be_told_is_a_fault(
        self, setting: Setting, replies: dict[bytes, bytes], reason: str
    ) -> None:
        with running(replies) as server:
            result = setting.check(server.endpoint, "client_address = 'xclient'")
        assert result.exit_code == 1
        assert reason in lines(result, "FAULT")[0]

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_proxy_header_of_a_stranger_comes_first(self, setting: Setting, version: int) -> None:
        with running(proxied=True) as server:
            result = setting.check(server.endpoint, f"client_address = 'proxy-v{version}'", "hostname = 'mx.example'")
        assert result.exit_code == 0, result.output
        assert "answers behind a PROXY header" in result.output
        port = int(server.endpoint.rpartition(":")[2])
        stranger = (ip_address(STRANGER_IPV4), STRANGER_PORT)
        assert server.proxy_headers == [ProxyHeader(version, stranger, (ip_address("127.0.0.1"), port))]

    def test_a_server_that_knows_no_proxy_header_is_a_fault(self, setting: Setting) -> None:
        with running({b"PROXY": b"500 What?\r\n"}) as server:
            result = setting.check(server.endpoint, "client_address = 'proxy-v1'")
        assert result.exit_code == 1
        assert "does it expect a PROXY header on this port" in lines(result, "FAULT")[0]

    def test_transparent_is_not_asked_from_the_wrong_address(self, setting: Setting) -> None:
        with running(RELAYING) as server:
            result = setting.check(server.endpoint, "client_address = 'transparent'", "hostname = 'mx.example'")
        assert result.exit_code == 0, result.output
        assert "called from this machine's own address here, and not asked to relay" in result.output
        assert not any(line.startswith(b"MAIL") for line in server.heard)


class TestNameServers:
    """
    They are asked where host names of clients are to be looked up.
    """

    XCLIENT: Mapping[bytes, bytes] = {
        b"EHLO": b"250-mail.example\r\n250 XCLIENT NAME ADDR\r\n",
        b"XCLI": b"220 Hello\r\n",
    }
    WANTED = "client_address = 'xclient'\nclient_name = 'dns'\n"

    @pytest.mark.parametrize("said", [dns.ENAME, [pointer("localhost")]], ids=["NXDOMAIN", "localhost"])
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_one_that_answers(self, setting: Setting, host: str, said: Says) -> None:
        with running(self.XCLIENT) as server, Nameserver({f"PTR {LOOPBACK}": said}, host) as names:
            told = f"[{host}]:{names.port}"
            result = setting.check(server.endpoint, f"{self.WANTED}[dns]\nservers = ['{told}']")
        where = told if ":" in host else f"{host}:{names.port}"
        assert f"dns.servers: {where}: answers" in lines(result, "OK")

    @pytest.mark.parametrize(
        ("said", "trouble"),
        [
            (dns.ESERVER, "answers SERVFAIL"),
            (dns.EREFUSED, "answers REFUSED"),
            (None, "does not answer"),
            (lambda _: b"what?", "does not answer in the language of the DNS"),
        ],
    )
    def test_one_that_does_not(self, setting: Setting, said: Says, trouble: str) -> None:
        with running(self.XCLIENT) as server, Nameserver({f"PTR {LOOPBACK}": said}) as names:
            result = setting.check(server.endpoint, f"{self.WANTED}[dns]\nservers = ['127.0.0.1:{names.port}']")
        [found] = [line for line in lines(result, "WARNING") if line.startswith("dns.servers")]
        assert found.startswith(f"dns.servers: 127.0.0.1:{names.port}: {trouble}; without an answer, no client has")

    def test_one_that_is_not_there(self, setting: Setting) -> None:
        with running(self.XCLIENT) as server:
            result = setting.check(server.endpoint, f"{self.WANTED}[dns]\nservers = ['127.0.0.1:1']")
        assert "127.0.0.1:1: cannot be asked: Connection refused" in str(lines(result, "WARNING"))

    def test_nobody_is_asked_for_nothing(self, setting: Setting) -> None:
        with running(self.XCLIENT) as server, Nameserver() as names:
            result = setting.check(
                server.endpoint, f"client_address = 'xclient'\n[dns]\nservers = ['127.0.0.1:{names.port}']"
            )
            assert names.asked == []
        assert "nothing is asked of them" in str(lines(result, "WARNING"))


class TestTlsToTheBackend:
    @pytest.fixture
    def keys(self) -> Callable[[str], str]:
        return lambda tls: f"tls = '{tls}'\ntls_ca = 'ca.pem'\ntls_name = 'mail.example'\n"

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_a_verified_backend(self, setting: Setting, tls: str, keys: Callable[[str], str]) -> None:
        files = setting.root.issue("mail.example").write(setting.folder, "mail")
        with running(STARTTLS, tls=tls, files=files) as server:
            result = setting.check(server.endpoint, keys(tls), "hostname = 'mx.example'")
        assert result.exit_code == 0, result.output
        assert "TLS is verified: TLSv1.3 " in result.output

    def test_another_name(self, setting: Setting, keys: Callable[[str], str]) -> None:
        files = setting.root.issue("other.example").write(setting.folder, "mail")
        with running(STARTTLS, tls="starttls", files=files) as server:
            result = setting.check(server.endpoint, keys("starttls"))
        assert result.exit_code == 1
        assert "no TLS: certificate is for another name" in lines(result, "FAULT")[0]

    def test_no_starttls(self, setting: Setting, keys: Callable[[str], str]) -> None:
        with running() as server:
            result = setting.check(server.endpoint, keys("starttls"))
        assert "does not offer STARTTLS" in lines(result, "FAULT")[0]

    def test_a_level_that_is_not_reached(self, setting: Setting, keys: Callable[[str], str]) -> None:
        files = setting.root.issue("mail.example").write(setting.folder, "mail")
        level = "tls_level = 'odd'\n[[level]]\nname = 'odd'\ngroups = ['X448']\n"
        with running(STARTTLS, tls="starttls", files=files) as server:
            result = setting.check(server.endpoint, keys("starttls") + level, "hostname = 'mx.example'")
        assert result.exit_code == 1
        assert "TLS is verified, and does not suffice" in lines(result, "FAULT")[0]

    def test_an_authority_that_cannot_be_read(self, setting: Setting) -> None:
        with running() as server:
            result = setting.check(server.endpoint, "tls = 'starttls'\ntls_ca = 'missing.pem'\ntls_name = 'a.example'")
        assert result.exit_code == 1
        assert "missing.pem: cannot be read" in lines(result, "FAULT")[0]


@pytest.mark.parametrize("version", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize(
    ("ours", "theirs", "stranger"),
    [
        (("127.0.0.1", 4000), ("127.0.0.1", 25), STRANGER_IPV4),
        (("::1", 4000, 0, 0), ("::1", 25, 0, 0), STRANGER_IPV6),
        ("", "/run/smtp", STRANGER_IPV4),
    ],
)
def test_the_header_is_what_a_proxy_would_send(version: str, ours: object, theirs: object, stranger: str) -> None:
    reader = HeaderReader()
    header = reader.feed(proxy_header(version, ours, theirs))  # type: ignore[arg-type]
    assert header is not None
    assert header.source == (ip_address(stranger), STRANGER_PORT)
    assert header.destination is not None
    assert header.destination[1] == 25
    assert reader.rest == b""
