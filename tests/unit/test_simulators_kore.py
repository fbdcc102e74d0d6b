"""KORE's HTTP contract: tokens, scope, refusals, paging and lists."""

import pytest

from connectors.simulators import Simulators
from connectors.simulators.fleet import NETWORKS
from tests.unit.simulator_harness import NOW, SetClock, all_pages, client_of, kore_client, settings_with

USAGE = "/kore/v1/UsageRecords"
TOKEN = "/kore/api-services/v1/auth/token"
TWO_DAYS = {"StartTime": "2025-05-07T00:00:00Z", "EndTime": "2025-05-09T00:00:00Z"}
ALL_HOURS = {"StartTime": "2025-05-07T00:00:00Z", "EndTime": "2025-05-09T11:00:00Z"}
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "demo-kore-acme",
    "client_secret": "demo-kore-acme-secret",
}
NO_ACCESS = {
    "message": "User is not authorized to access this resource with an explicit deny",
    "error": "Invalid or expired token",
}


async def test_a_token_is_given_for_form_encoded_client_credentials() -> None:
    settings = settings_with(kore={"token_lifetime_seconds": 1234})
    async with client_of(Simulators(settings, SetClock())) as client:
        answer = await client.post(TOKEN, data=CREDENTIALS)
    body = answer.json()
    assert answer.status_code == 200
    assert (body["expires_in"], body["token_type"]) == (1234, "Bearer")
    assert set(body) == {"access_token", "expires_in", "token_type", "scope"}


@pytest.mark.parametrize(
    "wrong",
    [{"client_secret": "x"}, {"client_id": "x"}, {"client_id": "demo-kore-globex"}, {"client_secret": "ü"}],
)
async def test_wrong_credentials_are_unauthorized(wrong: dict[str, str]) -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        answer = await client.post(TOKEN, data=CREDENTIALS | wrong)
    assert answer.status_code == 401
    assert answer.json() == {
        "error": "unauthorized_client",
        "error_description": "Invalid client or Invalid client credentials",
    }


async def test_credentials_in_json_or_of_another_grant_are_a_bad_request() -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        as_json = await client.post(TOKEN, json=CREDENTIALS)
        password = await client.post(TOKEN, data=CREDENTIALS | {"grant_type": "password"})
    assert (as_json.status_code, password.status_code) == (400, 400)
    assert password.json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("path", ["UsageRecords", "Sims", "Networks", "Fleets"])
async def test_an_expired_token_is_forbidden_on_every_resource(path: str) -> None:
    settings, clock = settings_with(), SetClock(NOW.replace(microsecond=0))
    async with client_of(Simulators(settings, clock)) as client:
        await kore_client(client, settings)
        clock.forward(seconds=3599)
        params = TWO_DAYS if path == "UsageRecords" else {}
        assert (await client.get(f"/kore/v1/{path}", params=params)).status_code == 200
        clock.forward(seconds=1)
        answer = await client.get(f"/kore/v1/{path}")
    assert (answer.status_code, answer.json()) == (403, NO_ACCESS)


@pytest.mark.parametrize("header", ["Bearer rubbish", "Bearer a.b.c", "Basic QUM6c2VjcmV0"])
async def test_a_token_of_nobody_is_forbidden(header: str) -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        answer = await client.get(USAGE, headers={"Authorization": header})
    assert (answer.status_code, answer.json()) == (403, NO_ACCESS)


async def test_no_token_at_all_is_unauthorized() -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        assert (await client.get(USAGE)).status_code == 401


