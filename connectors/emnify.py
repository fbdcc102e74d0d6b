"""emnify: takes its Data Streamer's usage records and watches that the stream runs."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, ValidationError

from connectors.account import Account, AccountSettings, Address, GivenSecret
from connectors.auth import Token, TokenCache, jwt_expiry
from connectors.emnify_cdr import Part, usage_record
from connectors.http import Call, Failure, HttpClient, ProviderError
from connectors.limits import Limit, Scope
from connectors.needs import Need, Needs
from connectors.publisher import Batch, Proceed
from connectors.receiver import Caller
from connectors.registry import Toolbox, callback_url
from connectors.stream_coverage import StreamCoverage
from streams.events import describe

USAGE_STREAM: Final = 1
RUNNING: Final = 1
"""emnify's ids of stream types and stream statuses (emnify's documentation)."""


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


class _Type(Part):
    id: int


class _Status(Part):
    id: int
    description: str = ""


class _Credentials(Part):
    url: str | None = None


class _Destination(Part):
    credentials: _Credentials | None = None


class _Stream(Part):
    id: int
    data_stream_type: _Type | None = None
    destination: _Destination | None = None
    status: _Status


class EmnifyCallback:
    """Takes the pushes of one account's Data Streamer: static header, no signature."""

    def __init__(self, account: EmnifyAccount) -> None:
        self.account = account

    def authorised(self, caller: Caller) -> bool:
        """Compare the static header with its secret, in constant time."""
        settings = self.account.settings
        given = caller.headers.get(settings.callback_header, "")
        expected = settings.callback_secret.get_secret_value()
        return hmac.compare_digest(given.encode("latin-1", "replace"), expected.encode())

    def signed(self, _method: str, _headers: Mapping[str, str], _body: bytes) -> bool:
        """Pass every body: emnify signs none (emnify's documentation)."""
        return True

    def normalise(self, original: bytes, item: Any, batch: Batch) -> None:
        """File one record; a stream that mixes in events has items that are no usage, which are counted."""
        if isinstance(item, dict) and "event_type" in item and "volume" not in item:
            batch.ignored += 1
            return
        settings = self.account.settings
        record, traits = usage_record(item, mb_bytes=settings.mb_bytes, pro_rata=settings.pro_rata)
        batch.add(record, traits, original)


class StreamWatch:
    """Looks at the stream's status again and again, and tells from it what is covered.

    emnify keeps its records for us while we are away, so a restart of ours makes no gap.
    """

    MISSING: ClassVar[str] = "no usage stream calls {url}: create one there, or set stream_id"

    def __init__(self, account: EmnifyAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = EmnifyApi(account, toolbox.http)
        settings = account.settings
        self._coverage = StreamCoverage(
            account,
            toolbox,
            lag=timedelta(seconds=settings.delivery_lag_s),
            history=timedelta(hours=settings.history_hours),
        )

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
        now = self._toolbox.clock()
        stream = await self._api.stream(self._toolbox.public_url)
        if stream is None or stream.status.id != RUNNING:
            await self._coverage.interrupted(proceed)
            if stream is None:
                raise ProviderError(Failure.CONFIG, self.MISSING.format(url=self._callback_url))
            status = stream.status.description or stream.status.id
            raise ProviderError(
                Failure.PROVIDER,
                f"data stream {stream.id} is {status}, not Running: emnify delivers nothing until it is "
                "resumed or restarted, and keeps a backlog of 7 days at most",
            )
        await self._coverage.running(now, proceed)
        return "the data stream is Running"

    @property
    def _callback_url(self) -> str:
        return callback_url(self._toolbox.public_url, self.account)


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
        """An application token gives a JWT and no refresh token (emnify's documentation)."""
        settings = self._account.settings
        secret = settings.application_token.get_secret_value()
        call = Call("POST", f"{settings.api_base}/api/v1/authenticate", json={"application_token": secret})
        answer = await self._http.call(call)
        token = answer.body.get("auth_token") if isinstance(answer.body, dict) else None
        if not isinstance(token, str):
            raise ProviderError(Failure.PROVIDER, f"{call.place} answers without auth_token")
        return Token(token, jwt_expiry(token))


LIMITS: Final = (
    Limit.window("requests", 2000, 300, Scope.ADDRESS),
    Limit.window("logins", 100, 300, Scope.ADDRESS, path="/authenticate$"),
    Limit.window("month", 10_000_000, 31 * 86_400),
    Limit.rate("sim-stats", 10, 5, path="/sim/[^/]+/stats"),
    Limit.rate("sims", 10, 5, path="/sim$"),
    Limit.rate("sim", 100, 50, path="/sim/[^/]+$"),
    Limit.rate("stats", 10, 5, path="/v[12]/stats"),
    Limit.rate("organisation-stats", 10, 5, path="/organisation/[^/]+/stats"),
    Limit.rate("endpoints", 10, 5, path="/endpoint$"),
    Limit.rate("endpoint", 50, 25, path="/endpoint/[^/]+$"),
    Limit.rate("endpoint-stats", 100, 50, path="/endpoint/[^/]+/stats"),
)
"""Of an address, of an organisation and month, and each path's own (emnify's documentation)."""


class _Emnify:
    settings: type[AccountSettings] = EmnifySettings
    limits: Sequence[Limit] = LIMITS

    def needs(self, account: EmnifyAccount, _sims: int) -> Needs:
        """A look at the stream however many SIMs there are, and a login every 240 minutes."""
        settings = account.settings
        return Needs(
            (
                Need("watch", "/api/v2/data_stream", 1, settings.watch_interval_s, "watch_interval_s"),
                Need("login", "/api/v1/authenticate", 1, 240 * 60, "watch_interval_s"),
            ),
            lag_s=settings.delivery_lag_s,
        )

    def job(self, account: EmnifyAccount, toolbox: Toolbox) -> StreamWatch:
        return StreamWatch(account, toolbox)

    def callback(self, account: EmnifyAccount, _public_url: str) -> EmnifyCallback:
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
