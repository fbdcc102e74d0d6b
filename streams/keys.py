"""The read model's Redis keys and their retention, in one place.

Redis holds nothing that cannot be rebuilt from Kafka. All writes are absolute and come from the worker that
owns the tenant's partition, in batches fenced by that partition's version (its last folded source offset).

==============================  =======  ==========================================================
key                             type     content
==============================  =======  ==========================================================
`su1:meta`                      hash     `cluster` (broker's cluster id), `partitions` (their number),
                                         `tick` (number of the last write of any partition)
`su1:partition:{p}`             hash     `version` (last folded offset), `complete` (1 once all is there),
                                         `stamp` (of the last write, which the next one must know),
                                         `filling` (of the last refill), `layout` (what that knew of)
`su1:tenants:{p}`               set      tenants that the partition's owner has written
`su1:contexts:{tenant}`         hash     public id -> dimensions as JSON (`streams.cells.context_value`)
`su1:cells:{tenant}:{hour}`     hash     canonical ICCID -> the SIM's cells (rows of `CELL_BYTES`)
`su1:coming:{tenant}:{hour}`    hash     likewise, of a sealed hour while it is written anew
`su1:active:{tenant}:{day}`     hash     public id -> hours of the day in which it has a cell
                                         (`HOURS_BYTES`, a bit each)
`su1:day-sums:{tenant}:{day}`   hash     canonical ICCID -> the SIM's cells, summed up over the day; an empty
                                         field -> of when (`streams.api.day_sums`); expires
`su1:day-sums-aside:{tenant}:{day}:{n}`  hash  likewise, while they are made; expires
`su1:day-sums-tried:{tenant}:{day}`  string  that somebody makes or has made them; expires
`su1:coming-active:{tenant}:{day}`  hash  likewise, of a sealed day while it is written anew
`su1:moved:{tenant}`            zset     what moved last at which tick (score): numbers of hours (their
                                         aggregates), `active:{day}`, `coverage`, `restated`
`su1:hours:{tenant}`            zset     hour numbers (score = member) that have cells
`su1:minutes:{tenant}`          zset     minute numbers (score = member) that have usage
`su1:minute:{tenant}:{minute}`  hash     canonical ICCID -> the SIM's usage (rows as of cells); lives 3 hours
`su1:windows:{tenant}:{gran}`   hash     window start (epoch seconds) -> JSON aggregate
`su1:coverage:{tenant}`         hash     account -> JSON `{"provider", "intervals": [[from, to], ...]}`
`su1:reconciliation:{tenant}`   hash     `account|granularity|start` -> JSON
                                         (`streams.reconciliation.comparison`)
`su1:restatements:{tenant}`     hash     `hour|revision|part|account` -> compressed JSON of a part of a
                                         restatement (`streams.restatements`)
`su1:finals:{tenant}`           hash     `span|account` -> when each hour of a span turned final
                                         (`streams.finals`)
`su1:lease:{account}`           string   token of the connector that polls the account; expires by itself
`su1:connectors`                hash     account -> how its connector fares (`streams.connector_status`)
`su1:callbacks`                 hash     account -> when its last callback was accepted (RFC 3339)
`su1:rate:{bucket}`             string   when a budget of requests is full again (microseconds); expires
`su1:tokens`                    hash     token's id -> its record of `tokens.v1`, without its secret
`su1:tokens:copy`               hash     `offset` in the topic, `complete` (1 once all are there),
                                         `current_at` (when that was so last, epoch seconds)
`su1:requests:{holder}|{name}`  list     arrivals (microseconds) of the last 60 s at the endpoint; expires
`su1:export:{job}`              hash     a job of an export (`streams.api.export_jobs`); expires
`su1:export-file:{job}`         hash     number -> compressed piece of the job's file; expires
`su1:export-queue`              zset     jobs that are not ended; score: when a worker may take one (seconds)
`su1:exports:{tenant}`          zset     the tenant's jobs and files; score: until when one counts (seconds)
`su1:export-secret`             string   key of the signatures of links to files
`su1:archive:{p}`               hash     how far the partition's statements are kept: `offset` (the next),
                                         `read_at` (ms, until when all is there), `complete` (1 once it was),
                                         `newest:{tenant}` (newest receipt, microseconds)
`su1:statements:{tenant}:{n}`   list     chunks of single statements (`streams.statement_chunks`) of a place
                                         (`streams.statement_places`); expires
`su1:statement-links:{tenant}`  hash     key -> JSON list of the places of what is in more than one
`su1:statement-tenants`         hash     tenant -> its partition
`su1:replaced:{tenant}`         set      `account|hour|hour` of sealed hours that a backfill has replaced
`su1:inventory`                 hash     how the copy of `inventory.v1` stands; fields as of `su1:tokens:copy`
`su1:inventory:{account}`       hash     `kind|id` -> its record of `inventory.v1`
`su1:ids:{account}:{kind}`      set      ids of the account's items of a kind, but for SIMs
`su1:names:{account}`           zset     `name|ICCID` (score 0) of each name that a SIM ever had
`su1:parts:{account}`           hash     canonical ICCID -> JSON list of `kind|id` of what belongs to it
`su1:owned:{tenant}`            zset     `ICCID|account` (score 0) of SIMs that are or were the tenant's
==============================  =======  ==========================================================

Hours are whole hours since the epoch, days are 24 of them. Cell hashes expire `aggregate_months` after their
hour, and who was active likewise after the day's last. The worker removes windows, comparisons and listed
hours that ended as long before the newest receipt of their tenant, when it seals a day. Contexts stay until a
refill: who names one last is not known cheaply.

The inventory's keys come from the connector role (`connectors.inventory_copy`). An item says nothing of
tenants: whoever shows one has to look at the SIM's `ownership|iccid`, and at what its tenant's time saw.
"""

