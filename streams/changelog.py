"""The changelog of a partition's state: what a record of it is."""

from __future__ import annotations

from typing import Final

Write = tuple[str, bytes | None]
"""A changelog record: name and value, or name and `None` for a tombstone."""

CONTEXTS: Final = "contexts/"
COVERAGE: Final = "coverage/"
