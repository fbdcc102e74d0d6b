"""The Quix Streams peer: newest revision of every identity, and bytes by tenant and hour, changelogged.

Runs in an environment of its own. Arguments: bootstrap servers, topic, consumer group, records to wait for,
state folder. Prints a line of JSON whenever the count has moved, and ends once all records are processed.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import orjson

TELL_EVERY_S = 0.1


def main() -> None:
    """Fold the topic."""
    from quixstreams import Application  # type: ignore[import-not-found]

    kafka, topic, group, records, folder = sys.argv[1:]
    wanted = int(records)
    app = Application(
        broker_address=kafka,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        commit_interval=1.0,
        loglevel="WARNING",
    )
    seen, told = 0, 0.0

    def fold(value: bytes, state: Any) -> None:
        nonlocal seen, told
        event = orjson.loads(value)
        account = event["account"]
        changes: dict[str, int] = {}
        for record in event["records"]:
            identity = f"{account}|{record['identity']}"
            known = state.get(identity)
            hour, total, revision = record["start"][:13], record["total"], record["revision"]
            if known is not None:
                if known[0] >= revision:
                    continue
                changes[known[2]] = changes.get(known[2], 0) - known[1]
            state.set(identity, [revision, total, hour])
            changes[hour] = changes.get(hour, 0) + total
        for hour, change in changes.items():
            state.set(hour, state.get(hour, 0) + change)
        seen += len(event["records"])
        now = time.monotonic()
        if now - told >= TELL_EVERY_S or seen >= wanted:
            told = now
            sys.stdout.write(f'{{"at": {now}, "records": {seen}}}\n')
            sys.stdout.flush()
            if seen >= wanted:
                os._exit(0)

    source = app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(source).update(fold, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
