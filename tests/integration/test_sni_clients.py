"""
Real clients see the chain they can verify: of the name they ask for, and of a key they know what to do with.

Each name has an RSA chain and an ECDSA chain, and each of those a root of its own. A client believes one root only, so
that whatever it accepts is the chain it was meant to see.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.integration.configured import ConfiguredGate, configured
from tests.integration.inbox import Inbox
from tests.integration.openssl import CLIENT_SECONDS
from tests.integration.processes import free_ports, need
from tests.support.certificates import Authority, Issued, pem

CONFIG = """
hostname = "mx.first.example"

[[listener]]
name = "mx"
endpoint = "tcp:{mx}:interface=127.0.0.1"
level = "required"

[tls]
certificates = [
{certificates}
]

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
probe_seconds = 0
"""
CERTIFICATE = '    {{ chain = "{stem}.pem", key = "{stem}.key", ocsp = "{stem}.der" }},'

FIRST, SECOND, WILDCARD = "mx.first.example", "mx.second.example", "*.third.example"
UNDER_WILDCARD = "tenant.third.example"
NAMES = (FIRST, SECOND, UNDER_WILDCARD)
KINDS = ("RSA", "ECDSA")
# The one suite of TLS 1.2 that a client without the other kind of key would offer.
SUITES = {"RSA": "ECDHE-RSA-AES128-GCM-SHA256", "ECDSA": "ECDHE-ECDSA-AES128-GCM-SHA256"}


@frozen
class Hosting:
    """
    A gate of three names, and the roots: kind of key -> PEM file.
    """

    gate: ConfiguredGate
    port: int
    roots: Mapping[str, Path]
    issued: Mapping[tuple[str, str], Issued]
    folder: Path


@pytest.fixture(scope="module")
def hosting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    """
    The gate, its certificates with their OCSP responses, and a backend.
    """
    folder = tmp_path_factory.mktemp("hosting")
    roots = {"RSA": Authority.root("RSA root", "rsa", 110), "ECDSA": Authority.root("ECDSA root", "ec", 111)}
    issued: dict[tuple[str, str], Issued] = {}
    stems = []
    for name in (FIRST, SECOND, WILDCARD):
        for kind, root in roots.items():
            between = root.subordinate(f"{kind} intermediate", kind="rsa" if kind == "RSA" else "ec", number=112)
            leaf = between.issue(name, kind="rsa" if kind == "RSA" else "ec", number=len(issued))
            issued[name.replace("*", "tenant"), kind] = leaf
            stems.append(f"{len(issued)}-{kind}")
            leaf.write(folder, stems[-1])
            (folder / f"{stems[-1]}.der").write_bytes(between.ocsp(leaf.certificate))
    files = {}
    for kind, root in roots.items():
        files[kind] = folder / f"{kind}-root.pem"
        files[kind].write_bytes(pem(root.certificate))
    (port,) = free_ports(1)
    certificates = "\n".join(CERTIFICATE.format(stem=stem) for stem in stems)
    with Inbox() as inbox:
        config = CONFIG.format(mx=port, certificates=certificates, backend=inbox.port)
        with configured(folder, config) as gate:
            yield Hosting(gate, port, files, issued, folder)


def run(argv: list[str], environment: Mapping[str, str] | None = None, said: bytes = b"") -> tuple[int, str]:
    """
    Return how a client ended, and what it said.
    """
    done = subprocess.run(
        argv,
        input=said,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=CLIENT_SECONDS,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout.decode(errors="replace")


# Clients: the gate, the name to ask for, the kind of key that is known (`None`: every), the kind of root believed.
# Each returns whether it accepted the gate, and what it said.
Client = Callable[[Hosting, str, str | None, str], tuple[bool, str]]


def openssl(hosting: Hosting, name: str, kind: str | None, root: str) -> tuple[bool, str]:
    argv = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{hosting.port}", "-starttls", "smtp", "-brief"]
    argv += ["-servername", name, "-verify_hostname", name, "-verify_return_error"]
    argv += ["-CAfile", str(hosting.roots[root])]
    # In TLS 1.3 there are no suites to tell by; what signatures a client knows, it says in both.
    algorithms = {"RSA": "RSA-PSS+SHA256:RSA+SHA256", "ECDSA": "ECDSA+SHA256:ECDSA+SHA384"}
    argv += [] if kind is None else ["-sigalgs", algorithms[kind]]
    status, said = run(argv, said=b"QUIT\r\n")
    return status == 0 and "Verification: OK" in said, said


def postfix(hosting: Hosting, name: str, kind: str | None, root: str) -> tuple[bool, str]:
    installed = Path(need(Path("postfix")))
    libraries = installed / "usr/lib/postfix"
    etc = hosting.folder / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "main.cf").write_text(f"myhostname = client.example\nqueue_directory = {hosting.folder}\n")
    argv = [
        str(installed / "usr/sbin/posttls-finger"),
        "-c",
        "-l",
        "verify",
        "-s",
        name,
        "-F",
        str(hosting.roots[root]),
    ]
    argv += ["-L", "summary,untrusted"]
    if kind is not None:
        argv += ["-p", "!TLSv1.3", "-g", "medium", "-o", f"tls_medium_cipherlist={SUITES[kind]}"]
    argv += [f"[127.0.0.1]:{hosting.port}", name]
    _, said = run(argv, {"LD_LIBRARY_PATH": str(libraries), "MAIL_CONFIG": str(etc), "PATH": "/usr/bin:/bin"})
    return "Verified TLS connection established" in said, said


def swaks(hosting: Hosting, name: str, kind: str | None, root: str) -> tuple[bool, str]:
    argv = [need("swaks"), "--server", "127.0.0.1", "--port", str(hosting.port), "--helo", "client.example"]
    argv += ["--tls", "--tls-sni", name, "--tls-verify", "--tls-ca-path", str(hosting.roots[root])]
    argv += [] if kind is None else ["--tls-protocol", "tlsv1_2", "--tls-cipher", SUITES[kind]]
    status, said = run([*argv, "--quit-after", "TLS"])
    # It does not compare names itself.
    shown = name if name != UNDER_WILDCARD else WILDCARD
    return status == 0 and f"/CN={shown}" in said, said


def curl(hosting: Hosting, name: str, kind: str | None, root: str) -> tuple[bool, str]:
    argv = [need("curl"), "-sS", "-v", "--ssl-reqd", "--resolve", f"{name}:{hosting.port}:127.0.0.1"]
    argv += ["--cacert", str(hosting.roots[root]), "--url", f"smtp://{name}:{hosting.port}/client.example"]
    argv += [] if kind is None else ["--tls-max", "1.2", "--ciphers", SUITES[kind]]
    status, said = run(argv)
    return status == 0, said


def node(hosting: Hosting, name: str, kind: str | None, root: str) -> tuple[bool, str]:
    script = Path(__file__).with_name("starttls.cjs")
    argv = [need("node"), str(script), str(hosting.port), name, str(hosting.roots[root])]
    status, said = run([*argv, *([] if kind is None else [SUITES[kind]])])
    met = json.loads(said)
    return status == 0 and met["issuer"] == f"{root} intermediate", said


CLIENTS: dict[str, Client] = {
    "openssl": openssl,
    "postfix": postfix,
    "swaks": swaks,
    "curl": curl,
    "node": node,
}
every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_name = pytest.mark.parametrize("name", NAMES)


@every_client
@every_kind
@every_name
def test_a_client_sees_the_chain_it_can_verify(hosting: Hosting, client: Client, kind: str, name: str) -> None:
    """
    9325-3.7: the name's own certificate, by its exact name or by wildcard, with the key the client knows.
    """
    before = len(hosting.gate.journal("verdict"))
    accepted, said = client(hosting, name, kind, kind)
    assert accepted, said
    verdict = hosting.gate.wait_for(before + 1, "verdict")[before]
    assert (verdict["sni"], verdict["outcome"]) == (name, "pass")


@every_client
@every_kind
def test_a_client_that_believes_the_other_root_only_does_not_accept(
    hosting: Hosting, client: Client, kind: str
) -> None:
    """
    So that acceptance above means something.
    """
    other = next(one for one in KINDS if one != kind)
    accepted, said = client(hosting, FIRST, kind, other)
    assert not accepted, said


@every_client
def test_a_client_that_knows_both_is_shown_ecdsa(hosting: Hosting, client: Client) -> None:
    """
    The cheaper handshake for who can have it.
    """
    accepted, said = client(hosting, SECOND, None, "ECDSA")
    assert accepted, said


def test_without_a_name_and_with_an_unknown_one_the_first_certificate_answers(hosting: Hosting) -> None:
    """
    RFC 3207 names no SNI: most senders ask for none.
    """
    for asked in (["-noservername"], ["-servername", "mx.unheard-of.example"]):
        argv = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{hosting.port}", "-starttls", "smtp", *asked]
        _, said = run(argv, said=b"QUIT\r\n")
        assert f"subject=CN = {FIRST}" in said, said


@every_kind
@every_name
def test_the_staple_is_that_of_the_chain_served(hosting: Hosting, kind: str, name: str) -> None:
    """
    9325: OCSP stapling, each certificate with its own response.
    """
    argv = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{hosting.port}", "-starttls", "smtp", "-status"]
    argv += ["-servername", name, "-tls1_2", "-cipher", SUITES[kind], "-CAfile", str(hosting.roots[kind])]
    _, said = run(argv, said=b"QUIT\r\n")
    assert "OCSP Response Status: successful (0x0)" in said, said
    assert "Cert Status: good" in said
    serial = f"{hosting.issued[name, kind].certificate.serial_number:X}"
    assert f"Serial Number: {serial.rjust(len(serial) + len(serial) % 2, '0')}" in said


def test_a_chain_is_sent_whole_and_without_its_root(hosting: Hosting) -> None:
    """
    8446-4.4.2: the client has the root already.
    """
    argv = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{hosting.port}", "-starttls", "smtp", "-showcerts"]
    _, said = run([*argv, "-servername", FIRST], said=b"QUIT\r\n")
    blocks = [block + "-----END CERTIFICATE-----\n" for block in said.split("-----END CERTIFICATE-----\n")[:-1]]
    shown = [x509.load_pem_x509_certificate(b[b.index("-----BEGIN") :].encode()) for b in blocks]
    leaf = hosting.issued[FIRST, "ECDSA"]
    assert [each.public_bytes(Encoding.DER) for each in shown] == [
        each.public_bytes(Encoding.DER) for each in (leaf.certificate, *leaf.between)
    ]
