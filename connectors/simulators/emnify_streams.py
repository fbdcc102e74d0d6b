"""Management of emnify's data streams. Only usage streams to REST destinations can be created."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connectors.simulators.data_streamer import DataStream, DataStreamer, StreamStatus
from connectors.simulators.emnify_errors import error, invalid

Handler = Callable[[Request], Awaitable[Response]]

PATH = "/api/v2/data_stream"


def _header(line: str) -> str:
    if not line.partition(":")[0].strip() or ":" not in line:
        raise ValueError('a header has the form "name:value"')
    return line


class _Id(BaseModel):
    id: int


class _UsageType(BaseModel):
    id: Literal[1]


class _Credentials(BaseModel):
    url: Annotated[str, Field(pattern="^https?://")]
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: list[Annotated[str, AfterValidator(_header)]] = []
    size: Annotated[int, Field(ge=1, le=10_000)] = 3000


class _Destination(BaseModel):
    connection_type: Literal["RestAPI"]
    format: Literal["Json"] = "Json"
    credentials: _Credentials


class _NewStream(BaseModel):
    name: str = ""
    data_stream_type: _UsageType
    destination: _Destination


class _Change(BaseModel):
    status: _Id


class EmnifyStreams:
    """The endpoints over the streams there are."""

    def __init__(self, streamer: DataStreamer) -> None:
        self._streamer = streamer

    @property
    def routes(self) -> list[tuple[str, str, Handler]]:
        """Path, method and handler of each."""
        one = PATH + "/{id:int}"
        return [
            (PATH, "GET", self._list_streams),
            (PATH, "POST", self._create_stream),
            (one, "GET", self._on_stream(self._show_stream)),
            (one, "PATCH", self._on_stream(self._change_stream)),
            (one, "DELETE", self._on_stream(self._delete_stream)),
            (one + "/restart", "POST", self._on_stream(self._restart_stream)),
        ]

    async def _list_streams(self, request: Request) -> Response:
        return JSONResponse([_stream_item(stream) for stream in self._streamer.streams.values()])

    async def _create_stream(self, request: Request) -> Response:
        try:
            wanted = _NewStream.model_validate_json(await request.body())
        except ValidationError as wrong:
            return invalid(wrong)
        credentials = wanted.destination.credentials
        headers = [line.partition(":") for line in credentials.headers]
        stream = self._streamer.create(
            name=wanted.name,
            url=credentials.url,
            method=credentials.method,
            headers={name.strip(): value.strip() for name, _, value in headers},
            size=credentials.size,
        )
        return JSONResponse(_stream_item(stream), 201)

    def _on_stream(self, act: Callable[[Request, DataStream], Awaitable[Response]]) -> Handler:
        async def handler(request: Request) -> Response:
            stream = self._streamer.streams.get(request.path_params["id"])
            if stream is None:
                return error(404, 1201, "NotFound", "There is no such data stream")
            return await act(request, stream)

        return handler

    async def _show_stream(self, request: Request, stream: DataStream) -> Response:
        return JSONResponse(_stream_item(stream))

    async def _change_stream(self, request: Request, stream: DataStream) -> Response:
        """Pauses or resumes. A stream in Error stays there until it is restarted."""
        try:
            change = _Change.model_validate_json(await request.body())
        except ValidationError as wrong:
            return invalid(wrong)
        if change.status.id not in {StreamStatus.RUNNING, StreamStatus.PAUSED}:
            return error(422, 1401, "InvalidReference", "status.id: want 1 (Running) or 2 (Paused)")
        if stream.status is StreamStatus.ERROR:
            return error(409, 1400, "StateConflict", "The data stream is in Error: restart it")
        stream.turn(StreamStatus(change.status.id))
        return Response(status_code=202)

    async def _restart_stream(self, request: Request, stream: DataStream) -> Response:
        if stream.status is not StreamStatus.ERROR:
            return error(409, 1400, "StateConflict", "Only a data stream in Error can be restarted")
        stream.turn(StreamStatus.RUNNING)
        return Response(status_code=202)

    async def _delete_stream(self, request: Request, stream: DataStream) -> Response:
        self._streamer.remove(stream)
        return Response(status_code=202)


def _stream_item(stream: DataStream) -> dict[str, Any]:
    credentials = {
        "url": stream.url,
        "method": stream.method,
        "headers": [f"{name}:*****" for name in stream.headers],
        "size": stream.size,
    }
    return {
        "id": stream.id,
        "name": stream.name,
        "data_stream_type": {"id": 1, "description": "Usage Data"},
        "destination": {"connection_type": "RestAPI", "format": "Json", "credentials": credentials},
        "filters": [],
        "relation_resolution": True,
        "status": {"id": int(stream.status), "description": stream.status.name.capitalize()},
    }
