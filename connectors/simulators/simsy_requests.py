"""What every SIMSY request shares: its period, its page, and the body of a refusal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from connectors.simulators.settings import SimsySettings
from connectors.simulators.simsy_accounts import SimsyAccount
from connectors.simulators.simsy_usage import Listed

PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1000
PERIOD: Final = timedelta(days=30)


class SimsyError(Exception):
    """A request that SIMSY answers with its error body."""

    def __init__(self, status: int, error: str, detail: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "status": status} | ({"detail": detail} if detail else {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that was let in."""

    request: Request
    account: SimsyAccount
    settings: SimsySettings
    now: datetime

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query_params)

    @property
    def worker(self) -> bool:
        return self.settings.profile == "worker"

    def period(self) -> tuple[datetime, datetime]:
        """Thirty days by default; the published server has no default."""
        beginning = datetime.fromtimestamp(0, UTC) if self.worker else self.now - PERIOD
        start, end = (self.query.get(name) for name in ("from", "to"))
        return (parse_instant(start) if start else beginning, parse_instant(end) if end else self.now)

    def within(self, rows: Sequence[Listed]) -> list[Listed]:
        """The rows of the period; the published server includes its end."""
        start, end = self.period()
        return [
            row
            for row in rows
            if start <= row.timestamp and (row.timestamp < end or (self.worker and row.timestamp == end))
        ]

    def page(self, items: Sequence[Any], render: Callable[[Any], dict[str, Any]]) -> JSONResponse:
        """One page by its number: what has turned up since the page before moves everything along."""
        page = self._count("page", 1, 2**31)
        size = self._count("per_page", PAGE_SIZE, PAGE_SIZE_MAX) if self.worker else PAGE_SIZE
        shown = items[(page - 1) * size : page * size]
        pagination = {
            "page": page,
            "per_page": size,
            "total": len(items),
            "total_pages": -(-len(items) // size),
        }
        return JSONResponse({"data": [render(item) for item in shown], "pagination": pagination})

    def _count(self, name: str, default: int, largest: int) -> int:
        text = self.query.get(name, str(default))
        if text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= largest:
            return int(text)
        raise SimsyError(400, "Invalid parameters", f"{name}: want a number from 1 to {largest}")


def parse_instant(text: str) -> datetime:
    """Read a query's instant. The published server hands it to its database, which fails."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise SimsyError(500, "Internal error") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