async def test_an_account_never_sees_anything_of_another() -> None:
    settings, simulators = settings_with(), Simulators(settings_with(), SetClock())
    seen: dict[str, dict[str, set[str]]] = {}
    async with client_of(simulators) as client:
        for tenant in ("acme", "globex"):
            await kore_client(client, settings, tenant)
            sims = await all_pages(client, "/kore/v1/Sims", "sims")
            fleets = await all_pages(client, "/kore/v1/Fleets", "fleets")
            rows = await all_pages(client, USAGE, "usage_records", Group="sim", **TWO_DAYS)
            seen[tenant] = {
                "sims": {sim["sid"] for sim in sims},
                "fleets": {fleet["sid"] for fleet in fleets},
                "accounts": {item["account_sid"] for item in [*sims, *fleets, *rows]},
                "users": {row["sim_sid"] for row in rows},
            }
            assert all(sim["unique_name"].startswith(tenant) for sim in sims)
        for kind, of_acme in seen["acme"].items():
            assert of_acme
            assert not of_acme & seen["globex"][kind], kind
        assert seen["acme"]["users"] <= seen["acme"]["sims"]
        foreign = await client.get(USAGE, params=TWO_DAYS | {"Sim": min(seen["acme"]["sims"])})
    assert foreign.json()["code"] == 83600


