"""The header that leads to the next page."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from starlette.requests import Request


def next_link(request: Request, cursor: str) -> dict[str, str]:
    """Return `Link` with the same question from a cursor on."""
    items = [item for item in request.query_params.multi_items() if item[0] != "cursor"]
    # The path comes decoded, and a header carries ASCII alone.
    path = quote(request.scope["path"])
    return {"Link": f'<{path}?{urlencode([*items, ("cursor", cursor)])}>; rel="next"'}
