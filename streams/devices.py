"""Devices: the SIMs of the accounts, with the endpoints that they were in, each known by a small number."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.cells import SIM_BYTES
from streams.columns import Columns

Scope = tuple[str, str, str]
"""Tenant, provider, account: alike for all records of an event."""

Device = tuple[str, str | None]
"""SIM and endpoint."""

Numbers = npt.NDArray[Any]


class Devices:
    """All devices of one partition. A tenant's SIM has one number in all its devices."""

    def __init__(self) -> None:
        self._scopes: dict[Scope, int] = {}
        self._scope_list: list[Scope] = []
        self._accounts: dict[str, set[str]] = {}
        self._devices: dict[Scope, dict[Device, int]] = {}
        self._list: list[Device] = []
        self._sims: dict[str, dict[str, int]] = {}
        self._sim_count = 0
        self._columns = Columns(scope=np.uint32, sim=np.uint32)
        self._of_sim = Columns(last=np.uint32, digits=f"S{SIM_BYTES}")
        self._new: list[tuple[int, int]] = []

    def of(self, scope: Scope) -> dict[Device, int]:
        """Return the numbers of one scope's devices, to look them up in bulk."""
        return self._devices.setdefault(scope, {})

    def number(self, scope: Scope, device: Device) -> int:
        """Return the number of a device, a new one if it was never seen."""
        devices = self.of(scope)
        number = devices.get(device)
        if number is None:
            number = devices[device] = len(self._list)
            self._list.append(device)
            sims = self._sims.setdefault(scope[0], {})
            sim = sims.get(device[0])
            if sim is None:
                sim = sims[device[0]] = self._sim_count
                self._sim_count += 1
            self._new.append((self._scope(scope), sim))
        return number

    def numbers(self, many: Iterable[tuple[Scope, Device]]) -> list[int]:
        """Return `number` of many devices."""
        of, number = self._devices.get, self.number
        found = []
        for scope, device in many:
            known = of(scope)
            at = known.get(device) if known is not None else None
            found.append(number(scope, device) if at is None else at)
        return found

    def _scope(self, scope: Scope) -> int:
        number = self._scopes.get(scope)
        if number is None:
            number = self._scopes[scope] = len(self._scope_list)
            self._scope_list.append(scope)
            self._accounts.setdefault(scope[0], set()).add(scope[2])
        return number

    def settle(self) -> None:
        """Enter new devices into the columns, all at once: one by one would cost ten times as much."""
        if self._new:
            numbers = self._columns.extend(len(self._new))
            scopes, sims = zip(*self._new, strict=True)
            self._columns["scope"][numbers], self._columns["sim"][numbers] = scopes, sims
            self._of_sim.extend(self._sim_count - len(self._of_sim))
            self._of_sim["digits"][list(sims)] = [self._list[number][0] for number in numbers.tolist()]
            self._new = []

    def device(self, number: int) -> Device:
        """Return SIM and endpoint of a device."""
        return self._list[number]

    def scope(self, number: int) -> Scope:
        """Return the scope of a scope's number."""
        return self._scope_list[number]

    def scopes(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return the scope's number of each settled device."""
        found: npt.NDArray[np.uint32] = self._columns["scope"][numbers]
        return found

    def sims(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return the SIM's number of each settled device."""
        found: npt.NDArray[np.uint32] = self._columns["sim"][numbers]
        return found

    def digits(self, sims: Numbers) -> npt.NDArray[np.bytes_]:
        """Return the ICCID of each SIM."""
        found: npt.NDArray[np.bytes_] = self._of_sim["digits"][sims]
        return found

    @property
    def last(self) -> npt.NDArray[np.uint32]:
        """By SIM, a number that the contexts keep there: one more than that of its last context."""
        column: npt.NDArray[np.uint32] = self._of_sim["last"]
        return column

    def accounts(self, tenant: str) -> Collection[str]:
        """Return the accounts that have brought the tenant usage."""
        return self._accounts.get(tenant, ())
