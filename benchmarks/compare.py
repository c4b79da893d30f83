"""
Measure tlsgate and what an operator would use instead of it, side by side, in one run.

    python benchmarks/compare.py             the whole comparison, about five minutes; writes RESULTS.md
    python benchmarks/compare.py --quick     under a minute; shows that everything works, its numbers mean little

The exit status is 1 if a gate that is installed could not be measured properly.
"""

import argparse
import contextlib
import itertools
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import attrs
import measure
import peers
import prepare
import processes
import report
import scenarios

ROUNDS = 5
MEMORY_ROUNDS = 3
IDLE_SESSIONS = 200
QUICK_IDLE_SESSIONS = 50
RESUMED_SHARE_MIN = 0.9


@attrs.define
class Comparison:
    """
    One run: it measures, and keeps what it found and what went wrong.
    """

    options: argparse.Namespace
    bench: measure.Bench
    folder: Path
    versions: dict[str, str]
    machine: dict[str, str]
    values: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)
    busy: dict[str, dict[str, float]] = attrs.field(factory=dict)
    ciphers: dict[str, str] = attrs.field(factory=dict)
    excuses: list[str] = attrs.field(factory=list)
    broken: set[str] = attrs.field(factory=set)

    def measured_peers(self) -> list[peers.Peer]:
        """
        Return the gates that are installed and have not failed.
        """
        return [peer for peer in peers.PEERS if peer.name in self.versions and peer.name not in self.broken]

    def fail(self, name: str, why: str) -> None:
        """
        Leave the gate out from now on, and say why.
        """
        self.broken.add(name)
        self.excuses.append(f"{name}: failed: {why}")
        say(self.excuses[-1])

    def keep(self, name: str, title: str, value: float) -> None:
        """
        Add one round's value.
        """
        self.values.setdefault(name, {}).setdefault(title, []).append(value)

    def start(self, stack: contextlib.ExitStack, peer: peers.Peer, purpose: str) -> measure.Gate | None:
        """
        Start a gate that runs until *stack* is left, in a folder of its own.
        """
        try:
            return stack.enter_context(self.bench.running_gate(peer, self.folder / f"{peer.name}-{purpose}"))
        except measure.MeasurementError as error:
            self.fail(peer.name, str(error))
            return None

    def run_loads(self) -> None:
        """
        Put every load on every gate, round by round; the gates take turns within a round.
        """
        with contextlib.ExitStack() as stack:
            started = [self.start(stack, peer, "loads") for peer in self.measured_peers()]
            gates = [gate for gate in started if gate]
            for round_number in range(1, self.options.rounds + 1):
                say(f"round {round_number} of {self.options.rounds}")
                for scenario in scenarios.SCENARIOS:
                    for gate in gates:
                        if gate.peer.name not in self.broken:
                            self.run_load(gate, scenario)

    def run_load(self, gate: measure.Gate, scenario: scenarios.Scenario) -> None:
        """
        Put one load on one gate and keep its numbers.
        """
        name = gate.peer.name
        seconds = scenario.quick_seconds if self.options.quick else scenario.seconds
        try:
            measurement = self.bench.measure(gate, scenario.load_options(seconds))
        except processes.SilenceError as error:
            self.fail(name, f"{scenario.says}: {error}")
            return
        faults = measurement.faults(transparent=gate.peer.transparent)
        if faults:
            self.fail(name, f"{scenario.says}: {'; '.join(faults)}")
            return
        if scenario.resumes and measurement.load["resumed"] < RESUMED_SHARE_MIN * measurement.load["sessions"]:
            self.excuse(f"{name}: {scenario.says}: it does not resume sessions; not measured")
            return
        for metric in scenarios.METRICS:
            if metric.scenario == scenario.name:
                self.keep(name, metric.title, metric.read(measurement))
        busy = self.busy.setdefault(name, {})
        busy[scenario.name] = max(busy.get(scenario.name, 0), measurement.load_core_share)
        self.ciphers.setdefault(name, f"{measurement.load['protocol']} {measurement.load['cipher']}")

    def excuse(self, text: str) -> None:
        """
        Note, once, why a number is missing.
        """
        if text not in self.excuses:
            self.excuses.append(text)

    def run_memory(self) -> None:
        """
        Let every gate, freshly started and alone, hold idle sessions.
        """
        rounds = 1 if self.options.quick else MEMORY_ROUNDS
        sessions = QUICK_IDLE_SESSIONS if self.options.quick else IDLE_SESSIONS
        holds = {"ehlo": scenarios.IDLE_AFTER_EHLO, "message": scenarios.IDLE_AFTER_MESSAGE}
        for round_number in range(1, rounds + 1):
            say(f"memory, round {round_number} of {rounds}")
            for peer, (where, title) in itertools.product(self.measured_peers(), holds.items()):
                if peer.name not in self.broken:
                    with contextlib.ExitStack() as stack:
                        gate = self.start(stack, peer, f"memory-{where}")
                        if gate:
                            self.hold(gate, where, title, sessions)

    def hold(self, gate: measure.Gate, where: str, title: str, sessions: int) -> None:
        """
        Hold idle sessions on one gate and keep what they take.
        """
        try:
            memory = self.bench.measure_memory(gate, where, sessions)
        except (measure.MeasurementError, processes.SilenceError) as error:
            self.fail(gate.peer.name, str(error))
            return
        self.keep(gate.peer.name, title, memory.session_kib)
        if where == "ehlo":
            self.keep(gate.peer.name, scenarios.BASE_MEMORY, memory.base_kib / 1024)

    def results(self, missing: list[str]) -> report.Results:
        """
        Return everything found, for the report.
        """
        idle = [scenarios.IDLE_AFTER_EHLO, scenarios.IDLE_AFTER_MESSAGE, scenarios.BASE_MEMORY]
        absent = [f"{name}: not measured: it is not installed" for name in missing]
        agreed = ", ".join(sorted(set(self.ciphers.values()))) or "nothing"
        facts = {
            **self.machine,
            "command": shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]]),
            "certificate": self.bench.certificate.kind,
            "rounds": str(self.options.rounds),
            "pinned": "the gate to one core, load generator and sink to another"
            if self.bench.cores.gate is not None
            else "nothing: there is one core only, or no taskset",
            "negotiated": agreed,
        }
        return report.Results(
            titles=[*(metric.title for metric in scenarios.METRICS), *idle],
            values={name: self.values.get(name, {}) for name in self.options.gates},
            versions={name: self.versions.get(name, "not measured") for name in self.options.gates},
            excuses=absent + self.excuses,
            busy=self.busy,
            facts=facts,
        )


