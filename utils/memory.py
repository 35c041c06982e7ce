"""How much memory a process has had."""

import resource
import sys


def peak_bytes() -> int:
    """The most resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
