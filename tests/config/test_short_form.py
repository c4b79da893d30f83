"""
The options of the short form mean what a file would say, and their problems name options.
"""

from pathlib import Path
from typing import Any

import pytest

from tlsgate.config import ConfigError, from_options

SOUND: dict[str, Any] = {"backend": ["tcp:127.0.0.1:2525"], "certificates": [("mx.pem", "mx.key")]}


def problems_of(**options: Any) -> tuple[str, ...]:
    """
    Return what is wrong with *options*, which stand in for the sound ones.
    """
    with pytest.raises(ConfigError) as raised:
        from_options(**SOUND | options)
    return raised.value.problems


def test_a_backend_and_a_certificate_are_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = from_options(**SOUND)
    (listener,) = config.listeners
    assert (listener.endpoint, listener.tls, listener.level) == ("tcp:2525:interface=127.0.0.1", "starttls", "required")
    assert config.hostname is None
    assert config.backend.client_address == "none"
    # twistd changes its folder when it becomes a daemon.
    assert config.tls.certificates[0].chain == tmp_path / "mx.pem"


def test_every_option_finds_its_place() -> None:
    config = from_options(
        listen=["tcp:2525", "tcp:2526"],
        listen_tls=["tcp:4465"],
        backend=["tcp:localhost:25", "unix:/run/smtp.sock"],
        certificates=[("rsa.pem", "rsa.key"), ("ec.pem", "ec.key")],
        level="strong",
        client_address="xclient",
        hostname="mx.example.org",
    )
    assert [(listener.endpoint, listener.tls, listener.level) for listener in config.listeners] == [
        ("tcp:2525", "starttls", "strong"),
        ("tcp:2526", "starttls", "strong"),
        ("tcp:4465", "implicit", "strong"),
    ]
    assert [certificate.key.name for certificate in config.tls.certificates] == ["rsa.key", "ec.key"]
    assert config.backend.endpoints == ("tcp:localhost:25", "unix:/run/smtp.sock")
    assert config.backend.client_address == "xclient"
    assert config.hostname == "mx.example.org"


def test_implicit_tls_alone_opens_no_other_port() -> None:
    config = from_options(**SOUND, listen_tls=["tcp:4465"])
    assert [listener.endpoint for listener in config.listeners] == ["tcp:4465"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"level": "strict"}, '--level: "strict" is not one of offered, required, strong, verified'),
        ({"listen": ["25"]}, '--listen: "25" is not an endpoint; write "tcp:25"'),
        (
            {"listen": ["tcp:2525"], "listen_tls": ["465"]},
            '--listen-tls: "465" is not an endpoint; write "tcp:465"',
        ),
        ({"backend": []}, "--backend: at least one endpoint is needed"),
        (
            {"backend": ["localhost:25"]},
            '--backend: "localhost:25" is not an endpoint; write "tcp:localhost:25"',
        ),
        (
            {"client_address": "proxy"},
            '--client-address: "proxy" is not one of none, xclient, proxy-v1, proxy-v2, transparent',
        ),
        (
            {"client_address": "transparent", "backend": ["unix:/run/smtp.sock"]},
            '--client-address: "transparent" has no meaning over a UNIX socket',
        ),
        ({"hostname": "mx example"}, '--hostname: "mx example" is not a host name, such as "mx.example.org"'),
        ({"hostname": ""}, '--hostname: "" is not a host name, such as "mx.example.org"'),
        ({"certificates": [("", "mx.key")]}, '--certificate: "" cannot be the path of a file'),
        ({"certificates": [("mx.pem", "")]}, '--key: "" cannot be the path of a file'),
    ],
)
def test_problems_name_options(options: dict[str, Any], problem: str) -> None:
    assert problems_of(**options) == (problem,)


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"certificates": []}, '--certificate: level "required" offers TLS'),
        ({"level": "verified"}, '--level: level "verified" needs the CA'),
        ({"listen": ["tcp:25"]}, '--level: "required" demands TLS of everybody on port 25'),
        ({"listen_tls": ["tcp:25"]}, '--listen-tls: "implicit" demands TLS of everybody on port 25'),
        ({"listen": ["tcp:2525", "tcp:2525"]}, '--listen: "tcp:2525" is given twice'),
    ],
)
def test_the_checks_across_keys_hold_here_too(options: dict[str, Any], start: str) -> None:
    """
    3207-03, among others.
    """
    (problem,) = problems_of(**options)
    assert problem.startswith(start)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"certificates": []}, "; give --certificate PEM --key PEM"),
        ({"level": "verified"}, "; that takes a configuration file (--config) with tls.client_ca"),
        ({"listen": ["tcp:25"]}, "(--config): acknowledge_rfc3207 = true on the listener"),
        ({"listen": ["ssl:25"]}, "; give tcp:PORT to --listen-tls"),
        ({"backend": ["ssl:mx:25"]}, "(--config) with backend.tls"),
        ({"listen": ["tcp:2525", "tcp:2525"]}, '"tcp:2525" is given twice'),
        ({"certificates": [("/mx.pem", "a.key"), ("/mx.pem", "b.key")]}, '"/mx.pem" is given twice'),
    ],
)
def test_what_can_be_done_can_be_done_on_a_command_line(options: dict[str, Any], remedy: str) -> None:
    """
    There is no file to write a key to.
    """
    (problem,) = problems_of(**options)
    assert problem.endswith(remedy)


def test_a_problem_of_two_listeners_is_told_once() -> None:
    assert len(problems_of(listen=["tcp:2525", "tcp:2526"], level="strict")) == 1


def test_all_problems_come_at_once() -> None:
    assert len(problems_of(listen=["x"], level="strict", client_address="?", hostname="?", backend=[])) == 5
