"""
File descriptors: each session needs two, one to either side, and a process usually begins with leave for 1024.
"""

import resource

SPARE = 128  # listeners, probes, files


def make_room(sessions: int) -> tuple[str, ...]:
    """
    Take leave for as many files as that many sessions need; return what to warn of if there is no such leave.
    """
    wanted = 2 * sessions + SPARE
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = most == resource.RLIM_INFINITY or most >= wanted
    if least != resource.RLIM_INFINITY and least < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if enough else most, most))
    if enough or most >= 2 * sessions:
        return ()
    return (
        f"limits.sessions: {sessions} sessions need {wanted} open files, and the process may have {most}; raise that "
        f"(ulimit -n, LimitNOFILE=) or ask for fewer",
    )
