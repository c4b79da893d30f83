"""
The example configurations in conf/ are configurations, and say what their names promise.
"""

import re
import subprocess
import textwrap
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.integration.processes import need
from tlsgate.config import Config, load
from tlsgate.operator.guard import guarded
from tlsgate.policy.facts import Circumstances, TlsFacts
from tlsgate.policy.rules import Outcome
from tlsgate.translation import rulebook

CONF = Path(__file__).parents[1] / "conf"
EXAMPLES = sorted(path.name for path in CONF.glob("*.toml"))

NOW = datetime(2026, 12, 1, tzinfo=UTC)
STRANGER = ip_address("203.0.113.5")
OLD = TlsFacts("TLSv1.2", "AES128-SHA", 128)
GOOD = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, "x25519")


def example(name: str) -> Config:
    return load(CONF / name)


def commented(name: str) -> str:
    """
    Return the comments of an example as text: what must be set on the other side stands there.
    """
    lines = (CONF / name).read_text("utf-8").splitlines()
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines if line.startswith("#"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_a_configuration_without_a_warning(name: str) -> None:
    config = example(name)
    assert config.warnings == ()
    rulebook(config)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_says_what_the_other_side_must_do(name: str) -> None:
    text = (CONF / name).read_text("utf-8")
    assert text.startswith("# ")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 120


def test_the_list_of_examples_is_complete() -> None:
    listed = set(re.findall(r"\]\(([a-z0-9.-]+)\)", (CONF / "README.md").read_text("utf-8")))
    assert listed == {path.name for path in CONF.iterdir()} - {"README.md"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_example_accepts_an_open_relay(name: str) -> None:
    """
    Either the backend is told who the client is, or it is asked whether it relays.
    """
    assert all(guarded(group) or group.client_address != "none" for group in example(name).backends)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in {"submission.toml", "smarthost.toml"}])
def test_whoever_comes_to_port_25_is_served(name: str) -> None:
    """
    3207-03: a server that MX records name demands TLS of nobody unknown.
    """
    law = rulebook(example(name))
    for tls in (None, OLD):
        stranger = Circumstances("mx", STRANGER, NOW, sender="a@stranger.example", recipient="user@example.org")
        for verdict in (law.session(stranger, tls), law.sender(stranger, tls), law.recipient(stranger, tls)):
            assert verdict.outcome in {Outcome.PASS, Outcome.WOULD_REFUSE}


def test_the_public_mx_demands_of_some_what_it_promises() -> None:
    law = rulebook(example("public-mx.toml"))
    partner = Circumstances("mx", STRANGER, NOW, sender="a@mail.partner.example")
    assert law.sender(partner, GOOD).outcome is Outcome.REFUSE
    clinic = Circumstances("mx", STRANGER, NOW, sender="a@stranger.example", recipient="b@clinic.example.org")
    assert law.recipient(clinic, OLD).outcome is Outcome.REFUSE
    assert law.recipient(clinic, GOOD).outcome is Outcome.PASS
    anybody = Circumstances("mx", STRANGER, NOW, sender="a@stranger.example", recipient="b@example.org")
    assert law.recipient(anybody, OLD).outcome is Outcome.WOULD_REFUSE


def test_users_submit_over_strong_tls_alone() -> None:
    """
    3207-21, 8314-01: by STARTTLS on the submission port, and by implicit TLS on its own.
    """
    config = example("submission.toml")
    law = rulebook(config)
    for listener in config.listeners:
        circumstances = Circumstances(listener.name, STRANGER, NOW)
        assert law.session(circumstances, GOOD).outcome is Outcome.PASS
        assert law.session(circumstances, OLD).outcome is Outcome.REFUSE
        assert law.session(circumstances, None).verdict.must_start_tls
    assert {listener.tls for listener in config.listeners} == {"starttls", "implicit"}


def test_the_smarthost_is_reached_by_verified_tls_alone() -> None:
    backend = example("smarthost.toml").backend
    assert (backend.tls, backend.tls_level, backend.tls_name) == ("starttls", "strong", "smtp.provider.example")


def test_kubernetes_carries_the_same_configuration() -> None:
    manifest = (CONF / "kubernetes.yaml").read_text("utf-8")
    block = manifest[
        manifest.index("tlsgate.toml: |\n") + len("tlsgate.toml: |\n") : manifest.index("---\napiVersion: apps/v1")
    ]
    assert textwrap.dedent(block) == (CONF / "kubernetes.toml").read_text("utf-8")
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)
    assert grace is not None
    assert int(grace[1]) > example("kubernetes.toml").limits.drain_timeout_seconds


def test_haproxy_takes_its_configuration_and_sends_to_our_listeners() -> None:
    done = subprocess.run(
        [need("haproxy"), "-c", "-f", str(CONF / "haproxy.cfg")],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    told = (CONF / "haproxy.cfg").read_text("utf-8")
    ports = set(re.findall(r"server gate\d 10\.0\.1\.\d+:(\d+) send-proxy-v2 check check-send-proxy", told))
    listeners = example("behind-haproxy.toml").listeners
    assert {f"tcp:{port}" for port in ports} == {listener.endpoint for listener in listeners}
    assert all(listener.proxy_protocol_from for listener in listeners)


def test_opensmtpd_takes_the_line_for_it(tmp_path: Path) -> None:
    line = re.search(r"^ *(listen on .* proxy-v2)$", commented("opensmtpd.toml"), re.MULTILINE)
    assert line is not None
    root = need(Path("opensmtpd"))
    file = tmp_path / "smtpd.conf"
    file.write_text(f'{line[1]}\naction "out" relay\nmatch from any for domain "example.org" action "out"\n')
    done = subprocess.run(
        [f"{root}/usr/sbin/smtpd", "-n", "-f", str(file)], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    file.write_text(file.read_text().replace("proxy-v2", "proxy-v9"))
    done = subprocess.run(
        [f"{root}/usr/sbin/smtpd", "-n", "-f", str(file)], check=False, capture_output=True, timeout=30
    )
    assert done.returncode != 0


@pytest.mark.parametrize("name", ["postfix-xclient.toml", "postfix-proxy.toml", "submission.toml"])
def test_postfix_knows_the_parameters_for_it(name: str, tmp_path: Path) -> None:
    parameters = set(re.findall(r"-o (\w+)=", commented(name))) - {"syslog_name"}
    assert parameters
    root = need(Path("postfix"))
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("")
    done = subprocess.run(
        [f"{root}/usr/sbin/postconf", "-c", str(tmp_path), "-d", *parameters],
        check=False, capture_output=True, text=True, timeout=30, env={"LD_LIBRARY_PATH": f"{root}/usr/lib/postfix"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {line.partition(" = ")[0].removesuffix(" =") for line in done.stdout.splitlines()} == parameters, done.stderr
