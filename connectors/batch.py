"""A batch: what one callback or one page of a poll came to, before and after it is known whose it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from connectors.account import Traits
from streams.errors import DataError
from streams.events import RejectedRecord
from streams.usage import UsageRecord


@dataclass(frozen=True, slots=True)
class Filed:
    """A record whose tenant is not settled yet, and what the account's rules look at."""

    record: UsageRecord
    traits: Traits
    original: bytes
    since: datetime
    """Whoever has the SIM then has the record."""
    placed: bool = True
    """Whether the record itself says fleet and tags; else the inventory knows them as of its start."""


@dataclass(slots=True)
class Batch:
    """What one callback or one poll came to."""

    filed: list[Filed] = field(default_factory=list)
    """Records that `settle` gives to their tenants."""
    usage: dict[str, list[UsageRecord]] = field(default_factory=dict)
    """Records of each tenant, in the order in which they came."""
    rejected: list[RejectedRecord] = field(default_factory=list)
    ignored: int = 0
    """Items that are no usage at all, such as a provider's test message."""

    def add(
        self,
        record: UsageRecord,
        traits: Traits,
        original: bytes,
        *,
        session: datetime | None = None,
        placed: bool = True,
    ) -> None:
        """File a record; `publish` finds out whose it is, and where the SIM was unless it is `placed`.

        A cumulative record comes with the start of its session, which is one tenant's as a whole: the first
        statement that another one got would count everything before it once more.
        """
        since = record.start if session is None else session
        self.filed.append(Filed(record, traits, original, since, placed))

    def part(self, wanted: Callable[[Filed], bool]) -> list[Filed]:
        """Take those out of the filed records for which this holds."""
        parted = [each for each in self.filed if wanted(each)]
        if parted:
            self.filed = [each for each in self.filed if not wanted(each)]
        return parted

    def place(self, placed: Callable[[UsageRecord], UsageRecord]) -> None:
        """Give fleet and tags to the filed records that do not say them."""
        self.filed = [
            each if each.placed else replace(each, record=placed(each.record), placed=True)
            for each in self.filed
        ]

    def settle(self, tenant_of: Callable[[str, datetime], str | None]) -> None:
        """Give each filed record to its tenant, and reject those that nobody owns."""
        filed, self.filed = self.filed, []
        for each in filed:
            tenant = tenant_of(each.record.sim, each.since)
            if tenant is None:
                at = each.since.isoformat()
                detail = f"no rule of the account assigns SIM {each.record.sim} to a tenant as of {at}"
                self.reject(each.original, DataError("unknown-tenant", detail))
            else:
                self.usage.setdefault(tenant, []).append(each.record)

    def reject(self, original: bytes, error: DataError) -> None:
        """Set something aside for the dead letters."""
        self.rejected.append(RejectedRecord(original, error))

    @property
    def accepted(self) -> int:
        """Number of records that count."""
        return sum(len(records) for records in self.usage.values())
