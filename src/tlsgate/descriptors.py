"""
File descriptors: a session needs two, one to either side, and a process is usually allowed 1024 until it asks for more.
"""

import resource

SPARE = 384  # listeners, probes, files, and as many lookups in the DNS as may run at once (net/client_name.py)


def make_room(sessions: int) -> tuple[str, ...]:
    """
    Ask for as many descriptors as that many sessions need; return what to warn of if they cannot be had.
    """
    wanted = 2 * sessions + SPARE
    allowed, allowed_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    bounded = allowed_max != resource.RLIM_INFINITY
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        allowed = min(wanted, allowed_max) if bounded else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed_max))
    if not bounded or allowed_max >= 2 * sessions:
        return ()
    few = f"{sessions} sessions need {2 * sessions} file descriptors, and the process may have {allowed_max}"
    return (f"limits.sessions: {few}; allow it more (LimitNOFILE=, ulimit -n), or ask for fewer sessions",)
