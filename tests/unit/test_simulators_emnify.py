"""emnify's HTTP contract: login, gateway, SIM listing, management of data streams."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from connectors.simulators import Simulators
from tests.unit.simulator_harness import NOW, SetClock, client_of, emnify_client, settings_with

LOGIN = "/emnify/api/v1/authenticate"
SIMS = "/emnify/api/v1/sim"
STREAMS = "/emnify/api/v2/data_stream"


def stream(**credentials: Any) -> dict[str, Any]:
    return {
        "name": "to us",
        "data_stream_type": {"id": 1},
        "destination": {
            "connection_type": "RestAPI",
            "format": "Json",
            "credentials": {
                "url": "http://127.0.0.1:9/usage",
                "headers": ["X-Secret:hush:hush", "X-Other: b"],
            }
            | credentials,
        },
    }


@asynccontextmanager
async def logged_in(clock: SetClock | None = None, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_with(**changes)
    async with client_of(Simulators(settings, clock or SetClock())) as client:
        yield await emnify_client(client, settings)


async def test_an_application_token_buys_a_jwt_of_240_minutes_without_refresh_token() -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        answer = await client.post(LOGIN, json={"application_token": "demo-emnify-application-token"})
    assert answer.status_code == 200
    assert list(answer.json()) == ["auth_token"]
    claims = orjson.loads(base64.urlsafe_b64decode(answer.json()["auth_token"].split(".")[1] + "=="))
    assert claims["exp"] == int(NOW.timestamp()) + 240 * 60


@pytest.mark.parametrize("body", [b'{"application_token":"wrong"}', b"{}", b"[]", b"not json", b""])
async def test_a_failed_login_is_401_with_an_empty_body(body: bytes) -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        answer = await client.post(LOGIN, content=body)
    assert (answer.status_code, answer.content) == (401, b"")


@pytest.mark.parametrize("path", [SIMS, STREAMS, f"{STREAMS}/1"])
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer rubbish", "Basic YTpi"])
async def test_the_gateway_refuses_what_is_no_jwt(path: str, header: str | None) -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        answer = await client.get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["x-amzn-ErrorType"] == "AccessDeniedException"
    assert answer.json() == {"message": "token contains an invalid number of segments"}


async def test_a_forged_jwt_is_refused_and_an_expired_one_by_the_application() -> None:
    clock = SetClock(NOW.replace(microsecond=0))
    async with logged_in(clock) as client:
        head, _, signature = client.headers["Authorization"].split(".")
        claims = base64.urlsafe_b64encode(b'{"exp":99999999999}').decode().rstrip("=")
        forged = await client.get(SIMS, headers={"Authorization": f"{head}.{claims}.{signature}"})
        clock.forward(minutes=239)
        assert (await client.get(SIMS)).status_code == 200
        clock.forward(minutes=1)
        expired = await client.get(SIMS)
    assert (forged.status_code, forged.json()) == (401, {"message": "signature is invalid"})
    assert (expired.status_code, expired.json()["error_code"]) == (401, 1103)


async def test_sims_of_all_organisations_are_listed_with_19_and_20_digits() -> None:
    async with logged_in() as client:
        answer = await client.get(SIMS)
    sims = answer.json()
    assert len(sims) == 3 + 3 + 6
    assert {sim["customer_org"]["id"] for sim in sims} == {1001, 1002, 1003}
    for sim in sims:
        assert len(sim["iccid"]) == 19
        assert sim["iccid_with_luhn"][:-1] == sim["iccid"]
        assert sim["status"] == {"id": 1, "description": "Activated"}
        assert sim["production_date"].endswith("+0000")
    assert "Link" not in answer.headers
    assert answer.headers["X-Total-Count"] == "12"


@pytest.mark.parametrize(
    ("params", "page", "per_page", "pages", "first", "count"),
    [
        ({}, 1, 2000, 1, 0, 12),
        ({"per_page": "5"}, 1, 5, 3, 0, 5),
        ({"per_page": "5", "page": "3"}, 3, 5, 3, 10, 2),
        ({"per_page": "5", "page": "4"}, 3, 5, 3, 10, 2),
        ({"per_page": "5", "page": "0"}, 1, 5, 3, 0, 5),
        ({"per_page": "0"}, 1, 2000, 1, 0, 12),
        ({"per_page": "9999"}, 1, 2500, 1, 0, 12),
    ],
)
async def test_the_listing_pages_by_headers_and_repeats_its_last_page(
    params: dict[str, str], page: int, per_page: int, pages: int, first: int, count: int
) -> None:
    async with logged_in() as client:
        everything = (await client.get(SIMS)).json()
        answer = await client.get(SIMS, params=params)
    headers = answer.headers
    assert answer.json() == everything[first : first + count]
    assert headers["X-Current-Page"] == str(page)
    assert headers["X-Count-Per-Page"] == str(per_page)
    assert headers["X-Total-Pages"] == str(pages)
    assert ("Link" in headers) == (pages > 1)


async def test_links_lead_to_the_neighbouring_pages() -> None:
    async with logged_in() as client:
        answer = await client.get(SIMS, params={"per_page": "5", "page": "2"})
        following = await client.get(answer.links["next"]["url"])
    assert set(answer.links) == {"first", "prev", "next", "last"}
    assert following.headers["X-Current-Page"] == "3"


@pytest.mark.parametrize("params", [{"page": "x"}, {"q": "status:1"}, {"sort": "-id"}])
async def test_listing_criteria_that_are_not_understood_are_refused(params: dict[str, str]) -> None:
    async with logged_in() as client:
        answer = await client.get(SIMS, params=params)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 1301)


async def test_a_stream_is_created_and_shown_with_its_headers_masked() -> None:
    async with logged_in() as client:
        created = await client.post(STREAMS, json=stream(size=7))
        listed = (await client.get(STREAMS)).json()
        shown = (await client.get(f"{STREAMS}/{created.json()['id']}")).json()
    assert created.status_code == 201
    assert listed == [shown]
    assert created.json() == shown
    assert shown["data_stream_type"]["id"] == 1
    assert shown["status"] == {"id": 1, "description": "Running"}
    credentials = shown["destination"]["credentials"]
    assert credentials["size"] == 7
    assert credentials["headers"] == ["X-Secret:*****", "X-Other:*****"]
    assert "hush" not in created.text


async def test_the_configured_stream_exists_from_the_start_with_the_default_batch_size() -> None:
    async with logged_in(emnify={"callback_url": "http://127.0.0.1:9/x"}) as client:
        [shown] = (await client.get(STREAMS)).json()
    assert shown["destination"]["credentials"] == {
        "url": "http://127.0.0.1:9/x",
        "method": "POST",
        "headers": ["X-Callback-Secret:*****"],
        "size": 3000,
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        stream() | {"data_stream_type": {"id": 2}},
        stream(size=0),
        stream(size=10_001),
        stream(url="ftp://x"),
        stream(method="GET"),
        stream(headers=["no colon"]),
        {"data_stream_type": {"id": 1}, "destination": {"connection_type": "S3", "credentials": {}}},
    ],
)
async def test_a_bad_stream_is_refused_in_the_applications_error_shape(body: dict[str, Any]) -> None:
    async with logged_in() as client:
        answer = await client.post(STREAMS, json=body)
        listed = (await client.get(STREAMS)).json()
    problem = answer.json()
    assert answer.status_code == 422
    assert (problem["error_code"], problem["error_token"]) == (1400, "InputValidationFailed")
    assert problem["errors"][0]["error_code"] in {1402, 1403}
    assert listed == []


async def test_a_stream_pauses_resumes_and_is_deleted() -> None:
    async with logged_in() as client:
        url = f"{STREAMS}/{(await client.post(STREAMS, json=stream())).json()['id']}"
        for status in (2, 1):
            answer = await client.patch(url, json={"status": {"id": status}})
            assert (answer.status_code, answer.content) == (202, b"")
            assert (await client.get(url)).json()["status"]["id"] == status
        assert (await client.patch(url, json={"status": {"id": 3}})).status_code == 422
        assert (await client.patch(url, json={"name": "x"})).status_code == 422
        assert (await client.post(f"{url}/restart")).status_code == 409
        assert (await client.delete(url)).status_code == 202
        gone = await client.get(url)
    assert (gone.status_code, gone.json()["error_code"]) == (404, 1201)


async def test_an_address_may_ask_2000_times_in_five_minutes() -> None:
    clock = SetClock()
    async with logged_in(clock) as client:
        for _ in range(1999):
            answer = await client.get(STREAMS)
        assert answer.status_code == 200
        refused = await client.get(STREAMS)
        clock.forward(minutes=5)
        again = await client.get(STREAMS)
        status = (await client.get("/control/status")).json()["emnify"]
    assert (refused.status_code, refused.json()["error_token"]) == (429, "TooManyRequests")
    assert again.status_code == 200
    assert (status["requests"], status["refused"]) == (2002, 1)
