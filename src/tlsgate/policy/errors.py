"""
How the law says that it was given something it cannot use.
"""

from collections.abc import Mapping


class PolicyError(ValueError):
    """
    A level, a ramp or a rule cannot be used. *problems* holds every fault found: key -> what is wrong with it.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in problems.items()))
        self.problems = dict(problems)
