"""What a process may have of the system, raised where a robot needs more than the usual."""

import resource


def allow_descriptors(most: int) -> int:
    """Let this process have that many descriptors, or as many as the system allows; returns how many it may have now.

    The usual 1024 are too few for a robot: each device, buffer and connection takes some.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return most if soft == resource.RLIM_INFINITY else soft
