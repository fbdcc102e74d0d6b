"""What a laptop run writes into its folder: configuration, secrets by reference, addresses for scripts."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from connectors.demo.embedded import HOST, free_port
from connectors.simulators.fleet import EMNIFY_ACCOUNT, ONOMONDO_ACCOUNT, TENANTS
from connectors.simulators.simsy_usage import TADIG
from streams.errors import ConfigError

_MARKER = ".simusage-run"
"""The lock of a run; its presence also shows that what stands beside it is ours to replace."""

_FILES = (
    "bin",
    "logs",
    "pids",
    "secrets",
    "endpoints.json",
    "endpoints.part",
    "simusage.toml",
    "simulators.toml",
)

KORE_TENANTS = tuple(tenant for tenant in TENANTS if tenant.kore_account is not None)
SIMSY_TENANTS = tuple(tenant for tenant in TENANTS if tenant.simsy_account is not None)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder for this run and clear what an earlier one left. Refuses one that is in use."""
    marker = folder / _MARKER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [name for name in _FILES if (folder / name).exists()] if not marker.exists() else []
        if foreign:
            raise ConfigError(
                "--data",
                str(folder),
                f"holds {', '.join(foreign)}, which no run of simusage made: name another folder",
            )
        lock = marker.open("a+", encoding="ascii")
    except OSError as error:
        raise ConfigError("--data", str(folder), f"cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                "--data",
                str(folder),
                f"another run uses it (process {lock.read().strip() or 'unknown'}): end that one, "
                "or name another folder",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        for name in _FILES:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        yield


@dataclass(frozen=True, slots=True)
class Credential:
    """What a demo tenant asks with: either the bearer token or the header pair."""

    tenant: str
    bearer: str
    client_id: str
    client_secret: str


def _credentials() -> dict[str, Credential]:
    return {
        tenant.name: Credential(
            tenant.name, secrets.token_hex(20), f"{tenant.name}-demo", secrets.token_urlsafe(24)
        )
        for tenant in TENANTS
    }


@dataclass(frozen=True, slots=True)
class Layout:
    """Files and addresses of one run; the secrets are random and new each time."""

    folder: Path
    kafka: str
    redis: str
    """The Redis URL."""
    live_from: datetime
    """When history ends. Fixed for the run, so that restarted simulators tell the same story."""
    simulators_port: int = field(default_factory=free_port)
    callbacks_port: int = field(default_factory=free_port)
    worker_port: int = field(default_factory=free_port)
    archive_port: int = field(default_factory=free_port)
    query_port: int = field(default_factory=free_port)
    credentials: dict[str, Credential] = field(default_factory=_credentials, repr=False)

    @property
    def config(self) -> Path:
        """The configuration of connect, worker and serve."""
        return self.folder / "simusage.toml"

    @property
    def simulators_config(self) -> Path:
        """The simulators' own configuration."""
        return self.folder / "simulators.toml"

    @property
    def endpoints(self) -> Path:
        """The addresses and tokens, for scripts."""
        return self.folder / "endpoints.json"

    @property
    def query_url(self) -> str:
        """Base URL of the query endpoint."""
        return f"http://{HOST}:{self.query_port}"

    @property
    def simulators_url(self) -> str:
        """Base URL of the simulators."""
        return f"http://{HOST}:{self.simulators_port}"

    @property
    def callbacks_url(self) -> str:
        """Base URL of the callback receiver."""
        return f"http://{HOST}:{self.callbacks_port}"

    @property
    def worker_url(self) -> str:
        """Base URL of what the worker says of itself."""
        return f"http://{HOST}:{self.worker_port}"

    @property
    def archive_url(self) -> str:
        """Base URL of the archive's health."""
        return f"http://{HOST}:{self.archive_port}"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        return self.folder / "logs" / f"{name}.log"

    def write(self) -> None:
        """Write secrets and both configurations."""
        names = ["emnify-application-token", "emnify-callback-secret"]
        names += ["onomondo-api-token", "onomondo-callback-token"]
        names += [f"{tenant.kore_account}-client-secret" for tenant in KORE_TENANTS]
        names += [f"{tenant.simsy_account}-client-secret" for tenant in SIMSY_TENANTS]
        values = {name: secrets.token_hex(20) for name in names}
        for credential in self.credentials.values():
            values[f"serve-{credential.tenant}-bearer"] = credential.bearer
            values[f"serve-{credential.tenant}-client-secret"] = credential.client_secret
        for name, value in values.items():
            _write_private(self._secret(name), value)
        self.config.write_text(self._simusage_toml(), encoding="utf-8")
        self.simulators_config.write_text(self._simulators_toml(), encoding="utf-8")

    def publish_endpoints(self) -> None:
        """Let `endpoints.json` appear, complete or not at all; it holds tokens, so for the owner only."""
        body = {
            "query": self.query_url,
            "tokens": {name: credential.bearer for name, credential in self.credentials.items()},
            "kafka": self.kafka,
            "redis": self.redis.removeprefix("redis://").partition("/")[0],
            "simulators": self.simulators_url,
        }
        draft = self.endpoints.with_suffix(".part")
        _write_private(draft, json.dumps(body, indent=2) + "\n")
        draft.replace(self.endpoints)

    def withdraw_endpoints(self) -> None:
        """Remove `endpoints.json`: queries can no longer be answered."""
        self.endpoints.unlink(missing_ok=True)

    def _secret(self, name: str) -> Path:
        return self.folder / "secrets" / name

    def _reference(self, name: str) -> str:
        return _text(f"file:{self._secret(name)}")

    def _simusage_toml(self) -> str:
        rules = "".join(
            f"  {{ organisation = {_text(str(tenant.organisation_id))}, tenant = {_text(tenant.name)} }},\n"
            for tenant in TENANTS
        )
        tags = "".join(
            f"  {{ tag = {_text(tenant.name)}, tenant = {_text(tenant.name)} }},\n" for tenant in TENANTS
        )
        parts = [
            "# Written anew by every `simusage run --demo`.\n",
            f"tenants = [{', '.join(_text(tenant.name) for tenant in TENANTS)}]\n",
            f"[kafka]\nbootstrap = {_text(self.kafka)}\n"
            "# The embedded broker cannot give out producer ids; the ledger dedupes anyway.\n"
            "idempotent_producer = false\n",
            f"[redis]\nurl = {_text(self.redis)}\n",
            "[worker]\n# The embedded broker lets a first join wait for half of it.\nsession_timeout_s = 6\n"
            f"host = {_text(HOST)}\nport = {self.worker_port}\n",
            f"[archive]\nhost = {_text(HOST)}\nport = {self.archive_port}\n",
            f"[serve]\nhost = {_text(HOST)}\nport = {self.query_port}\n",
            "[serve.limits]\n# The screen asks with the tenants' tokens too.\nper_minute = 6000\n",
            *(
                f"[[serve.tokens]]\ntenant = {_text(name)}\n"
                f"bearer = {self._reference(f'serve-{name}-bearer')}\n"
                f"client_id = {_text(credential.client_id)}\n"
                f"client_secret = {self._reference(f'serve-{name}-client-secret')}\n"
                for name, credential in self.credentials.items()
            ),
            f"[callbacks]\nhost = {_text(HOST)}\nport = {self.callbacks_port}\n"
            f"public_url = {_text(self.callbacks_url)}\n",
            f"[accounts.{EMNIFY_ACCOUNT}]\nprovider = 'emnify'\n"
            f"api_base = {_text(self.simulators_url + '/emnify')}\n"
            f"application_token = {self._reference('emnify-application-token')}\n"
            f"callback_secret = {self._reference('emnify-callback-secret')}\n"
            "watch_interval_s = 2\ndelivery_lag_s = 5\nhistory_hours = 72\n"
            f"assign = [\n{rules}]\n",
            *(
                f"[accounts.{tenant.kore_account}]\nprovider = 'kore'\ntenant = {_text(tenant.name)}\n"
                f"api_base = {_text(self.simulators_url + '/kore/v1')}\n"
                f"token_url = {_text(self.simulators_url + '/kore/api-services/v1/auth/token')}\n"
                f"client_id = {_text(f'{tenant.kore_account}-demo')}\n"
                f"client_secret = {self._reference(f'{tenant.kore_account}-client-secret')}\n"
                # An hour more than the history: the sweep begins on the hour, the history does not.
                "history_hours = 73\n"
                "poll_interval_s = 5\n"
                for tenant in KORE_TENANTS
            ),
            f"[accounts.{ONOMONDO_ACCOUNT}]\nprovider = 'onomondo'\n"
            f"api_base = {_text(self.simulators_url + '/onomondo')}\n"
            f"api_token = {self._reference('onomondo-api-token')}\n"
            f"callback_token = {self._reference('onomondo-callback-token')}\n"
            "history_days = 4\npoll_interval_s = 5\nreread_interval_s = 30\n"
            f"assign = [\n{tags}]\n",
            *(
                f"[accounts.{tenant.simsy_account}]\nprovider = 'simsy'\ntenant = {_text(tenant.name)}\n"
                f"api_base = {_text(self.simulators_url + '/simsy/api/v1')}\n"
                f"client_id = {_text(f'{tenant.simsy_account}-demo')}\n"
                f"client_secret = {self._reference(f'{tenant.simsy_account}-client-secret')}\n"
                "history_hours = 73\ndelivery_lag_s = 5\npoll_interval_s = 5\n"
                "# A hundred requests a minute are not many for a sweep every few seconds.\n"
                "chunk_hours = 6\nreread_hours = 1\n"
                f"networks = {{ {_networks()} }}\n"
                for tenant in SIMSY_TENANTS
            ),
        ]
        return "\n".join(parts)

    def _simulators_toml(self) -> str:
        callback = f"{self.callbacks_url}/callbacks/{EMNIFY_ACCOUNT}"
        parts = [
            "# Written anew by every `simusage run --demo`.\n"
            f"host = {_text(HOST)}\nport = {self.simulators_port}\n"
            f"live_from = {self.live_from.isoformat()}\n",
            f"[emnify]\napplication_token = {self._reference('emnify-application-token')}\n"
            f"callback_url = {_text(callback)}\n"
            f"callback_secret = {self._reference('emnify-callback-secret')}\n",
            *(
                f"[kore.clients.{tenant.name}]\nclient_id = {_text(f'{tenant.kore_account}-demo')}\n"
                f"client_secret = {self._reference(f'{tenant.kore_account}-client-secret')}\n"
                for tenant in KORE_TENANTS
            ),
            f"[onomondo]\napi_token = {self._reference('onomondo-api-token')}\n"
            f"webhook_url = {_text(f'{self.callbacks_url}/callbacks/{ONOMONDO_ACCOUNT}')}\n"
            f"webhook_token = {self._reference('onomondo-callback-token')}\n",
            "[simsy]\n# Usage shows within seconds; SIMSY itself syncs every half hour.\nsync_interval = 1\n",
            *(
                f"[simsy.tokens.{tenant.name}]\nclient_id = {_text(f'{tenant.simsy_account}-demo')}\n"
                f"client_secret = {self._reference(f'{tenant.simsy_account}-client-secret')}\n"
                for tenant in SIMSY_TENANTS
            ),
        ]
        return "\n".join(parts)


def _networks() -> str:
    """Return the items of an account's `networks`: SIMSY names networks by TADIG code alone."""
    return ", ".join(f"{tadig} = {_text(code)}" for code, tadig in TADIG.items())


def _text(value: str) -> str:
    """Write a TOML string; JSON's escapes are valid there."""
    return json.dumps(value, ensure_ascii=False)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
