"""The settings of a SIMSY account."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from connectors.account import Account, AccountSettings, Address, GivenSecret

Tadig = Annotated[str, Field(pattern=r"^[A-Z]{3}[A-Z0-9]{2}$")]
NetworkCode = Annotated[str, Field(pattern=r"^[0-9]{3}-[0-9]{2,3}$")]


class SimsySettings(AccountSettings):
    """A SIMSY account: one Cloudflare Access service token, from which SIMSY knows the tenant."""

    provider: Literal["simsy"]
    source: Literal["poll"] = "poll"
    api_base: Address = "https://simsy-reporting-api.jim-42e.workers.dev/api/v1"
    """Address of the reporting API with its version."""
    client_id: Annotated[str, Field(min_length=1)]
    """Client id of the service token (CF-Access-Client-Id)."""
    client_secret: GivenSecret
    """Client secret of the service token (CF-Access-Client-Secret)."""
    poll_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 1800.0
    """Seconds between sweeps; SIMSY has news every half hour."""
    delivery_lag_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 3600.0
    """Seconds after which usage is among the records: two of SIMSY's syncs."""
    reread_hours: Annotated[int, Field(ge=1, le=24 * 62)] = 48
    """Trailing hours that every sweep looks at again, for late records and changed charges."""
    recheck_hours: Annotated[float, Field(ge=0, le=24 * 62)] = 12.0
    """Hours until a chunk is read again although its number of records has not changed."""
    history_hours: Annotated[int, Field(ge=1, le=545 * 24)] = 72
    """Hours that the very first sweep reads."""
    chunk_hours: Annotated[int, Field(ge=1, le=31 * 24)] = 1
    """Hours of usage that are read together; the names of a chunk's records are held in memory."""
    inventory_hours: Annotated[float, Field(gt=0, le=24 * 31)] = 6.0
    """Hours until endpoints, bundles and bundle instances are listed again."""
    reconcile_interval_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 3600.0
    """Seconds between looks at SIMSY's summaries, which are held against what was counted."""
    mb_bytes: Literal[1_000_000, 1_048_576] = 1_000_000
    """Bytes of the MB of SIMSY's summaries, which its documentation leaves open."""
    page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    """Rows of one page. SIMSY documents 100 and no way to ask for more, but was seen to give up to 1000."""
    networks: dict[Tadig, NetworkCode] = Field(default_factory=dict)
    """MCC-MNC of TADIG codes, as in GBRVF = "234-15": SIMSY names networks by TADIG code alone."""


SimsyAccount = Account[SimsySettings]
