"""Reading without the reader's warnings, in any number of threads."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_counting, _filters, _readers = threading.Lock(), ExitStack(), 0


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings meanwhile. Python keeps one list of them for all threads: first in, last out changes it back."""
    global _readers
    with _counting:
        if not _readers:
            _filters.enter_context(warnings.catch_warnings(action="ignore"))
        _readers += 1
    try:
        yield
    finally:
        with _counting:
            _readers -= 1
            if not _readers:
                _filters.close()
