"""The inventory: what providers say they have, and whose each SIM is, as `inventory.v1` carries it.

Pure. The topic is compacted: the newest record of a key states the whole item. `msgspec` instead of pydantic,
because a start reads a whole fleet.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from streams.errors import DataError
from streams.events import Message, cloud_event
from streams.windows import rfc3339

ITEM_TYPE: Final = "com.simusage.inventory.item.v1"
OWNERSHIP_TYPE: Final = "com.simusage.inventory.ownership.v1"

Kind = Literal["sim", "endpoint", "fleet", "tag", "bundle", "bundle-instance", "network"]

OWNERSHIP: Final[str] = "ownership"
"""Takes a kind's place in the key of who owns a SIM."""

ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
"""The beginning of time: what an absent `valid_from` means."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The tenant of a SIM from an instant on; `None` means nobody here."""

    tenant: str | None
    valid_from: _Instant = ALWAYS


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Fleet and tags of a SIM from an instant on."""

    fleet: str | None = None
    tags: tuple[str, ...] = ()
    valid_from: _Instant = ALWAYS


Assignments = tuple[Assignment, ...]
"""By `valid_from`, which no two share; the first holds from the beginning of time."""

Places = tuple[Place, ...]
"""Likewise."""


class Ownership(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Whose one SIM was and is."""

    account: _Name
    sim: _Name
    """Canonical ICCID."""
    rule: str | None
    """Tenant that the account's rules named last. Only when they name another one do they assign anew, so an
    assignment made by hand stands."""
    as_of: _Instant
    """Newest instant that the rules were asked about: older statements change nothing."""
    assignments: Assignments
    version: Annotated[int, msgspec.Meta(ge=1)]
    """One more than that of the record which it replaces; of two with one version Kafka's first stands."""
    schema_version: Literal[1] = 1


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One thing of an account as its provider's listing showed it."""

    account: _Name
    provider: _Name
    kind: Kind
    id: _Name
    """Canonical ICCID of a SIM, the provider's id of anything else."""
    observed_at: _Instant
    sim: str | None = None
    """Canonical ICCID of the SIM that an endpoint or a bundle instance belongs to."""
    ids: dict[str, str] = {}
    """The provider's own ids of a SIM by their kind, such as `sid`; they never pass to another SIM."""
    aliases: tuple[str, ...] = ()
    """Names that its owner gave it and may give to another one; a look-up accepts them."""
    eid: str | None = None
    """Id of the chip of an eUICC, which outlives its ICCIDs."""
    replaces: tuple[str, ...] = ()
    """Canonical ICCIDs that the same SIM had before, as `eid` or an id shows."""
    places: Places = ()
    """Fleet and tags of a SIM, with the instants from which they hold."""
    details: dict[str, Any] = {}
    """What else the listing says, in the provider's words."""
    schema_version: Literal[1] = 1


def message(entry: Item | Ownership) -> Message:
    """Encode as a CloudEvent; `schema_version` is always written."""
    kind: str
    if isinstance(entry, Item):
        kind, name, at, type_ = entry.kind, entry.id, entry.observed_at, ITEM_TYPE
    else:
        kind, name, at, type_ = OWNERSHIP, entry.sim, entry.as_of, OWNERSHIP_TYPE
    value = _encoder.encode({"schema_version": 1, **msgspec.to_builtins(entry)})
    key = f"{entry.account}|{kind}|{name}"
    return cloud_event(key, value, source=entry.account, type_=type_, subject=name, time=rfc3339(at))


def decode(key: bytes, value: bytes) -> Item | Ownership:
    """Decode a record of the topic; the key tells which it is. Raises `DataError` (`malformed`)."""
    decoder = _ownership if key.split(b"|", 2)[1:2] == [OWNERSHIP.encode()] else _item
    try:
        return decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError("malformed", f"inventory record {key[:200]!r}: {error}") from None


def content(item: Item) -> bytes:
    """Return what an item states apart from when: equal bytes need not be published again."""
    return _encoder.encode(msgspec.structs.replace(item, observed_at=ALWAYS))


_encoder = msgspec.json.Encoder(order="sorted")
_item = msgspec.json.Decoder(Item)
_ownership = msgspec.json.Decoder(Ownership)
