"""The query endpoint fuzzed over its own OpenAPI: no 5xx, and nothing that the OpenAPI does not say.

Every operation of the OpenAPI is taken, so that a new route is fuzzed without a line here. A failure names
the seed of its run, and `--seed` repeats it. `make fuzz` draws a new one and makes at least 2000 requests.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import Redis
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi.checks import positive_data_acceptance

from streams.api.app import create_app
from streams.settings import Settings, TokenSettings
from tests.integration.api_kit import NOW, TENANTS, bearer, pair, settings
from tests.integration.tenants_kit import CONFIGURED, OF, write_tenants

SHORT_CASES: Final = 900
LONG_CASES: Final = 3000
FIXED_SEED: Final = 20261121

UNWANTED_CHECKS: Final = [positive_data_acceptance]
"""A question may fit the schema and still break a rule that no schema says, as that `from` is aligned."""

OPERATOR: Final = {"Authorization": "Bearer operator-token"}
CREDENTIALS: Final = [*map(bearer, TENANTS), *map(pair, TENANTS), OPERATOR]
NOBODY: Final[dict[str, str]] = {}

SENSIBLE: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "from": st.sampled_from(["2026-11-01", "2026-11-19T00:00:00Z", "2026-11-20T07:00:00Z"]),
    "to": st.sampled_from(["2026-11-20", "2026-11-21T00:00:00Z", "2026-11-21T08:30:00Z"]),
    **{name: st.sampled_from([OF[tenant][name] for tenant in TENANTS]) for name in OF[TENANTS[0]]},
    "endpoint_id": st.sampled_from([OF[tenant]["endpoint"] for tenant in TENANTS]),
}
"""Values of parameters that get behind the checks, to which what hypothesis draws hardly ever does."""


def configuration(redis_url: str) -> Settings:
    """Two tenants, and a credential that may look at operations."""
    plain = settings(redis_url, accounts=CONFIGURED)
    operator = TokenSettings(tenant=TENANTS[0], bearer=SecretStr("operator-token"), ops=True)
    serve = plain.serve.model_copy(update={"tokens": (*plain.serve.tokens, operator), "exports_kept": 10_000})
    return plain.model_copy(update={"serve": serve})


def operations() -> dict[str, bool]:
    """Return every operation of the OpenAPI, and whether it takes anything that could be drawn."""
    paths = create_app(configuration("redis://127.0.0.1:1/0")).openapi()["paths"]
    return {
        f"{method.upper()} {path}": bool(told.get("parameters") or told.get("requestBody"))
        for path, methods in sorted(paths.items())
        for method, told in sorted(methods.items(), reverse=True)
    }


OPERATIONS: Final = operations()


async def fill(redis_url: str) -> None:
    """Write what both tenants have."""
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
        await write_tenants(redis)


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[Any]:
    """The OpenAPI of the application, which runs in this process over a real Redis."""
    asyncio.run(fill(redis_url))
    load_all_checks()
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    app = create_app(configuration(redis_url), clock=lambda: NOW)
    yield schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    shutdown_lifespans()


@pytest.fixture(scope="module")
def sent() -> Counter[str]:
    """Requests by operation, and answers by class of status."""
    return Counter()


@pytest.fixture(scope="module")
def exports() -> list[dict[str, str]]:
    """Path and query of the exports that were made so far, which nobody could guess."""
    return []


@pytest.fixture(scope="module")
def cases(pytestconfig: pytest.Config) -> int:
    """Requests of the whole run."""
    return LONG_CASES if pytestconfig.getoption("--long") else SHORT_CASES


@pytest.fixture(scope="module")
def fuzz_seed(pytestconfig: pytest.Config) -> int:
    """The seed of the run."""
    given: int | None = pytestconfig.getoption("--seed")
    if given is None:
        return random.randrange(2**32) if pytestconfig.getoption("--long") else FIXED_SEED
    return given


@pytest.mark.timeout(900)
@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_finds_a_fault(
    api: Any, sent: Counter[str], exports: list[dict[str, str]], cases: int, fuzz_seed: int, label: str
) -> None:
    """Neither the boundary values of the OpenAPI nor what hypothesis draws, good or bad."""
    print(f"repeat with --seed {fuzz_seed}")  # noqa: T201 - pytest shows it with a failure
    operation = api.find_operation_by_label(label)
    share = -(-cases // sum(OPERATIONS.values()))

    def ask(case: Any, credential: dict[str, str]) -> None:
        response = case.call_and_validate(headers=credential, excluded_checks=UNWANTED_CHECKS)
        sent.update([label, f"{response.status_code // 100}xx"])
        if response.status_code in {200, 202} and label.endswith(("/v1/exports", "/v1/exports/{id}")):
            job = response.json()
            exports.append({"id": job["id"], **dict(parse_qsl(urlsplit(job["url"] or "").query))})

    boundaries = api.iter_coverage_cases(
        operation,
        generation_modes=list(GenerationMode),
        generation_config=api.config.generation_for(operation=operation),
    )
    for case, credential in zip(islice(boundaries, share // 4), cycle([*CREDENTIALS, NOBODY]), strict=False):
        ask(case, credential)

    def fuzz(mode: GenerationMode, examples: int) -> None:
        @hypothesis.seed(fuzz_seed)
        @hypothesis.settings(
            max_examples=examples,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), data=st.data())
        def attempt(case: Any, data: st.DataObject) -> None:
            # In a question that is to be refused they could mend the very thing that is wrong.
            if case.meta.generation.mode is GenerationMode.POSITIVE:
                make_sensible(case, data, exports)
            else:
                hypothesis.assume(is_sent_as_drawn(case.query))
            ask(case, data.draw(st.sampled_from([*CREDENTIALS, NOBODY])))

        attempt()

    if OPERATIONS[label]:
        fuzz(GenerationMode.POSITIVE, share // 2)
        # Not everything has a value that breaks its schema.
        with suppress(hypothesis.errors.Unsatisfiable):
            fuzz(GenerationMode.NEGATIVE, share // 4)


def is_sent_as_drawn(query: Mapping[str, Any]) -> bool:
    """Whether what is wrong in a query gets there: nothing and objects are left out, or are sent as text."""
    values = [each for value in query.values() for each in (value if isinstance(value, list) else [value])]
    return not any(isinstance(value, dict) or value is None for value in values)


def make_sensible(case: Any, data: st.DataObject, exports: Sequence[Mapping[str, str]]) -> None:
    """Give some of the parameters values that lead behind the checks."""
    pick, known, paged = data.draw(st.integers(0, 9999)), data.draw(st.booleans()), data.draw(st.booleans())
    for values in (case.query, case.path_parameters):
        for name in sorted(values.keys() & SENSIBLE.keys()):
            if data.draw(st.booleans()):
                value = data.draw(SENSIBLE[name])
                values[name] = [value] if isinstance(values[name], list) else value
    if "/exports/" in case.path and exports and known:
        linked = [each for each in exports if "signature" in each]
        fitting = linked if linked and "signature" in case.query else exports
        export = fitting[pick % len(fitting)]
        case.path_parameters["id"] = export["id"]
        case.query.update({name: export[name] for name in case.query.keys() & export.keys()})
    if not paged:
        case.query.pop("cursor", None)


def test_the_requests_were_many_and_got_behind_the_checks(
    sent: Counter[str], cases: int, request: pytest.FixtureRequest
) -> None:
    """The run made its requests, and enough of them were answered with data."""
    chosen = {
        label for label in OPERATIONS if any(f"[{label}]" in item.name for item in request.session.items)
    }
    assert sent.keys() >= chosen
    if left_out := OPERATIONS.keys() - chosen:
        pytest.skip(f"the selection of tests leaves out: {', '.join(sorted(left_out))}")
    requests = sum(sent[label] for label in OPERATIONS)
    assert requests >= cases * 2 // 3
    assert sent["2xx"] >= requests // 10
