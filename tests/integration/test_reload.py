"""
What changes while the gate runs: certificates under load, files that are renamed, the configuration itself.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import define, field, frozen

from tests.integration.configured import ConfiguredGate, Entry
from tests.integration.inbox import Inbox
from tests.integration.processes import free_ports, wait_until
from tests.integration.wire import Wire
from tests.support.certificates import DAY, NOW, Authority, Issued, pem

SESSIONS_PER_SECOND = 50
SWAPS = 100
LOAD_SECONDS_MAX = 90.0
NOTICED_SECONDS = 60.0
NAME = "gate.example"

CONFIG = """
hostname = "gate.example"
{listeners}
[tls]
certificates = [{{ chain = "{chain}", key = "{key}" }}]
reload_seconds = {reload_seconds}
{rest}
[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
probe_seconds = 0
"""
LISTENER = """
[[listener]]
name = "{name}"
endpoint = "tcp:{port}:interface=127.0.0.1"
level = "{level}"
"""


@frozen
class Scene:
    """
    A gate whose certificate is at *chain* and *key*, below its folder, and the authority that issues new ones.
    """

    gate: ConfiguredGate
    inbox: Inbox
    authority: Authority
    ports: dict[str, int]

    def wire(self, listener: str = "mx", mode: str = "starttls") -> Wire:
        """
        Return a client that verifies the gate's certificate.
        """
        return Wire(self.gate.route(self.ports[listener], "plain" if mode == "plain" else "starttls"))

    def serial(self) -> int:
        """
        Return the serial number of the certificate that a new client is served.
        """
        with self.wire() as wire:
            wire.greeted()
            number = served(wire)
            wire.quit()
            return number


def served(wire: Wire) -> int:
    """
    Return the serial number of the certificate that a client was served.
    """
    assert isinstance(wire._socket, ssl.SSLSocket)
    certificate = wire._socket.getpeercert()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """
    Issues what the gate serves.
    """
    return Authority.root("Gates")


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    """
    The backend.
    """
    with Inbox() as inbox:
        yield inbox


def another_port() -> int:
    """
    Return where a listener can be.
    """
    (port,) = free_ports(1)
    return port


def issue(authority: Authority, **more: object) -> Issued:
    """
    Return a new certificate for the gate: same names, another serial number.
    """
    return authority.issue(NAME, "127.0.0.1", **more)  # type: ignore[arg-type]


@pytest.fixture
def begin(authority: Authority, inbox: Inbox, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """
    A function that starts a gate, for the test to set the scene before.
    """
    running: list[ConfiguredGate] = []

    def start(
        chain: str = "mx.pem", key: str = "mx.key", reload_seconds: int = 0, rest: str = "", level: str = "required"
    ) -> Scene:
        authority_file = tmp_path / "authority.pem"
        authority_file.write_bytes(pem(authority.certificate))
        ports = {"mx": another_port()}
        config = configuration(
            ports, inbox, chain=chain, key=key, reload_seconds=reload_seconds, rest=rest, levels={"mx": level}
        )
        gate = ConfiguredGate(tmp_path, config, authority_file)
        gate.start()
        running.append(gate)
        return Scene(gate, inbox, authority, ports)

    yield start
    for gate in running:
        gate.stop()


def configuration(
    ports: dict[str, int],
    inbox: Inbox,
    *,
    chain: str = "mx.pem",
    key: str = "mx.key",
    reload_seconds: int = 0,
    rest: str = "",
    levels: dict[str, str] | None = None,
) -> str:
    """
    Return a configuration with these listeners, and their levels where that is not `required`.
    """
    listeners = "".join(
        LISTENER.format(name=name, port=port, level=(levels or {}).get(name, "required"))
        for name, port in ports.items()
    )
    return CONFIG.format(
        listeners=listeners, chain=chain, key=key, reload_seconds=reload_seconds, rest=rest, backend=inbox.port
    )


@define
class Load:
    """
    Sessions at a steady rate, each a whole mail transaction, until stopped; what went wrong, and who was seen.
    """

    scene: Scene
    serials: set[int] = field(factory=set)
    done: int = 0
    _stopped: threading.Event = field(factory=threading.Event)
    _running: list[Future[int]] = field(factory=list)

    def run(self) -> None:
        """
        Begin sessions when they are due, however long each takes.
        """
        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=SESSIONS_PER_SECOND) as pool:
            while not self._stopped.wait(max(0.0, began + len(self._running) / SESSIONS_PER_SECOND - time.monotonic())):
                if time.monotonic() - began > LOAD_SECONDS_MAX:
                    break
                self._running.append(pool.submit(self._session, len(self._running)))
        for each in self._running:
            self.serials.add(each.result())
            self.done += 1

    def await_sessions(self, count: int) -> None:
        """
        Return when *count* more have begun.
        """
        enough = len(self._running) + count
        wait_until(lambda: len(self._running) >= enough, LOAD_SECONDS_MAX, lambda: "the load has ended")

    def stop(self) -> None:
        """
        Begin no more.
        """
        self._stopped.set()

    def _session(self, number: int) -> int:
        with self.scene.wire() as wire:
            wire.greeted()
            serial = served(wire)
            wire.send(b"MAIL FROM:<alice@client.example>\r\nRCPT TO:<bob@inbox.example>\r\nDATA\r\n")
            assert wire.replies(3) == [250, 250, 354]
            wire.send(b"Subject: %d\r\n\r\n.\r\n" % number)
            assert wire.reply().code == 250
            wire.quit()
            return serial


class TestLoad:
    def test_certificates_are_swapped_a_hundred_times_and_no_session_fails(
        self, begin: Callable[..., Scene], authority: Authority, tmp_path: Path
    ) -> None:
        """
        Among them mismatched, half-written, expired, empty and missing ones; none of those is ever served, and each is
        refused with its reason in the journal.
        """
        current = issue(authority)
        current.write(tmp_path)
        scene = begin()
        accepted = {current.certificate.serial_number}
        load = Load(scene)
        with ThreadPoolExecutor(max_workers=1) as thread:
            running = thread.submit(load.run)
            try:
                for fault, reason in [*FAULTS.items()] * (SWAPS // 2 // len(FAULTS)):
                    spoil(fault, authority, tmp_path)
                    told = scene.gate.reload()
                    assert told["event"] == "reload-refused", (fault, told)
                    assert reason in " ".join(told["problems"]), (fault, told)
                    assert scene.serial() == current.certificate.serial_number
                    current = issue(authority)
                    accepted.add(current.certificate.serial_number)
                    current.write(tmp_path)
                    assert scene.gate.reload()["event"] == "reloaded"
                    assert scene.serial() == current.certificate.serial_number
                    load.await_sessions(3)
            finally:
                load.stop()
            running.result()
        assert load.serials <= accepted
        assert len(load.serials) > 10
        assert load.done > SWAPS
        # The journal agrees: every one of them delivered its message.
        scene.gate.wait_for(load.done + SWAPS, "session")
        assert len([entry for entry in scene.gate.journal("session") if entry["delivered"]]) == load.done
        assert scene.gate.journal("handshake-failed") == []


# What is done to the files, and words of the reason.
FAULTS = {
    "mismatched": "mx.key: is not the key of the certificate",
    "half-written": "mx.pem: the CERTIFICATE is cut off",
    "expired": "expired on",
    "empty": "mx.pem: is empty",
    "missing": "mx.key: cannot be read",
}


def spoil(fault: str, authority: Authority, folder: Path) -> None:
    """
    Put in place of the certificate what must not be served.
    """
    other = issue(authority, number=7)
    match fault:
        case "mismatched":
            (folder / "mx.pem").write_bytes(other.chain_pem)
        case "half-written":
            (folder / "mx.pem").write_bytes(other.chain_pem[: len(other.chain_pem) // 2])
        case "expired":
            issue(authority, not_before=NOW - 9 * DAY, not_after=NOW - DAY).write(folder)
        case "empty":
            (folder / "mx.pem").write_bytes(b"")
        case "missing":
            (folder / "mx.key").unlink()


def replace_link(link: Path, target: str) -> None:
    """
    Have *link* lead elsewhere, in one step.
    """
    new = link.with_name(link.name + ".new")
    new.symlink_to(target)
    new.replace(link)


def serves(scene: Scene, expected: Issued) -> None:
    """
    Wait until a new client is served that certificate.
    """
    wait_until(
        lambda: scene.serial() == expected.certificate.serial_number,
        NOTICED_SECONDS,
        lambda: f"not served:\n{scene.gate.journal('certificates-reloaded', 'certificates-refused')}",
    )


class TestFiles:
    """
    Nobody sends a signal: the files are looked at once a second.
    """

    def test_certbot_renames_are_noticed(
        self, begin: Callable[..., Scene], authority: Authority, tmp_path: Path
    ) -> None:
        """
        live/ has links into archive/, and each is replaced by itself. Between the two, chain and key do not fit.
        """
        archive, live = tmp_path / "archive", tmp_path / "live"
        archive.mkdir()
        live.mkdir()

        def renew(number: int, issued: Issued) -> None:
            (archive / f"fullchain{number}.pem").write_bytes(issued.chain_pem)
            (archive / f"privkey{number}.pem").write_bytes(issued.key_pem)
            for stem in ("fullchain", "privkey"):
                replace_link(live / f"{stem}.pem", f"../archive/{stem}{number}.pem")

        first, second, third = (issue(authority, number=number) for number in (1, 2, 3))
        renew(1, first)
        scene = begin("live/fullchain.pem", "live/privkey.pem", reload_seconds=1)
        assert scene.serial() == first.certificate.serial_number
        with scene.wire() as established:
            established.greeted()
            renew(2, second)
            serves(scene, second)
            renew(3, third)
            serves(scene, third)
            # It goes on, undisturbed, under what it was begun with.
            assert served(established) == first.certificate.serial_number
            assert established.command("NOOP").code == 250
            established.quit()

    def test_a_kubernetes_secret_is_noticed(
        self, begin: Callable[..., Scene], authority: Authority, tmp_path: Path
    ) -> None:
        """
        The files are links into ..data, which is a link itself and swapped as one.
        """
        secret = tmp_path / "secret"
        secret.mkdir()

        def renew(number: int, issued: Issued) -> None:
            folder = secret / f"..2026_{number}"
            folder.mkdir()
            (folder / "tls.crt").write_bytes(issued.chain_pem)
            (folder / "tls.key").write_bytes(issued.key_pem)
            replace_link(secret / "..data", folder.name)

        first, second = issue(authority, number=1), issue(authority, number=2)
        renew(1, first)
        for name in ("tls.crt", "tls.key"):
            (secret / name).symlink_to(f"..data/{name}")
        scene = begin("secret/tls.crt", "secret/tls.key", reload_seconds=1)
        assert scene.serial() == first.certificate.serial_number
        renew(2, second)
        serves(scene, second)
        # Both files changed in one step: there was nothing to refuse.
        assert scene.gate.journal("certificates-refused") == []
        assert len(scene.gate.journal("certificates-reloaded")) == 1

    def test_a_bad_file_is_refused_once_and_a_good_one_taken(
        self, begin: Callable[..., Scene], authority: Authority, tmp_path: Path
    ) -> None:
        """
        The journal is not filled with the same fault every second.
        """
        first = issue(authority)
        first.write(tmp_path)
        scene = begin(reload_seconds=1)
        spoil("half-written", authority, tmp_path)
        refused = scene.gate.wait_for(1, "certificates-refused")
        assert "mx.pem" in " ".join(refused[0]["problems"])
        assert scene.serial() == first.certificate.serial_number
        second = issue(authority)
        second.write(tmp_path)
        serves(scene, second)
        # Between the writes of chain and key a look may fall.
        assert len(scene.gate.journal("certificates-refused")) <= 2


class TestConfiguration:
    """
    HUP: new sessions are under the new configuration, established ones under theirs.
    """

    def test_a_level_a_rule_and_listeners_change(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path
    ) -> None:
        """
        A new level, a changed rule, a listener more and one less.
        """
        issue(authority).write(tmp_path)
        rule = '[[rule]]\nrecipients = ["{}"]\nlevel = "strong"\n'
        scene = begin(level="offered", rest=rule.format("clinic.example"))
        gate = scene.gate
        with scene.wire(mode="plain") as established:
            established.greeted()
            assert established.command("MAIL FROM:<alice@client.example>").code == 250
            assert established.command("RCPT TO:<dr@clinic.example>").code == 530

            ports = {**scene.ports, "partners": another_port()}
            level = '[[level]]\nname = "partner"\nmin_version = "TLSv1.3"\nhelp = "https://example.org/tls"\n'
            levels = {"mx": "offered", "partners": "partner"}
            changed = configuration(ports, inbox, rest=level + rule.format("bank.example"), levels=levels)
            assert gate.reload(changed)["event"] == "reloaded"

            # Under the law it was begun with.
            assert established.command("RCPT TO:<teller@bank.example>").code == 250
            assert established.command("RCPT TO:<dr@clinic.example>").code == 530
            established.quit()

        with scene.wire(mode="plain") as wire:
            wire.greeted()
            assert wire.command("MAIL FROM:<alice@client.example>").code == 250
            assert wire.command("RCPT TO:<dr@clinic.example>").code == 250
            assert wire.command("RCPT TO:<teller@bank.example>").code == 530
        context = ssl.create_default_context(cafile=gate.authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with Wire(gate.route(ports["partners"], "starttls"), context) as wire:
            wire.reply()
            wire.command("EHLO client.example")
            assert wire.command("STARTTLS").code == 220
            wire.handshake()
            refusal = wire.command("EHLO client.example")
            assert refusal.code == 554
            assert "demands TLSv1.3 or later" in refusal.lines[0]
            assert "https://example.org/tls" in refusal.lines[0]

        assert gate.reload(configuration({"partners": ports["partners"]}, inbox, rest=level))["event"] == "reloaded"
        wait_until(lambda: not listens(scene.ports["mx"]), NOTICED_SECONDS, lambda: "mx still listens")
        assert listens(ports["partners"])

    def test_a_broken_configuration_changes_nothing(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path
    ) -> None:
        """
        All its faults are told, each with its key, and the old one stays in force: law, listeners and certificates.
        """
        first = issue(authority)
        first.write(tmp_path)
        scene = begin()
        good = scene.gate.config
        bad = configuration(
            {**scene.ports, "more": another_port()}, inbox, rest="resumptoin = true", levels={"mx": "strnog"}
        )
        for config in (bad, "[[listener", "", good.replace("mx.key", "nowhere.key")):
            told = scene.gate.reload(config)
            assert told["event"] == "reload-refused", config
            assert told["problems"], config
        assert self._problems(scene.gate.journal("reload-refused")[0]) == {"listener[0].level", "tls.resumptoin"}
        assert scene.serial() == first.certificate.serial_number
        with scene.wire(mode="plain") as wire:
            wire.greeted()
            assert wire.command("MAIL FROM:<alice@client.example>").code == 530
        assert scene.gate.reload(good)["event"] == "reloaded"
        assert scene.serial() == first.certificate.serial_number

    def test_files_are_watched_on_behind_a_broken_configuration(
        self, begin: Callable[..., Scene], authority: Authority, tmp_path: Path
    ) -> None:
        """
        What HUP refused is no reason to let a certificate expire.
        """
        issue(authority).write(tmp_path)
        scene = begin(reload_seconds=1)
        assert scene.gate.reload("[[listener")["event"] == "reload-refused"
        for _ in range(2):
            renewed = issue(authority)
            renewed.write(tmp_path)
            serves(scene, renewed)

    @staticmethod
    def _problems(told: Entry) -> set[str]:
        return {problem.partition(":")[0] for problem in told["problems"]}

    def test_established_sessions_outlive_their_listener(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path
    ) -> None:
        """
        A message begun before HUP is delivered after it, though its port is closed and the certificate another.
        """
        issue(authority).write(tmp_path)
        scene = begin()
        with scene.wire() as wire:
            wire.greeted()
            wire.send(b"MAIL FROM:<alice@client.example>\r\nRCPT TO:<bob@inbox.example>\r\nDATA\r\n")
            assert wire.replies(3) == [250, 250, 354]
            wire.send(b"Subject: half\r\n\r\nbefore ")
            issue(authority, number=2).write(tmp_path)
            other = {"other": another_port()}
            assert scene.gate.reload(configuration(other, inbox))["event"] == "reloaded"
            wait_until(lambda: not listens(scene.ports["mx"]), NOTICED_SECONDS, lambda: "mx still listens")
            wire.send(b"and after\r\n.\r\n")
            assert wire.reply().code == 250
            wire.quit()
        inbox.session_with(b"Subject: half\r\n\r\nbefore and after")

    @pytest.mark.parametrize("change", ["name", "tls", "interface"])
    def test_a_listener_may_change_all_but_its_port(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path, change: str
    ) -> None:
        """
        Another name, TLS from the first octet on, all interfaces for one: what listened there before makes room.
        """
        issue(authority).write(tmp_path)
        scene = begin()
        port = scene.ports["mx"]
        config = configuration({"relay": port} if change == "name" else scene.ports, inbox)
        if change == "tls":
            config = config.replace("[[listener]]", '[[listener]]\ntls = "implicit"')
        elif change == "interface":
            config = config.replace(f'"tcp:{port}:interface=127.0.0.1"', f'"tcp:{port}:interface=0.0.0.0"')
        assert scene.gate.reload(config)["event"] == "reloaded"
        assert scene.gate.journal("listening-failed") == []
        wait_until(lambda: listens(port), NOTICED_SECONDS, lambda: "nobody listens")
        with Wire(scene.gate.route(port, "implicit" if change == "tls" else "starttls")) as wire:
            wire.greeted()
            wire.quit()
        verdict = scene.gate.wait_for(1, "verdict")[-1]
        assert verdict["listener"] == ("relay" if change == "name" else "mx")

    def test_files_are_watched_from_the_reload_on_that_asks_for_it(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path
    ) -> None:
        """
        `reload_seconds` is a key like others.
        """
        issue(authority).write(tmp_path)
        scene = begin(reload_seconds=0)
        assert scene.gate.reload(configuration(scene.ports, inbox, reload_seconds=1))["event"] == "reloaded"
        second = issue(authority)
        second.write(tmp_path)
        serves(scene, second)

    def test_a_refused_configuration_moves_no_limit(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path
    ) -> None:
        """
        It is refused as a whole.
        """
        issue(authority).write(tmp_path)
        scene = begin()
        bad = configuration(scene.ports, inbox, key="nowhere.key") + "[limits]\nsessions_per_client = 1\n"
        assert scene.gate.reload(bad)["event"] == "reload-refused"
        with scene.wire(mode="plain") as first, scene.wire(mode="plain") as second:
            assert [first.reply().code, second.reply().code] == [220, 220]

    def test_term_waits_for_a_message_that_came_by_a_listener_of_the_past(
        self, begin: Callable[..., Scene], authority: Authority, inbox: Inbox, tmp_path: Path
    ) -> None:
        """
        5321-05: draining is for every session there is.
        """
        issue(authority).write(tmp_path)
        scene = begin()
        with scene.wire() as wire:
            wire.greeted()
            wire.send(b"MAIL FROM:<alice@client.example>\r\nRCPT TO:<bob@inbox.example>\r\nDATA\r\n")
            assert wire.replies(3) == [250, 250, 354]
            assert scene.gate.reload(configuration({"other": another_port()}, inbox))["event"] == "reloaded"
            wait_until(lambda: not listens(scene.ports["mx"]), NOTICED_SECONDS, lambda: "mx still listens")
            scene.gate.terminate()
            other = scene.gate.journal("listening")[-1]["endpoint"].split(":")[1]
            wait_until(lambda: not listens(int(other)), NOTICED_SECONDS, lambda: "it does not stop")
            wire.send(b"Subject: late\r\n\r\nbut whole\r\n.\r\n")
            assert wire.reply().code == 250
        inbox.session_with(b"Subject: late\r\n\r\nbut whole")


def listens(port: int) -> bool:
    """
    Whether somebody accepts connections there.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
