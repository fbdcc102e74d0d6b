"""How the worker's producer sends: Faust makes producers idempotent for its transactions alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Producer


class _Producer(Producer):
    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "enable_idempotence": True}


def produce_idempotently(app: faust.App) -> None:
    """Have the broker drop what a retry sends twice; call it before the application starts.

    A repeated batch that arrives behind its successor would leave an older total as a key's last word.
    """
    transport: Any = app.transport
    transport.Producer = _Producer
