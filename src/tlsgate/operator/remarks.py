"""
What `tlsgate check` has to say: one remark about each thing it has looked at.
"""

from enum import Enum

from attrs import frozen


class Severity(Enum):
    """
    What a remark means to the operator.
    """

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@frozen
class Remark:
    """
    One thing that was looked at: the key path it is about (empty: none), and what was found.
    """

    severity: Severity
    at: str
    text: str

    def __str__(self) -> str:
        return f"{self.at}: {self.text}" if self.at else self.text


def ok(at: str, text: str) -> Remark:
    """
    Return a remark that all is well.
    """
    return Remark(Severity.OK, at, text)


def warning(at: str, text: str) -> Remark:
    """
    Return a remark on what works, and may not be what is wanted.
    """
    return Remark(Severity.WARNING, at, text)


def fault(at: str, text: str) -> Remark:
    """
    Return a remark on what does not work, or does harm.
    """
    return Remark(Severity.FAULT, at, text)
