"""emnify: takes its Data Streamer's usage records and watches that the stream runs (PROVIDERS 1)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.account import Account, AccountSettings, Address, GivenSecret, Traits
from connectors.auth import Token, TokenCache, jwt_expiry
from connectors.bookmarks import Bookmark, next_observation
from connectors.http import Call, Failure, HttpClient, ProviderError
from connectors.mcc import country_of
from connectors.publisher import Batch, Proceed, cover
from connectors.registry import Toolbox, callback_url
from connectors.values import EPOCH, Exact, InstantText, micros, scaled
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord

DATA: Final = 5
SMS: Final = 6
USAGE_STREAM: Final = 1
RUNNING: Final = 1
"""emnify's ids of traffic types, stream types and stream statuses (PROVIDERS 1.2, 1.8)."""

TAG_LENGTH: Final = 128

_NETWORK: Final = re.compile(r"^[0-9]{3}-[0-9]{2,3}$")


class EmnifySettings(AccountSettings):
    """An emnify account, its usage pushed by a Data Streamer of type REST API."""

    provider: Literal["emnify"]
    source: Literal["push"] = "push"
    api_base: Address = "https://cdn.emnify.net"
    """Address of the API without its `/api/v1`."""
    application_token: GivenSecret
    """Application token of the workspace."""
    callback_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = "X-Callback-Secret"
    """Name of the static header that the stream is configured with."""
    callback_secret: GivenSecret
    """Value of that header."""
    mb_bytes: Literal[1_000_000, 1_048_576] = 1_000_000
    """Bytes of emnify's MB, which its documentation leaves open."""
    stream_id: int | None = None
    """Id of our data stream; else it is known by its callback address."""
    watch_interval_s: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    """Seconds between looks at the stream's status."""
    delivery_lag_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """Seconds after which a record has arrived while the stream runs."""
    history_hours: Annotated[int, Field(ge=0, le=20 * 24)] = 0
    """Hours before the very first look that the stream delivers too (legacy streams replay up to 20 days)."""


EmnifyAccount = Account[EmnifySettings]


class _Part(BaseModel):
    """A part of emnify's JSON: fields may be added at any time and are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=True
    )


class _TrafficType(_Part):
    id: int


class _Volume(_Part):
    total: Exact
    rx: Exact | None = None
    tx: Exact | None = None


class _Currency(_Part):
    code: str


class _Sim(_Part):
    iccid: str


class _Endpoint(_Part):
    id: int | None = None
    tags: Annotated[str, Field(max_length=4096)] | None = None


class _Organisation(_Part):
    id: int | None = None
    name: str | None = None


class _Country(_Part):
    mcc: str | None = None


class _Operator(_Part):
    mnc: str | None = None
    country: _Country | None = None


class _Cdr(_Part):
    id: Annotated[int, Field(ge=0, lt=2**64)]
    traffic_type: _TrafficType
    start_timestamp: InstantText
    end_timestamp: InstantText
    volume: _Volume
    cost: Exact | None = None
    currency: _Currency | None = None
    sim: _Sim
    endpoint: _Endpoint | None = None
    organisation: _Organisation | None = None
    operator: _Operator | None = None


class _Status(_Part):
    id: int
    description: str = ""


class _Credentials(_Part):
    url: str | None = None


class _Destination(_Part):
    credentials: _Credentials | None = None


class _Stream(_Part):
    id: int
    data_stream_type: _TrafficType | None = None
    destination: _Destination | None = None
    status: _Status


class EmnifyCallback:
    """Takes the pushes of one account's Data Streamer: static header, no signature (PROVIDERS 1.8)."""

    def __init__(self, account: EmnifyAccount) -> None:
        self.account = account

    def authorised(self, headers: Mapping[str, str]) -> bool:
        """Compare the static header with its secret, in constant time."""
        settings = self.account.settings
        given = headers.get(settings.callback_header, "")
        expected = settings.callback_secret.get_secret_value()
        return hmac.compare_digest(given.encode("latin-1", "replace"), expected.encode())

    def normalise(self, original: bytes, item: Any, batch: Batch) -> None:
        """File one record; a stream that mixes in events has items that are no usage, which are counted."""
        if isinstance(item, dict) and "event_type" in item and "volume" not in item:
            batch.ignored += 1
            return
        record, traits = usage_record(item, mb_bytes=self.account.settings.mb_bytes)
        batch.add(self.account.settings.tenant_of(traits), record, original)


