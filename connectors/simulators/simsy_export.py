"""SIMSY's exports: files of rows, sent at once or kept for an hour behind an address of their own."""

import csv
import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connectors.simulators.usage import Clock

REPORTS: Final = ("usage", "bundles", "instances", "endpoints")
LIFE: Final = timedelta(hours=1)


def export_answer(
    report: str, form: str, tenant: str, rows: Sequence[dict[str, Any]], exported_at: str
) -> Response:
    """The file itself. A CSV without rows is a sentence."""
    if form == "json":
        head = {"report_type": report, "tenant": tenant, "exported_at": exported_at}
        return JSONResponse({"export": head | {"record_count": len(rows), "filters": {}}, "data": rows})
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.write("No data found for the specified criteria.")
    return Response(
        text.getvalue(),
        media_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{report}_export.csv"'},
    )


class Exports:
    """Files that can be fetched for an hour by whoever knows their address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[datetime, Response]] = {}

    def keep(self, file: Response, request: Request) -> dict[str, Any]:
        now = self._clock()
        self._kept = {name: held for name, held in self._kept.items() if held[0] > now}
        name = token_hex(16)
        self._kept[name] = now + LIFE, file
        address = str(request.url).rpartition("/")[0] + f"/exports/{name}"
        return {"download_url": address, "expires_at": (now + LIFE).isoformat().replace("+00:00", "Z")}

    async def download(self, request: Request) -> Response:
        ends, file = self._kept.get(request.path_params["name"], (self._clock(), Response()))
        if ends <= self._clock():
            return JSONResponse({"error": "Export not found", "status": 404}, 404)
        return file
