"""KORE's list envelope: one page of items under their name, and `meta` with its neighbours' addresses."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse

from connectors.simulators.kore_errors import UNKNOWN_PARAMETERS, KoreError

Item = TypeVar("Item")

PAGE_PARAMETERS = {"PageSize", "Page", "PageToken"}
PAGE_SIZE_DEFAULT = 50


def refuse_unknown(request: Request, known: set[str]) -> None:
    """Names are case-sensitive; a misspelt filter must not silently widen the answer."""
    if unknown := sorted(set(request.query_params) - known - PAGE_PARAMETERS):
        raise KoreError(f"unknown parameters: {', '.join(unknown)}", UNKNOWN_PARAMETERS)


def page_response(
    request: Request,
    name: str,
    items: Sequence[Item],
    *,
    key_of: Callable[[Item], str],
    render: Callable[[Item], dict[str, Any]],
    largest: int,
    invalid: int | None = None,
) -> JSONResponse:
    """One page. The token names the last item already shown, so that items which appear between two requests
    neither repeat nor displace others. `Page` is the client's own counter: it is echoed and selects nothing.

    `invalid` is the error code of a bad paging parameter.
    """
    size = _integer(request, "PageSize", PAGE_SIZE_DEFAULT, 1, largest, invalid)
    page = _integer(request, "Page", 0, 0, 2**31, invalid)
    first = 0
    if token := request.query_params.get("PageToken"):
        first = _position_after(token, [key_of(item) for item in items], invalid)
    shown = items[first : first + size]

    def address(number: int, after: int) -> str:
        kept = [
            (key, value) for key, value in request.query_params.multi_items() if key not in PAGE_PARAMETERS
        ]
        place = [("PageSize", str(size)), ("Page", str(number))]
        if after > 0:
            place.append(("PageToken", _token(key_of(items[after - 1]))))
        return str(request.url.replace(query=urlencode(kept + place)))

    meta = {
        "key": name,
        "page": page,
        "page_size": size,
        "first_page_url": address(0, 0),
        "previous_page_url": address(max(page - 1, 0), max(first - size, 0)) if first > 0 else None,
        "next_page_url": address(page + 1, first + size) if first + size < len(items) else None,
        "url": str(request.url),
    }
    return JSONResponse({name: [render(item) for item in shown], "meta": meta})


def _integer(request: Request, name: str, default: int, low: int, high: int, invalid: int | None) -> int:
    text = request.query_params.get(name, str(default))
    if text.isascii() and text.isdigit() and low <= int(text[:20]) <= high:
        return int(text)
    raise KoreError(f"{name}: want an integer from {low} to {high}, got {text!r}", invalid)


def _token(key: str) -> str:
    return "PA" + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _position_after(token: str, keys: Sequence[str], invalid: int | None) -> int:
    for position, key in enumerate(keys):
        if _token(key) == token:
            return position + 1
    raise KoreError("PageToken: not one that this API has given out for this request", invalid)
