"""What SIMSY lists beside usage: endpoints with their SIMs, bundles and bundle instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, ValidationError

from connectors.answered import LaxPart
from connectors.inventory import Seen
from connectors.values import text_of
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid

Id = Annotated[str, Field(min_length=1, max_length=128)]


class _Endpoint(LaxPart):
    id: Id
    endpoint_identifier: str | None = None
    iccid: str | None = None
    endpoint_name: str | None = None
    endpoint_type: str | None = None
    status: str | None = None
    endpoint_status_name: str | None = None
    network_status_name: str | None = None


class _Bundle(LaxPart):
    id: Id
    bundle_id: str | None = None
    bundle_name: str | None = None
    bundle_moniker: str | None = None
    price: str | None = None
    currency: str | None = None
    allowance: str | None = None
    allowance_moniker: str | None = None
    bundle_type_name: str | None = None
    offer_type_name: str | None = None
    status_name: str | None = None
    effective_from: str | None = None
    effective_to: str | None = None


class _Instance(LaxPart):
    id: Id
    iccid: str | None = None
    customer_name: str | None = None
    bundle_name: str | None = None
    bundle_moniker: str | None = None
    bundle_instance_id: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    status_name: str | None = None
    sequence: str | None = None
    sequence_max: str | None = None
    data_used_mb: str | None = None
    data_allowance_mb: str | None = None


class Endpoints:
    """The account's endpoints, looked up by what a usage row says: a name and a SIM."""

    def __init__(self) -> None:
        self._by_sim: dict[str, tuple[str, str | None]] = {}
        self._by_name: dict[str, set[str]] = {}

    def add(self, endpoint: Seen) -> None:
        """Take an endpoint of the listing."""
        name = next(iter(endpoint.aliases), None)
        if endpoint.sim:
            self._by_sim[endpoint.sim] = endpoint.id, name
        if name:
            self._by_name.setdefault(name, set()).add(endpoint.id)

    def knows(self, row: object) -> bool:
        """Whether the endpoint that a row names, or its SIM where it names none, is listed."""
        name, sim = text_of(row, "endpoint_name"), text_of(row, "iccid")[:19]
        return name in self._by_name if name else sim in self._by_sim

    def find(self, name: str | None, sim: str) -> str | None:
        """Return the endpoint's id, or `None` where name and SIM do not settle which one it is.

        Old rows of a SIM that has moved to another endpoint name the former one, so the name goes first.
        """
        here, here_name = self._by_sim.get(sim, (None, None))
        if not name or name == here_name:
            return here
        named = self._by_name.get(name, set())
        return next(iter(named)) if len(named) == 1 else None


def endpoint(item: object) -> Seen:
    """Read an item of `/endpoints`. Raises `DataError` (`malformed`)."""
    checked = _checked(_Endpoint, item)
    return Seen(
        "endpoint",
        checked.id,
        sim=_sim(checked.iccid),
        ids=_texts(identifier=checked.endpoint_identifier),
        aliases=(checked.endpoint_name,) if checked.endpoint_name else (),
        details=_details(checked, {"id", "endpoint_identifier", "iccid", "endpoint_name"}),
    )


def bundle(item: object) -> Seen:
    """Read an item of `/bundles`. Raises `DataError` (`malformed`)."""
    checked = _checked(_Bundle, item)
    return Seen(
        "bundle",
        checked.id,
        ids=_texts(bundle_id=checked.bundle_id, moniker=checked.bundle_moniker),
        aliases=(checked.bundle_name,) if checked.bundle_name else (),
        details=_details(checked, {"id", "bundle_id", "bundle_moniker", "bundle_name"}),
    )


def instance(item: object) -> Seen:
    """Read an item of `/bundle-instances`, whose customer may decide whose the SIM is. Raises `DataError`."""
    checked = _checked(_Instance, item)
    return Seen(
        "bundle-instance",
        checked.id,
        sim=_sim(checked.iccid),
        ids=_texts(bundle_instance_id=checked.bundle_instance_id),
        organisations=(checked.customer_name,) if checked.customer_name else (),
        details=_details(checked, {"id", "iccid", "bundle_instance_id", "customer_name"}),
    )


M = TypeVar("M", bound=LaxPart)

Reader = Callable[[object], Seen]

LISTINGS: Final[tuple[tuple[str, Reader], ...]] = (
    ("bundle-instances", instance),
    ("bundles", bundle),
    ("endpoints", endpoint),
)
"""Path and reader of each listing. Instances first: they name the customers of the endpoints' SIMs."""


def _checked(model: type[M], item: object) -> M:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def _sim(iccid: str | None) -> str | None:
    return canonical_iccid(iccid) if iccid else None


def _texts(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _details(part: LaxPart, shown: set[str]) -> dict[str, Any]:
    return part.model_dump(exclude=shown, exclude_none=True)
