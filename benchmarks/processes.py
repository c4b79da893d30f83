"""
Processes: those that are talked with line by line, and what a tree of them has cost.

CPU time is user plus system time. Memory is the proportional set size, in which pages shared by several processes
count for each with its share.
"""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import attrs

STOP_SECONDS_MAX = 10
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class SilenceError(Exception):
    """
    A program of the benchmark ended, or said nothing in time.
    """


@attrs.frozen
class Helper:
    """
    A program that says one line for each line it is told.
    """

    name: str
    _stdin: IO[str]
    _stdout: IO[str]

    def hear(self, seconds: float) -> str:
        """
        Return its next line.

        Raises:
            SilenceError: there is none within *seconds*.
        """
        # Nothing can wait in our buffer: the program says no second line before it is told to go on.
        ready, _, _ = select.select([self._stdout], [], [], seconds)
        line = self._stdout.readline() if ready else ""
        if not line:
            raise SilenceError(f"{self.name} said nothing for {seconds} seconds, or has ended")
        return line

    def go_on(self) -> None:
        """
        Tell it to go on.
        """
        self._stdin.write("\n")
        self._stdin.flush()

    def ask(self, seconds: float) -> dict[str, Any]:
        """
        Tell it to go on, and return the object it then says.
        """
        self.go_on()
        answer: dict[str, Any] = json.loads(self.hear(seconds))
        return answer


@contextlib.contextmanager
def running_helper(name: str, command: list[str]) -> Iterator[Helper]:
    """
    Run a program as long as the block lasts.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process.stdin as stdin, process.stdout as stdout:  # type: ignore[union-attr]  # both are pipes, as asked for
        try:
            yield Helper(name, stdin, stdout)
        finally:
            end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """
    End a process that was started here, kindly first.
    """
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tree(pid: int) -> list[int]:
    """
    Return *pid* and all processes that descend from it.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
    members = [pid]
    for member in members:
        members.extend(children.get(member, []))
    return members


def _stat_fields(pid: int) -> list[str]:
    # proc(5): the second field is in parentheses and may hold spaces; what is returned starts with the third.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """
    Return the CPU time of the tree of *pid*, its ended and waited-for children included.
    """
    total = 0.0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            ended_children_ticks = sum(int(ticks) for ticks in _stat_fields(member)[13:15])
            # The kernel's clock of a process, as clock_getcpuclockid(3) makes it: the sum of utime and stime, but in
            # nanoseconds where /proc has hundredths of a second.
            total += time.clock_gettime((~member << 3) | 2) + ended_children_ticks / TICKS_PER_SECOND
    return total


def pss_kib(pid: int) -> float:
    """
    Return the proportional set size of the tree of *pid*.
    """
    total = 0.0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += float(line.split()[1])
    return total
