"""The C library's heap: what temporary arrays leave free in the midst of it goes back to the system.

glibc gives back the end of its heap alone. Merges and flushes make arrays of many sizes by the dozen, so that
a fifth of the worker's memory was found to be free pages that it kept.
"""

from __future__ import annotations

import ctypes
from typing import Final

TRIM_SECONDS: Final = 2.0
"""How often is enough: it takes some milliseconds, and the next flush wants a part of it again."""

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> bool:
    """Give free pages back to the system. Returns whether there were any; never, without glibc."""
    return _trim is not None and bool(_trim(0))
