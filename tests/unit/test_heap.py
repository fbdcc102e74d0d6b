"""The heap gives back what lies free in its midst."""

from __future__ import annotations

import os
import platform

import pytest

from streams.heap import trim
from tests.benchmarks.machine import resident_bytes

MIB = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_what_is_free_below_something_in_use_goes_back() -> None:
    trim()
    # Small enough for the heap, which maps what is large.
    pieces = [b"x" * size for size in [64 * 1024] * 100 * 16]
    last = pieces.pop()
    full = resident_bytes(os.getpid())
    pieces.clear()
    assert trim()
    assert full - resident_bytes(os.getpid()) > 80 * MIB
    assert len(last) == 64 * 1024