def say(text: str) -> None:
    """
    Tell how far the run is, where it does not mix with the tables.
    """
    print(text, file=sys.stderr, flush=True)


def read_options() -> argparse.Namespace:
    """
    Return the command line's options.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}, quick 1")
    parser.add_argument("--certificate", choices=["ecdsa", "rsa"], default="ecdsa")
    parser.add_argument(
        "--gates", default=",".join(peers.DEFAULT_PEERS), help=f"of {', '.join(peer.name for peer in peers.PEERS)}"
    )
    parser.add_argument("--require-all", action="store_true", help="a gate that is not installed is a failure")
    parser.add_argument("--output", type=Path, help="where to write the results; a quick run writes none by default")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.gates = options.gates.split(",")
    unknown = set(options.gates) - {peer.name for peer in peers.PEERS}
    if unknown:
        parser.error(f"unknown gates: {', '.join(sorted(unknown))}")
    if options.output is None and not options.quick:
        options.output = prepare.HERE / ("RESULTS.md" if options.certificate == "ecdsa" else "RESULTS-rsa.md")
    return options


def compare(options: argparse.Namespace) -> int:
    """
    Measure, print, write; return the exit status.
    """
    machine = report.machine_facts()
    load_before = os.getloadavg()[0]
    tools = prepare.compile_tools()
    cores = prepare.find_cores()
    if cores.load is not None:
        os.sched_setaffinity(0, {cores.load})
    found = {peer.name: peer.version() for peer in peers.PEERS if peer.name in options.gates}
    missing = [name for name, version in found.items() if version is None]
    versions = {name: version for name, version in found.items() if version is not None}
    with tempfile.TemporaryDirectory(prefix="tlsgate-benchmark-") as name:
        certificate = prepare.make_certificate(Path(name), options.certificate)
        with measure.running_bench(tools, cores, certificate) as bench:
            comparison = Comparison(options, bench, Path(name), versions, machine)
            comparison.run_memory()
            comparison.run_loads()
    # The run alone makes a load of about 2; more is other work, and noise.
    machine["load average"] = f"{load_before:.1f} before the run, {os.getloadavg()[0]:.1f} after it"
    results = comparison.results(missing)
    print(report.tables(results))
    if options.output:
        options.output.write_text(report.document(results))
        say(f"written: {options.output}")
    return int(bool(comparison.broken) or (options.require_all and bool(missing)))


if __name__ == "__main__":
    # TERM ends the benchmark the way ^C does, so that nothing it started is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(compare(read_options()))
    except prepare.NotPreparedError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")
