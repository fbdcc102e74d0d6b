"""How the inventory's things are shown to a tenant: their models, and what each may say. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from streams.api.tenure import Stay, Stretch, Tenure, instant_or_none
from streams.inventory import Item

STATUSES = ("status_name", "status", "endpoint_status_name", "network_status_name")
"""Where a listing says a status, the first that does: SIMSY's words, from its listings."""


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class StretchView(_View):
    """A half-open stretch of time."""

    start: Annotated[
        AwareDatetime | None, Field(alias="from", description="null: since before anything was known")
    ]
    end: Annotated[AwareDatetime | None, Field(alias="to", description="null: until now")]


class PlaceView(StretchView):
    """Fleet and tags over a stretch of the tenant's time."""

    fleet: str | None
    tags: list[str]


class SimView(_View):
    """A SIM that the tenant has or had. Nothing here is newer than its time with the SIM."""

    iccid: Annotated[str, Field(description="19 digits, without the check digit")]
    account: str
    provider: str | None
    current: Annotated[bool, Field(description="Whether the tenant has the SIM still")]
    held: Annotated[list[StretchView], Field(description="When the tenant had the SIM")]
    fleet: Annotated[str | None, Field(description="The last one of the tenant's time")]
    tags: Annotated[list[str], Field(description="The last ones of the tenant's time")]
    places: Annotated[list[PlaceView], Field(description="Fleet and tags by time")]
    ids: Annotated[dict[str, str], Field(description="The provider's own ids by their kind")]
    aliases: Annotated[list[str], Field(description="Names that its owner gave it")]
    eid: str | None
    replaces: Annotated[list[str], Field(description="ICCIDs that the same SIM had before")]
    replaced_by: Annotated[str | None, Field(description="The ICCID that the same SIM has now")]
    endpoints: list[str]
    bundle_instances: list[str]
    details: Annotated[
        dict[str, Any] | None,
        Field(description="What else the provider lists, in its words; null: nothing of the tenant's time"),
    ]
    observed_at: Annotated[
        AwareDatetime | None, Field(description="Since when in the tenant's time the provider lists it so")
    ]


class ThingView(_View):
    """Something else than a SIM, as the provider lists it."""

    id: str
    account: str
    provider: str | None
    sim: Annotated[str | None, Field(description="ICCID of the SIM that it belongs to")]
    ids: dict[str, str]
    aliases: list[str]
    status: Annotated[str | None, Field(description="In the provider's words; null where it says none")]
    details: Annotated[dict[str, Any], Field(description="What else the provider lists, in its words")]
    observed_at: Annotated[
        AwareDatetime | None,
        Field(description="Since when in the tenant's time the provider lists it so; null: never"),
    ]


@dataclass(frozen=True, slots=True)
class Held:
    """A SIM of an account, the tenant's time with it, and how it was listed last."""

    account: str
    sim: str
    tenure: Tenure
    listed: Item | None

    @property
    def seen(self) -> Item | None:
        """How the SIM was listed last, if that is of the tenant's time."""
        return self.listed if self.listed is not None and self.tenure.saw(self.listed.observed_at) else None

    @property
    def stays(self) -> list[Stay]:
        """Where the SIM was in the tenant's time."""
        return self.tenure.stays(self.listed.places if self.listed is not None else ())

    @property
    def names(self) -> Collection[str]:
        """Every name by which the tenant may call the SIM, but for ICCIDs that it had before."""
        item = self.seen
        if item is None:
            return {self.sim}
        own = (*item.ids.values(), *([item.eid] if item.eid else ()))
        return {self.sim, *item.aliases, *own}


def sim_view(
    held: Held,
    provider: str | None,
    *,
    replaces: Collection[str] = (),
    replaced_by: str | None = None,
    parts: Collection[Item] = (),
) -> dict[str, Any]:
    """Return the JSON of a SIM, with those of its links and parts that the tenant may see."""
    item, stays = held.seen, held.stays
    last = stays[-1] if stays else None
    return {
        "iccid": held.sim,
        "account": held.account,
        "provider": held.listed.provider if held.listed else provider,
        "current": held.tenure.current,
        "held": [_stretch(each) for each in held.tenure.stretches],
        "fleet": last.fleet if last else None,
        "tags": list(last.tags) if last else [],
        "places": [{**_stretch(stay.when), "fleet": stay.fleet, "tags": list(stay.tags)} for stay in stays],
        "ids": item.ids if item else {},
        "aliases": list(item.aliases) if item else [],
        "eid": item.eid if item else None,
        "replaces": sorted(replaces),
        "replaced_by": replaced_by,
        "endpoints": sorted(part.id for part in parts if part.kind == "endpoint"),
        "bundle_instances": sorted(part.id for part in parts if part.kind == "bundle-instance"),
        "details": item.details if item else None,
        "observed_at": instant_or_none(held.tenure.since(item.observed_at)) if item else None,
    }


def thing_view(item: Item, tenure: Tenure | None = None) -> dict[str, Any]:
    """Return the JSON of something else than a SIM, which the tenant has by a SIM for some time."""
    since = item.observed_at if tenure is None else tenure.since(item.observed_at)
    return {
        "id": item.id,
        "account": item.account,
        "provider": item.provider,
        "sim": item.sim,
        "ids": item.ids,
        "aliases": list(item.aliases),
        "status": status_of(item),
        "details": item.details,
        "observed_at": instant_or_none(since),
    }


def unlisted_view(account: str, provider: str | None, id_: str) -> dict[str, Any]:
    """Return the JSON of something of which the tenant may know no more than its id."""
    return {
        "id": id_,
        "account": account,
        "provider": provider,
        "sim": None,
        "ids": {},
        "aliases": [],
        "status": None,
        "details": {},
        "observed_at": None,
    }


def status_of(item: Item) -> str | None:
    """Return the status that the provider says, in its words."""
    return next((str(item.details[name]) for name in STATUSES if item.details.get(name)), None)


def _stretch(when: Stretch) -> dict[str, Any]:
    return {"from": instant_or_none(when.start), "to": instant_or_none(when.end)}