from __future__ import annotations

from streams.windows import Granularity

PREFIX = "su1"

LAYOUT = 2
"""A read model that was filled by another layout is filled anew: some of what is read would not be there."""

HOURS_BYTES = 4
"""The hours of a day in which a context has a cell, little-endian: hour 0 is the lowest bit."""

MOVED_COVERAGE = "coverage"
MOVED_RESTATED = "restated"

COPY_COMPLETE = "complete"
COPY_CURRENT_AT = "current_at"
"""Fields of a copy of a topic: whether it ever had all there is (1), and when it last had (epoch seconds)."""
META = f"{PREFIX}:meta"
CONNECTORS = f"{PREFIX}:connectors"
CALLBACKS = f"{PREFIX}:callbacks"
INVENTORY = f"{PREFIX}:inventory"
TOKENS = f"{PREFIX}:tokens"
TOKENS_COPY = f"{PREFIX}:tokens:copy"
STATEMENT_TENANTS = f"{PREFIX}:statement-tenants"
EXPORT_QUEUE = f"{PREFIX}:export-queue"
EXPORT_SECRET = f"{PREFIX}:export-secret"


def partition_key(partition: int) -> str:
    """Fence and completeness of one partition's part of the read model."""
    return f"{PREFIX}:partition:{partition}"


def tenants_key(partition: int) -> str:
    """Tenants that the partition's owner has written."""
    return f"{PREFIX}:tenants:{partition}"


def cells_key(tenant: str, hour: int) -> str:
    """Cells of one tenant and hour number, a field for each SIM."""
    return f"{PREFIX}:cells:{tenant}:{hour}"


def coming_cells_key(tenant: str, hour: int) -> str:
    """Cells of a sealed hour while they are written, before they take the place of those that are there."""
    return f"{PREFIX}:coming:{tenant}:{hour}"


def active_key(tenant: str, day: int) -> str:
    """Who was active in which hours of one tenant's day, by its number since the epoch."""
    return f"{PREFIX}:active:{tenant}:{day}"


def day_sums_key(tenant: str, day: int) -> str:
    """Cells of one tenant's day, summed up for each SIM; readers make it, so it may be missing or old."""
    return f"{PREFIX}:day-sums:{tenant}:{day}"


def day_sums_aside_key(tenant: str, day: int, number: str) -> str:
    """The same while it is made."""
    return f"{PREFIX}:day-sums-aside:{tenant}:{day}:{number}"


def day_sums_tried_key(tenant: str, day: int) -> str:
    """That somebody makes the same, or has made it lately."""
    return f"{PREFIX}:day-sums-tried:{tenant}:{day}"


