"""KORE's connection events: what a SIM's data sessions look like as CloudEvents.

Every usage record is one `updated` event, with its own volume and the session's so far. A session is three
hours of a SIM on one network; then it has ended.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connectors.simulators.fleet import seeded
from connectors.simulators.kore_accounts import KoreAccount, make_sid, network_sid
from connectors.simulators.usage import ROAMING_BLOCK_SECONDS, Usage, utc_text

END_AFTER: Final = timedelta(seconds=60)
"""From the end of its three hours until a session is told to have ended."""

PREFIX: Final = "com.kore.iot.supersim.connection."
OLD_PREFIX: Final = "com.twilio.iot.supersim.connection."


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent. `usage` is the session's last, which an `updated` event tells of."""

    kind: str
    usage: Usage
    body: dict[str, Any]


@dataclass(slots=True)
class _Session:
    start: datetime
    last: Usage
    upload: int = 0
    download: int = 0


class KoreSessions:
    """One account's sessions, fed with its usage in the order of its end."""

    def __init__(self, account: KoreAccount, faults: frozenset[str]) -> None:
        self._account = account
        self._faults = faults
        self._open: dict[str, _Session] = {}

    def events_of(self, usages: Iterable[Usage]) -> Iterator[Event]:
        """What KORE tells of more usage."""
        for usage in usages:
            name = usage.session_id or ""
            session = self._open.get(name)
            if session is None:
                session = self._open[name] = _Session(usage.start, usage)
                yield self._event("attachment.accepted", session, usage.start)
                yield self._event("data-session.started", session, usage.start)
            session.last = usage
            session.upload += usage.tx
            session.download += usage.rx
            window = (usage.start, usage.end)
            yield self._event("data-session.updated", session, usage.end, window, (usage.tx, usage.rx))

    def ended(self, as_of: datetime) -> Iterator[Event]:
        """Sessions whose time is over. The last event repeats the whole and adds nothing."""
        for name, session in list(self._open.items()):
            over = _block_end(session.last.end)
            if as_of >= over + END_AFTER:
                del self._open[name]
                yield self._event("data-session.ended", session, over, (session.last.end, over), (0, 0))

    def _event(
        self,
        kind: str,
        session: _Session,
        at: datetime,
        window: tuple[datetime, datetime] | None = None,
        part: tuple[int, int] | None = None,
    ) -> Event:
        usage, odd = session.last, "kore-events-odd" in self._faults
        sid = "EZ" + seeded("event", kind, usage.id, at).hex()
        type_ = (OLD_PREFIX if odd else PREFIX) + kind
        data = self._data(usage, session) | {
            "event_sid": sid,
            "event_type": type_,
            "timestamp": utc_text(at),
        }
        if window is not None and part is not None:
            data |= {
                "data_session_update_start_time": utc_text(window[0]),
                "data_session_update_end_time": utc_text(window[1]),
                "data_upload": part[0],
                "data_download": part[1],
                "data_total": sum(part),
            }
            delta_only = "kore-events-delta-only" in self._faults
            if not (delta_only and seeded("delta", usage.session_id)[0] % 2):
                data |= {
                    "data_session_data_upload": session.upload,
                    "data_session_data_download": session.download,
                    "data_session_data_total": session.upload + session.download,
                }
        if kind.endswith("ended"):
            data["data_session_end_time"] = utc_text(at)
        body = {
            "data": data,
            "id": sid,
            "time": f"{at:%Y-%m-%dT%H:%M:%S.%f}0+00:00" if odd else utc_text(at),
            "type": type_,
            "source": "kore-events",
            "dataschema": "https://events-schemas.korewireless.com/SuperSim.ConnectionEvent/2",
            "specversion": "2.0" if odd else "1.0",
            "datacontenttype": "application/json",
        }
        return Event(kind, usage, body)

    def _data(self, usage: Usage, session: _Session) -> dict[str, Any]:
        sim, network = usage.sim, usage.network
        return {
            "account_sid": self._account.sid,
            "sim_sid": self._account.sim_sid(sim),
            "sim_iccid": sim.iccid,
            "fleet_sid": self._account.fleet_sid(sim.fleet_at(usage.start)),
            "sim_unique_name": sim.name,
            "network": {
                "mcc": network.mcc,
                "mnc": network.mnc,
                "sid": network_sid(network),
                "friendly_name": network.operator,
                "iso_country": network.country,
            },
            "location": None,
            "imsi": f"73212{sim.number:010d}",
            "imei": None,
            "apn": "super",
            "ip_address": "100.64.0.9",
            "rat_type": "4G LTE",
            "data_session_sid": make_sid("PI", usage.session_id or ""),
            "data_session_start_time": utc_text(session.start),
        }


def test_event(number: int) -> dict[str, Any]:
    """What KORE sends to try a sink."""
    return {
        "data": {"test_number": number},
        "id": f"EZ{number:032d}",
        "type": "com.kore.eventstreams.test.event",
        "source": "kore-events",
        "dataschema": "/schemas/test/1",
        "specversion": "1.0",
        "datacontenttype": "application/json",
    }


def _block_end(instant: datetime) -> datetime:
    block = int(instant.timestamp()) // ROAMING_BLOCK_SECONDS
    return datetime.fromtimestamp((block + 1) * ROAMING_BLOCK_SECONDS, UTC)
