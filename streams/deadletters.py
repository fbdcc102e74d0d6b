"""Dead letters: what cannot be used, kept with its original bytes and the reason (promise P3)."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from streams.errors import DataError
from streams.events import Message
from streams.windows import rfc3339

DEADLETTER_TYPE = "com.simusage.deadletter.v1"

REASONS: Final = {
    "malformed": "the bytes do not have the form that the contract asks for",
    "unknown-tenant": "no tenant is known for this SIM, or the tenant is not configured",
    "beyond-horizon": "the record starts further before its receipt than the correction horizon",
    "conflict": "same identity and revision as another record, with another payload that counts instead",
}


def dead_letter(
    value: bytes,
    error: DataError,
    *,
    origin: str,
    failed_at: datetime,
    tenant: str | None,
    account: str | None,
) -> Message:
    """Wrap original bytes for `usage.deadletters.v1`.

    `origin` says where the bytes came from: `callback:<account>`, `poll:<account>` or
    `<topic>/<partition>/<offset>`. Raises `KeyError` for a reason that is not in `REASONS`.
    """
    REASONS[error.reason]
    digest = hashlib.sha256(b"\0".join((origin.encode(), error.reason.encode(), value))).hexdigest()[:32]
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", digest.encode()),
        ("ce_source", f"//simusage/deadletters/{account or 'unknown'}".encode()),
        ("ce_type", DEADLETTER_TYPE.encode()),
        ("ce_time", rfc3339(failed_at).encode()),
        ("ce_reason", error.reason.encode()),
        ("ce_detail", error.detail[:1024].encode("utf-8", "replace")),
        ("ce_origin", origin.encode()),
        ("content-type", b"application/octet-stream"),
    ]
    if tenant is not None:
        headers.append(("ce_tenant", tenant.encode()))
    if account is not None:
        headers.append(("ce_account", account.encode()))
    return Message(key=(tenant or account or "unknown").encode(), value=value, headers=headers)
