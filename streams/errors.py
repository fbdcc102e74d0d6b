"""Errors of simusage: one root, each subclass says what the caller should do."""

from __future__ import annotations


class SimusageError(Exception):
    """Root of all errors raised on purpose; its text is written for the operator."""


class ConfigError(SimusageError):
    """The configuration is wrong: stop at start and name the key, the value and what would do."""

    def __init__(self, key: str, got: object, remedy: str) -> None:
        super().__init__(f"{key}: got {got!r}; {remedy}")
        self.key = key
        self.got = got
        self.remedy = remedy


class UnavailableError(SimusageError):
    """A service (broker, Redis, provider) does not answer now: wait and try again."""


class RebuildingError(UnavailableError):
    """The read model is there but not complete: the worker is filling it."""


class DataError(SimusageError):
    """Data that cannot be used: it goes to the dead letters under `reason` and the rest goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
