"""Contexts: the combinations of dimensions that occur, each interned once as a small number.

A context is a **device** (scope, SIM, endpoint) at a **place** (where and how it was used: few combinations),
so that a SIM that roams costs a few numbers more and not its names again. A context's lasting name is its
writer and its number there, so that two writers never mean different things by one name; its public id is a
digest of its content, alike everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from streams.cells import ID_BYTES, SIM_BYTES, Context, context_id, context_value
from streams.columns import Columns
from streams.devices import Device, Devices, Numbers, Scope
from streams.events import MAX_BYTES
from streams.index import I64, U64, Bools, Index, distinct, mix
from streams.names import Names


class Group(NamedTuple):
    """The dimensions that windows keep apart: few values each, so a window stays small."""

    provider: str
    account: str
    country: str | None
    network: str | None
    service: str
    currency: str | None


Place = tuple[str | None, tuple[str, ...], str | None, str | None, str | None, str, str | None]
"""The rest of a context: fleet, tags, country, network, RAT, service, currency."""

_record = msgspec.json.Decoder(
    list[
        tuple[
            str,
            str,
            str,
            str,
            str | None,
            str | None,
            tuple[str, ...],
            str | None,
            str | None,
            str | None,
            str,
            str | None,
        ]
    ]
)
"""A changelog record of contexts: scope, device and place of each, in one row."""

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Contexts:
    """All contexts of one partition."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._own = 0
        self.devices = Devices()
        self._places: dict[Place, int] = {}
        self._place_list: list[Place] = []
        self._groups: dict[tuple[str, Group], int] = {}
        self.group_list: list[tuple[str, Group]] = []
        """Tenant and group of each group number."""
        self._owners: dict[str, int] = {}
        self._owner_of_group: list[int] = []
        self._columns = Columns(
            key=np.uint64,
            name=np.uint64,
            group=np.uint32,
            before=np.uint32,
            public=f"S{ID_BYTES}",
            told=np.bool_,
        )
        self._index = Index()
        self._names = Names()
        self._unsaved: list[I64] = []

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def places(self) -> dict[Place, int]:
        """The number of each place, to look them up in bulk."""
        return self._places

    def place(self, place: Place) -> int:
        """Return the number of a place, a new one if it was never seen."""
        number = self._places.get(place)
        if number is None:
            number = self._places[place] = len(self._place_list)
            self._place_list.append(place)
        return number

    def intern(self, devices: Numbers, places: Numbers) -> I64:
        """Return the contexts of devices at places, new ones where they were never seen."""
        keys = devices.astype(np.uint64) << _HALF | places.astype(np.uint64)
        found = self._find(keys)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            fresh = distinct(keys[missing])
            names = np.uint64(self._writer << 32 | self._own) + np.arange(len(fresh), dtype=np.uint64)
            self._own += len(fresh)
            numbers = self._add(fresh, names)
            self._unsaved.append(numbers)
            found[missing] = numbers[np.searchsorted(fresh, keys[missing])]
        return found

    def _find(self, keys: U64) -> I64:
        known = self._columns["key"]
        return self._index.find(mix(keys), lambda rows, at: known[rows] == keys[at])

    def _add(self, keys: U64, names: U64) -> I64:
        self.devices.settle()
        numbers = self._columns.extend(len(keys))
        self._columns["key"][numbers] = keys
        self._columns["name"][numbers] = names
        self._columns["group"][numbers] = self._groups_of(keys)
        self._index.place(mix(keys), numbers)
        self._names.enter(names, numbers)
        # Each context points to the one before it of its SIM, so that all of a SIM can be found.
        sims, lasts = self.devices.sims((keys >> _HALF).astype(np.int64)), self.devices.last
        order = np.argsort(sims, kind="stable")
        ordered, links = sims[order], numbers[order] + 1
        first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
        self._columns["before"][links - 1] = np.where(first, lasts[ordered], np.roll(links, 1))
        last = np.append(first[1:], True)
        lasts[ordered[last]] = links[last]
        return numbers

    def _groups_of(self, keys: U64) -> Numbers:
        scopes = self.devices.scopes((keys >> _HALF).astype(np.int64))
        pairs, inverse = np.unique(scopes.astype(np.uint64) << _HALF | keys & _LOW, return_inverse=True)
        return np.array([self._group(pair >> 32, pair & 0xFFFFFFFF) for pair in pairs.tolist()])[inverse]

    def _group(self, scope: int, place: int) -> int:
        tenant, provider, account = self.devices.scope(scope)
        _, _, country, network, _, service, currency = self._place_list[place]
        return self.group(tenant, Group(provider, account, country, network, service, currency))

    def group(self, tenant: str, kind: Group) -> int:
        """Return the number of a tenant's group, a new one if it was never seen."""
        number = self._groups.setdefault((tenant, kind), len(self.group_list))
        if number == len(self.group_list):
            self.group_list.append((tenant, kind))
            self._owner_of_group.append(self.owner(tenant))
        return number

    def owner(self, tenant: str) -> int:
        """Return the number of a tenant, a new one if it was never seen."""
        return self._owners.setdefault(tenant, len(self._owners))

    def tenant(self, number: int) -> str:
        """Return whose context it is."""
        return self._parts(number)[0][0]

    def account(self, number: int) -> str:
        """Return the account that a context belongs to."""
        return self._parts(number)[0][2]

    def context(self, number: int) -> Context:
        """Return the dimensions of a context."""
        (_, provider, account), (sim, endpoint), place = self._parts(number)
        return Context(provider, account, sim, endpoint, *place)

    def _parts(self, number: int) -> tuple[Scope, Device, Place]:
        ((scope, device, place),) = self._all_parts(np.array([number]))
        return scope, device, place

    def _all_parts(self, numbers: Numbers) -> Iterator[tuple[Scope, Device, Place]]:
        keys = self._columns["key"][numbers]
        devices, places = (keys >> _HALF).astype(np.int64), (keys & _LOW).tolist()
        scopes = self.devices.scopes(devices).tolist()
        for scope, device, place in zip(scopes, devices.tolist(), places, strict=True):
            yield self.devices.scope(scope), self.devices.device(device), self._place_list[place]

    def groups(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return the group of each context."""
        found: npt.NDArray[np.uint32] = self._columns["group"][numbers]
        return found

    def sims(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return the SIM number of each context."""
        return self.devices.sims((self._columns["key"][numbers] >> _HALF).astype(np.int64))

    def owners(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return a number for each context's tenant."""
        tenants = np.array(self._owner_of_group, np.uint32)
        found: npt.NDArray[np.uint32] = tenants[self.groups(numbers)]
        return found

    def labels(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        """Return for each context the bytes of its SIM's ICCID and of its public id, side by side."""
        sims, ids = self.devices.digits(self.sims(numbers)), self._public(numbers)
        return np.concatenate(
            (sims.view(np.uint8).reshape(-1, SIM_BYTES), ids.view(np.uint8).reshape(-1, ID_BYTES)), axis=1
        )

    def _public(self, numbers: Numbers) -> npt.NDArray[np.bytes_]:
        # When asked: of what a recovery brings back, little is ever published again.
        column = self._columns["public"]
        lacking = distinct(numbers[column[numbers] == b""])
        if len(lacking):
            column[lacking] = [context_id(value) for value in self.values(lacking)]
        found: npt.NDArray[np.bytes_] = column[numbers]
        return found

    def siblings(self, sims: Numbers, hours: U64) -> U64:
        """Return the cell keys of all contexts of these SIMs in these hours, used or not."""
        before = self._columns["before"]
        links = self.devices.last[sims]
        found: list[U64] = []
        while len(links):
            current = links - np.uint32(1)
            found.append(current.astype(np.uint64) << _HALF | hours)
            links = before[current]
            going = links > 0
            links, hours = links[going], hours[going]
        return np.concatenate(found) if found else np.zeros(0, np.uint64)

    def value(self, number: int) -> bytes:
        """Return the dimensions of a context as the read model has them."""
        return context_value(self.context(number))

    def values(self, numbers: Numbers) -> list[bytes]:
        """Return `value` of many contexts, put together from parts that repeat."""
        keys = self._columns["key"][numbers]
        devices, places = (keys >> _HALF).astype(np.int64), (keys & _LOW).tolist()
        scopes = self.devices.scopes(devices).tolist()
        heads = {scope: orjson.dumps(self.devices.scope(scope)[1:])[:-1] for scope in set(scopes)}
        tails = {place: orjson.dumps(self._place_list[place])[1:] for place in set(places)}
        return [
            b"%b,%b,%b" % (heads[scope], orjson.dumps(self.devices.device(device))[1:-1], tails[place])
            for scope, device, place in zip(scopes, devices.tolist(), places, strict=True)
        ]

    def public(self, number: int) -> bytes:
        """Return the id under which the read model has a context."""
        return self._public(np.array([number])).tobytes()

    def publics(self, numbers: Numbers) -> bytes:
        """Return the ids under which the read model has contexts, one after the other."""
        return self._public(numbers).tobytes()

    def untold(self, numbers: Numbers) -> Numbers:
        """Return those that the read model has not been told of."""
        told: Bools = self._columns["told"][numbers]
        fresh: Numbers = numbers[~told]
        return fresh

    def tell(self, numbers: Numbers) -> None:
        """Note that the read model knows these."""
        self._columns["told"][numbers] = True

    def forget_told(self) -> None:
        """Note that the read model was emptied."""
        self._columns["told"][:] = False

    def names(self, numbers: Numbers) -> U64:
        """Return the lasting name of each context."""
        found: U64 = self._columns["name"][numbers]
        return found

    def numbers(self, names: U64) -> I64 | None:
        """Return the contexts of lasting names, or `None` if one of them is not known yet."""
        found = self._names.find(names)
        return None if (found < 0).any() else found

    def unsaved(self) -> list[tuple[str, bytes]]:
        """Return the changelog records of the contexts that are new since the last call."""
        numbers = np.concatenate([np.zeros(0, np.int64), *self._unsaved])
        self._unsaved = []
        return list(self._records(self._own - len(numbers), numbers))

    def _records(self, first: int, numbers: I64) -> Iterator[tuple[str, bytes]]:
        if not len(numbers):
            return
        body = [scope + device + place for scope, device, place in self._all_parts(numbers)]
        value = zstandard.compress(orjson.dumps(body), 3)
        if len(value) > MAX_BYTES and len(numbers) > 1:
            middle = len(numbers) // 2
            yield from self._records(first, numbers[:middle])
            yield from self._records(first + middle, numbers[middle:])
        else:
            yield f"{self._writer}/{first}", value

    def load(self, name: str, value: bytes) -> None:
        """Take in a record of contexts during recovery."""
        writer, _, first = name.partition("/")
        rows = _record.decode(zstandard.decompress(value))
        devices = self.devices.numbers((row[:3], row[3:5]) for row in rows)
        places = [self.place(row[5:]) for row in rows]
        keys = np.array(devices, np.uint64) << _HALF | np.array(places, np.uint64)
        names = np.uint64(int(writer) << 32 | int(first)) + np.arange(len(keys), dtype=np.uint64)
        found = self._find(keys)
        fresh = found < 0
        if fresh.any():
            self._add(keys[fresh], names[fresh])
        # Two writers may have met the same context: then it is one number with two names.
        self._names.enter(names[~fresh], found[~fresh])
