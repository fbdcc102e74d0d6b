"""What can be exported, and which question each kind answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from streams.api.export_files import Format
from streams.api.export_inventory import read_bundles, read_endpoints, read_instances
from streams.api.export_jobs import Kind
from streams.api.export_reading import Items, Reading
from streams.api.export_usage import read_usage
from streams.api.service import Service

Read = Callable[[Service, str, Items, Format, datetime], Reading]
"""Checks a tenant's question, asked at an instant, for a format. Raises `InvalidQuestionError`."""

READERS: Final[Mapping[Kind, Read]] = {
    "usage": read_usage,
    "bundles": read_bundles,
    "instances": read_instances,
    "endpoints": read_endpoints,
}
