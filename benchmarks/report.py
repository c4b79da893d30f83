"""
Turn measured numbers into the tables that are printed and kept in RESULTS.md.
"""

import datetime as dt
import platform
import shutil
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

# gate -> metric -> one value per round
Values = Mapping[str, Mapping[str, Sequence[float]]]

NOISE = """\
Everything runs on one machine over loopback: read ratios, not absolute figures. Each cell is the median of the rounds
and, in brackets, the least and the greatest of them; where brackets overlap, the gates are equal as far as this run can
tell. Rounds are interleaved between the gates, and a ratio is the median of the ratios within each round."""


@attrs.frozen
class Results:
    """
    All that one run found out.

    Args:
        titles: of the rows, in order.
        values: what was measured.
        versions: of every gate that was asked for.
        excuses: why a gate, or one number of it, is missing or doubtful.
        busy: how busy the load generator's core was at most, for every scenario and gate.
        facts: about the run and the machine.
    """

    titles: Sequence[str]
    values: Values
    versions: Mapping[str, str]
    excuses: Sequence[str]
    busy: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, str]


def number(value: float) -> str:
    """
    Return *value* with three significant digits, and never as a power of ten.
    """
    # The bounds are where rounding would add a digit.
    for least, digits in ((99.95, 0), (9.995, 1), (0.0995, 2)):
        if value >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"


def cell(values: Sequence[float]) -> str:
    """
    Return median and range.
    """
    if not values:
        return "-"
    median = number(statistics.median(values))
    return median if len(values) == 1 else f"{median} [{number(min(values))}..{number(max(values))}]"


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """
    Return the median of the ratios of the rounds, or a dash where one of the two is missing.
    """
    pairs = [value / against for value, against in zip(values, base, strict=False) if against > 0]
    return number(statistics.median(pairs)) if pairs else "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    Return a Markdown table, padded so that it also reads well where it is printed.
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def measured_table(results: Results) -> str:
    """
    Return what was measured, a row for each number and a column for each gate.
    """
    gates = list(results.values)
    rows = [[title, *(cell(results.values[gate].get(title, ())) for gate in gates)] for title in results.titles]
    return table(["", *gates], rows)


def ratio_table(results: Results, base: str) -> str:
    """
    Return the same as multiples of what the gate *base* has.
    """
    gates = [gate for gate in results.values if gate != base]
    base_values = results.values[base]
    rows = [
        [title, *(ratio(results.values[gate].get(title, ()), base_values.get(title, ())) for gate in gates)]
        for title in results.titles
    ]
    return table([f"multiples of {base}", *gates], rows)


def busy_table(results: Results) -> str:
    """
    Return how busy the load generator's core was: where that is near 100 %, a gate may be faster than its number.
    """
    scenarios = sorted({scenario for busy in results.busy.values() for scenario in busy})
    rows = [
        [gate, *(f"{busy[scenario]:.0%}" if scenario in busy else "-" for scenario in scenarios)]
        for gate, busy in results.busy.items()
    ]
    return table(["load generator and sink", *scenarios], rows)


def tables(results: Results) -> str:
    """
    Return all tables and the excuses, as they are printed.
    """
    parts = [measured_table(results)]
    if len(results.values) > 1:
        parts += [ratio_table(results, base) for base in ("nginx", "tlsgate") if results.values.get(base)]
    parts.append(busy_table(results))
    if results.excuses:
        parts.append("\n".join(f"- {excuse}" for excuse in results.excuses))
    return "\n\n".join(parts)


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine_facts() -> dict[str, str]:
    """
    Return what ran where and when.
    """
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = f"{names[0].partition(':')[2].strip()}, {len(names)} cores" if names else platform.processor()
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": f"{platform.system()} {platform.release()}",
        "CPU": model,
        "Python": platform.python_version(),
        "commit": _commit(),
    }


def document(results: Results) -> str:
    """
    Return RESULTS.md.
    """
    facts = "\n".join(f"- {name}: {value}" for name, value in results.facts.items())
    versions = "\n".join(f"- {gate}: {version}" for gate, version in results.versions.items())
    return (
        "# Benchmark results\n\nWritten by `benchmarks/compare.py`; what each number means stands in "
        f"[README.md](README.md).\n\n{NOISE}\n\n{facts}\n\nGates:\n\n{versions}\n\n{tables(results)}\n"
    )
