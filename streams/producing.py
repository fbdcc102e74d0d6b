"""How the worker's producer sends: Faust makes producers idempotent for its transactions alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faust
from faust.transport.drivers import aiokafka

from streams.producer import Producer


class _Producer(aiokafka.Producer):
    @property
    def _producer_type(self) -> type[Producer]:
        return Producer


class _IdempotentProducer(_Producer):
    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "enable_idempotence": True}


def produce_safely(app: faust.App, *, idempotent: bool) -> None:
    """Have the application send with our producer; call it before it starts.

    An idempotent one has the broker drop what a retry sends twice: a repeated batch that arrives behind its
    successor would leave an older total as a key's last word.
    """
    transport: Any = app.transport
    transport.Producer = _IdempotentProducer if idempotent else _Producer
