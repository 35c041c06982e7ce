"""What the system allows a process, raised as far as it may be."""

import resource

from utils.errors import InputError

_FILES_OF_A_RUN, _FILES_OF_A_WORKER = 128, 32  # a worker's batches under way hold a file for each of their tensors


def allow_open_files(num_workers: int) -> None:
    """Let this process open what a loader with so many workers needs; torch would wait without end for what it lacks.

    Raises InputError where the system's hard limit is below that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_OF_A_RUN + _FILES_OF_A_WORKER * num_workers
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InputError(
            f"this system allows {hard} open files, a loader with num_workers {num_workers} needs {needed}: raise the "
            "limit (ulimit -n 65536), or use a smaller num_workers"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