async def test_a_misaligned_request_is_refused_in_the_documented_envelope() -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        answer = await client.get(USAGE, params=TWO_DAYS | {"EndTime": "2025-05-08T10:00:01Z"})
    assert answer.status_code == 400
    assert answer.json() == {
        "status": 400,
        "message": "StartTime and EndTime must fall on a UTC hour",
        "code": 83602,
        "more_info": "https://docs.korewireless.com/errors/83602",
    }


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"Granularity": "minute"}, 83600),
        ({"Group": "isocountry"}, 83600),
        ({"Sim": "HS00"}, 83600),
        ({"Fleet": "nobody"}, 83600),
        ({"Network": "Telekom Deutschland"}, 83600),
        ({"IsoCountry": "de"}, 83600),
        ({"StartTime": "yesterday"}, 83600),
        ({"PageSize": "250"}, 83600),
        ({"PageSize": "0"}, 83600),
        ({"Page": "-1"}, 83600),
        ({"PageToken": "PAx"}, 83600),
        ({"group": "sim"}, 20001),
        ({"Granularity": "day", "EndTime": "2025-05-09T01:00:00Z"}, 83601),
        ({"Granularity": "hour", "EndTime": "2025-05-09T01:00:01Z"}, 83602),
        ({"Group": "sim", "StartTime": "2025-04-01T00:00:00Z"}, 83603),
        ({"Granularity": "hour", "StartTime": "2025-04-01T00:00:00Z"}, 83604),
        ({"StartTime": "2023-11-01T00:00:00Z"}, 83605),
    ],
)
async def test_a_bad_parameter_is_refused_with_its_code(params: dict[str, str], code: int) -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        answer = await client.get(USAGE, params=TWO_DAYS | params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_the_legacy_flag_of_an_account_lets_misaligned_times_pass() -> None:
    legacy = {"client_id": "a", "client_secret": "a", "legacy_alignment": True}
    settings = settings_with(
        kore={"clients": {"acme": legacy, "globex": {"client_id": "g", "client_secret": "g"}}}
    )
    params = {"StartTime": "2025-05-08T00:30:00Z", "EndTime": "2025-05-08T10:30:00Z", "Granularity": "hour"}
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        rows = await all_pages(client, USAGE, "usage_records", **params)
        await kore_client(client, settings, "globex")
        refused = await client.get(USAGE, params=params)
    assert rows[-1]["period"]["start_time"] == "2025-05-08T01:00:00Z"
    assert rows[0]["period"]["end_time"] == "2025-05-08T11:00:00Z"
    assert refused.json()["code"] == 83602


async def test_pages_follow_one_another_verbatim_from_zero_and_back() -> None:
    settings = settings_with()
    params = TWO_DAYS | {"Granularity": "hour", "Group": "network"}
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        whole = await all_pages(client, USAGE, "usage_records", PageSize="249", **params)
        default = (await client.get(USAGE, params=params)).json()
        assert default["meta"]["page_size"] == len(default["usage_records"]) == 50
        url, pages = default["meta"]["first_page_url"].replace("PageSize=50", "PageSize=7"), []
        while url is not None:
            body = (await client.get(url)).json()
            pages.append(body)
            url = body["meta"]["next_page_url"]
        back = (await client.get(pages[2]["meta"]["previous_page_url"])).json()
    assert [page["meta"]["page"] for page in pages] == list(range(len(pages)))
    assert [row for page in pages for row in page["usage_records"]] == whole
    assert all(len(page["usage_records"]) == 7 for page in pages[:-1])
    assert pages[0]["meta"]["previous_page_url"] is None
    assert pages[0]["meta"]["key"] == "usage_records"
    assert pages[0]["meta"]["next_page_url"].startswith("http://sim.test/kore/v1/UsageRecords?")
    assert "PageToken=" in pages[0]["meta"]["next_page_url"]
    assert back["usage_records"] == pages[1]["usage_records"]


async def test_page_without_token_is_mere_client_state() -> None:
    settings = settings_with()
    params = TWO_DAYS | {"Granularity": "hour", "Group": "network"}
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        first = (await client.get(USAGE, params=params)).json()
        counted = (await client.get(USAGE, params=params | {"Page": "1"})).json()
    assert counted["usage_records"] == first["usage_records"]
    assert counted["meta"]["page"] == 1


async def test_rows_that_appear_between_two_pages_neither_repeat_nor_displace_others() -> None:
    settings, clock = settings_with(), SetClock()
    params = ALL_HOURS | {"Granularity": "hour", "Group": "sim", "EndTime": "2025-05-09T12:00:00Z"}
    async with client_of(Simulators(settings, clock)) as client:
        await kore_client(client, settings)
        expected = await all_pages(client, USAGE, "usage_records", **params)
        first = (await client.get(USAGE, params=params)).json()
        clock.forward(minutes=45)
        second = (await client.get(first["meta"]["next_page_url"])).json()
    keys = [
        (row["period"]["start_time"], row["sim_sid"])
        for row in first["usage_records"] + second["usage_records"]
    ]
    assert keys == [(row["period"]["start_time"], row["sim_sid"]) for row in expected[: len(keys)]]


async def test_sims_map_sids_to_iccids_and_can_be_filtered() -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        sims = await all_pages(client, "/kore/v1/Sims", "sims", PageSize="2")
        by_iccid = await all_pages(client, "/kore/v1/Sims", "sims", Iccid=sims[1]["iccid"])
        by_fleet = await all_pages(client, "/kore/v1/Sims", "sims", Fleet="acme-trackers")
        inactive = await all_pages(client, "/kore/v1/Sims", "sims", Status="inactive")
        too_many = await client.get("/kore/v1/Sims", params={"PageSize": "1001"})
    assert len(sims) == 3
    required = {"sid", "unique_name", "account_sid", "iccid", "status", "fleet_sid", "url", "links"}
    assert all(required <= set(sim) for sim in sims)
    assert all(sim["sid"].startswith("HS") and len(sim["sid"]) == 34 for sim in sims)
    assert all(len(sim["iccid"]) == 20 for sim in sims)
    assert by_iccid == [sims[1]]
    assert {sim["fleet_sid"] for sim in by_fleet} == {by_fleet[0]["fleet_sid"]}
    assert 0 < len(by_fleet) < 3
    assert inactive == []
    assert too_many.status_code == 400


async def test_networks_and_fleets_are_listed_with_their_documented_fields() -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        networks = await all_pages(client, "/kore/v1/Networks", "networks", PageSize="3")
        american = await all_pages(client, "/kore/v1/Networks", "networks", IsoCountry="US")
        fleets = await all_pages(client, "/kore/v1/Fleets", "fleets")
    identifiers = [[f"{pair['mcc']}-{pair['mnc']}" for pair in item["identifiers"]] for item in networks]
    assert [codes[0] for codes in identifiers] == [network.code for network in NETWORKS]
    assert any(len(codes) > 1 for codes in identifiers)
    assert all(item["sid"].startswith("HW") for item in networks)
    assert {item["iso_country"] for item in american} == {"US"}
    assert [fleet["unique_name"] for fleet in fleets] == ["acme-meters", "acme-trackers"]
    assert all(fleet["sid"].startswith("HF") and fleet["data_limit"] for fleet in fleets)