def usage_record(item: object, *, mb_bytes: int) -> tuple[UsageRecord, Traits]:
    """Normalise one record of the Data Streamer. Raises `DataError` (`malformed`).

    A record states its own interval only, so it is a delta. Money that is absent, 0 or null is unknown, since
    inclusive volumes hide it (PROVIDERS 1.2). Of SMS only the total counts, because emnify's own pages
    contradict each other about the direction (PROVIDERS 1.5). A CDR never changes, so its revision is its end
    in microseconds, which every delivery repeats.
    """
    try:
        cdr = _Cdr.model_validate(item)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    sim = canonical_iccid(cdr.sim.iccid)
    tags = _tags(cdr.endpoint.tags if cdr.endpoint else None)
    country, network = _place(cdr.operator)
    priced = cdr.cost is not None and cdr.cost > 0 and cdr.currency is not None
    endpoint = cdr.endpoint.id if cdr.endpoint else None
    try:
        record = UsageRecord(
            identity=f"cdr:{cdr.id}",
            revision=micros(cdr.end_timestamp),
            semantics="delta",
            start=cdr.start_timestamp,
            end=cdr.end_timestamp,
            sim=sim,
            cost=cdr.cost if priced else None,
            currency=cdr.currency.code if priced and cdr.currency else None,
            cost_status="complete" if priced else "unknown",
            endpoint=None if endpoint is None else str(endpoint),
            tags=tags,
            country=country,
            network=network,
            **_volumes(cdr, mb_bytes),
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    organisation = cdr.organisation or _Organisation()
    names = tuple(str(name) for name in (organisation.id, organisation.name) if name is not None)
    return record, Traits(sim=sim, organisations=names, tags=tags)


def _volumes(cdr: _Cdr, mb_bytes: int) -> dict[str, Any]:
    volume = cdr.volume
    if cdr.traffic_type.id == DATA:
        return {
            "service": "data",
            "total": scaled(volume.total, mb_bytes),
            "rx": None if volume.rx is None else scaled(volume.rx, mb_bytes),
            "tx": None if volume.tx is None else scaled(volume.tx, mb_bytes),
        }
    if cdr.traffic_type.id == SMS:
        if volume.total != volume.total.to_integral_value():
            raise DataError("malformed", f"volume.total: got {volume.total} messages; want a whole number")
        return {"service": "sms", "total": int(volume.total)}
    raise DataError("malformed", f"traffic_type.id: got {cdr.traffic_type.id}; want 5 (data) or 6 (SMS)")


def _tags(text: str | None) -> tuple[str, ...]:
    """emnify keeps an endpoint's tags as one text with commas."""
    return tuple(sorted({tag.strip()[:TAG_LENGTH] for tag in (text or "").split(",") if tag.strip()}))


def _place(operator: _Operator | None) -> tuple[str | None, str | None]:
    """Return country and network; a country with several MCCs still names the country."""
    mcc = operator.country.mcc if operator and operator.country else None
    if mcc is None:
        return None, None
    mnc = operator.mnc if operator else None
    network = f"{mcc}-{mnc.zfill(2)}" if mnc else ""
    return country_of(mcc), network if _NETWORK.match(network) else None


class StreamWatch:
    """Looks at the stream's status again and again, and tells from it what is covered.

    Between two looks that both read Running the stream has delivered everything that is older than the
    delivery lag. After a look that read otherwise coverage begins anew, so that the gap shows. emnify keeps
    its records for us while we are away, so a restart of ours makes no gap.
    """

    MISSING: ClassVar[str] = "no usage stream calls {url}: create one there, or set stream_id"

    def __init__(self, account: EmnifyAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = EmnifyApi(account, toolbox.http)
        self._begun: datetime | None = None
        self._from: datetime | None = None

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between looks."""
        return self._account.settings.watch_interval_s

    async def sweep(self, proceed: Proceed) -> str:
        """Look once. Raises `ProviderError` where the stream does not run, so that the reason shows."""
        bookmark = self._toolbox.bookmarks.get(self.account)
        now = self._toolbox.clock()
        stream = await self._api.stream(self._toolbox.public_url)
        if stream is None or stream.status.id != RUNNING:
            await self._interrupted(bookmark, proceed)
            if stream is None:
                raise ProviderError(Failure.CONFIG, self.MISSING.format(url=self._callback_url))
            status = stream.status.description or stream.status.id
            raise ProviderError(
                Failure.PROVIDER,
                f"data stream {stream.id} is {status}, not Running: emnify delivers nothing until it is "
                "resumed or restarted, and keeps a backlog of 7 days at most",
            )
        return await self._running(bookmark, now, proceed)

    @property
    def _callback_url(self) -> str:
        return callback_url(self._toolbox.public_url, self.account)

    async def _interrupted(self, bookmark: Bookmark | None, proceed: Proceed) -> None:
        self._begun = self._from = None
        if bookmark is not None and bookmark.covered_until is not None:
            await self._toolbox.bookmarks.put(
                self.account, bookmark.model_copy(update={"covered_until": None}), proceed
            )

    async def _running(self, bookmark: Bookmark | None, now: datetime, proceed: Proceed) -> str:
        settings = self._account.settings
        if bookmark is not None and bookmark.covered_until is not None:
            start = EPOCH + timedelta(microseconds=bookmark.covered_until)
        else:
            if self._begun is None or self._from is None:
                history = timedelta(hours=settings.history_hours if bookmark is None else 0)
                self._begun, self._from = now, _ceil(now - history)
                return "the data stream is Running"
            start = self._from
        end = (now - timedelta(seconds=settings.delivery_lag_s)).replace(microsecond=0)
        # Before this the first records of a new or resumed stream may still be on their way.
        settled = self._begun is None or end >= self._begun.replace(microsecond=0)
        if not settled or end <= start:
            return "the data stream is Running"
        observed = next_observation(bookmark, micros(now))
        await cover(self._toolbox.sender, self._account, start, end, observed_at=now, proceed=proceed)
        await self._toolbox.bookmarks.put(
            self.account, Bookmark(covered_until=micros(end), last_observation=observed), proceed
        )
        self._begun = self._from = None
        return "the data stream is Running"


class EmnifyApi:
    """The few calls that are made to emnify."""

    def __init__(self, account: EmnifyAccount, http: HttpClient) -> None:
        self._account = account
        self._http = http
        self._tokens = TokenCache(self._login)

    async def stream(self, public_url: str) -> _Stream | None:
        """Return our data stream, or `None` where there is none."""
        settings = self._account.settings
        call = Call("GET", f"{settings.api_base}/api/v2/data_stream")
        answer = await self._http.call(call, self._tokens)
        try:
            streams = [_Stream.model_validate(item) for item in _listed(answer.body)]
        except ValidationError as error:
            raise ProviderError(Failure.PROVIDER, f"{call.place}: {describe(error)}") from None
        if settings.stream_id is not None:
            return next((stream for stream in streams if stream.id == settings.stream_id), None)
        wanted = callback_url(public_url, self._account.name)
        ours = [stream for stream in streams if _is_usage(stream) and _url(stream) == wanted]
        return min(ours, key=lambda stream: stream.status.id, default=None)

    async def _login(self) -> Token:
        """An application token gives a JWT and no refresh token (PROVIDERS 1.1)."""
        settings = self._account.settings
        secret = settings.application_token.get_secret_value()
        call = Call("POST", f"{settings.api_base}/api/v1/authenticate", json={"application_token": secret})
        answer = await self._http.call(call)
        token = answer.body.get("auth_token") if isinstance(answer.body, dict) else None
        if not isinstance(token, str):
            raise ProviderError(Failure.PROVIDER, f"{call.place} answers without auth_token")
        return Token(token, jwt_expiry(token))


class _Emnify:
    settings: type[AccountSettings] = EmnifySettings

    def job(self, account: EmnifyAccount, toolbox: Toolbox) -> StreamWatch:
        return StreamWatch(account, toolbox)

    def callback(self, account: EmnifyAccount) -> EmnifyCallback:
        return EmnifyCallback(account)

    async def check(self, account: EmnifyAccount, http: HttpClient, public_url: str) -> str:
        stream = await EmnifyApi(account, http).stream(public_url)
        if stream is None:
            return "credentials accepted; " + StreamWatch.MISSING.format(
                url=callback_url(public_url, account.name)
            )
        status = stream.status.description or stream.status.id
        return f"credentials accepted; data stream {stream.id} is {status}"


PROVIDER = _Emnify()


def _listed(body: Any) -> list[Any]:
    if not isinstance(body, list):
        raise ProviderError(Failure.PROVIDER, "emnify answers no list of data streams")
    return body


def _is_usage(stream: _Stream) -> bool:
    return stream.data_stream_type is None or stream.data_stream_type.id == USAGE_STREAM


def _url(stream: _Stream) -> str | None:
    credentials = stream.destination.credentials if stream.destination else None
    return credentials.url if credentials else None


def _ceil(at: datetime) -> datetime:
    whole = at.replace(microsecond=0)
    return whole if whole == at else whole + timedelta(seconds=1)