def coming_active_key(tenant: str, day: int) -> str:
    """Who was active in a sealed day while it is written, before it takes the place of what is there."""
    return f"{PREFIX}:coming-active:{tenant}:{day}"


def moved_key(tenant: str) -> str:
    """What of the tenant moved when: its readers need ask for nothing else."""
    return f"{PREFIX}:moved:{tenant}"


def moved_day(day: int) -> str:
    """Member of `moved_key`: who was active in a day."""
    return f"active:{day}"


def contexts_key(tenant: str) -> str:
    """Dimensions of the tenant's contexts by public id."""
    return f"{PREFIX}:contexts:{tenant}"


def hours_key(tenant: str) -> str:
    """Hour numbers of the tenant that have cells."""
    return f"{PREFIX}:hours:{tenant}"


def minutes_key(tenant: str) -> str:
    """Minute numbers of the tenant that have usage."""
    return f"{PREFIX}:minutes:{tenant}"


def minute_key(tenant: str, minute: int) -> str:
    """Usage of one tenant and minute number, a field for each SIM."""
    return f"{PREFIX}:minute:{tenant}:{minute}"


def windows_key(tenant: str, granularity: Granularity) -> str:
    """Aggregates of one tenant and granularity."""
    return f"{PREFIX}:windows:{tenant}:{granularity}"


def coverage_key(tenant: str) -> str:
    """Covered intervals of the tenant's accounts."""
    return f"{PREFIX}:coverage:{tenant}"


def reconciliation_key(tenant: str) -> str:
    """Usage of the tenant's accounts by day and month, held against the providers' totals."""
    return f"{PREFIX}:reconciliation:{tenant}"


def restatements_key(tenant: str) -> str:
    """Restatements of the tenant's hours, in parts."""
    return f"{PREFIX}:restatements:{tenant}"


def finals_key(tenant: str) -> str:
    """When the tenant's hours turned final, by account."""
    return f"{PREFIX}:finals:{tenant}"


def lease_key(account: str) -> str:
    """Lease of the one connector that polls this account."""
    return f"{PREFIX}:lease:{account}"


def rate_key(bucket: str) -> str:
    """When a bucket of requests is full again, or a gate open."""
    return f"{PREFIX}:rate:{bucket}"


def requests_key(holder: str) -> str:
    """Requests of a tenant, or failed authentications of an address, that still count."""
    return f"{PREFIX}:requests:{holder}"


def export_key(job: str) -> str:
    """A job of an export."""
    return f"{PREFIX}:export:{job}"


def export_file_key(job: str) -> str:
    """Pieces of the job's file."""
    return f"{PREFIX}:export-file:{job}"


def exports_key(tenant: str) -> str:
    """The tenant's jobs that are not ended, and its files that are not expired."""
    return f"{PREFIX}:exports:{tenant}"


def archive_key(partition: int) -> str:
    """How far one partition's single statements are kept."""
    return f"{PREFIX}:archive:{partition}"


def statements_key(tenant: str, place: int) -> str:
    """Chunks of single statements of one place."""
    return f"{PREFIX}:statements:{tenant}:{place}"


def statement_links_key(tenant: str) -> str:
    """Places of statements that belong together and lie apart."""
    return f"{PREFIX}:statement-links:{tenant}"


def replaced_key(tenant: str) -> str:
    """Sealed hours of which no statement counts by itself any more."""
    return f"{PREFIX}:replaced:{tenant}"


def inventory_key(account: str) -> str:
    """Everything that `inventory.v1` says of the account."""
    return f"{INVENTORY}:{account}"


def ids_key(account: str, kind: str) -> str:
    """Ids of the account's items of a kind."""
    return f"{PREFIX}:ids:{account}:{kind}"


def names_key(account: str) -> str:
    """Sorted `name|ICCID` for each name that a SIM of the account ever had; its item says which hold."""
    return f"{PREFIX}:names:{account}"


def parts_key(account: str) -> str:
    """What belongs to each SIM of the account: endpoints, bundle instances."""
    return f"{PREFIX}:parts:{account}"


def owned_key(tenant: str) -> str:
    """SIMs that the tenant has or had, of all accounts."""
    return f"{PREFIX}:owned:{tenant}"
