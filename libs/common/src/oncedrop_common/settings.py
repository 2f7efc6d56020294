"""All settings, in one list; the README's table is made from it.

Every name has the prefix ONCEDROP_ in the environment. One class serves all services, so that
one environment file can be given to each; a name that is not in the list is refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from oncedrop_common.crash_points import CrashAt
from oncedrop_common.errors import ConfigurationError

PREFIX = "ONCEDROP_"
# The command line's, which may be set where a server starts.
_CLIENT_NAMES = {f"{PREFIX}SERVER"}

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """What an operator can choose."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        hide_input_in_errors=True,
        extra="forbid",
        env_ignore_empty=True,
    )

    data_dir: Path = Field(
        Path("data"), description="Embedded stack: holds the volume and Redis' files"
    )
    volume_dir: Path | None = Field(
        None, description="The shared volume; unset: `volume` in the data folder"
    )
    redis_url: SecretStr | None = Field(
        None,
        description="`redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,…/name/db` or"
        " `redis+cluster://`; unset: the embedded server",
    )
    redis_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        2.0, description="How long an answer of Redis may take, second tries included"
    )
    public_url: str | None = Field(
        None, description="Address in links; unset: the request's host with the service's port"
    )
    host: str = Field("127.0.0.1", description="Address the services listen on")
    head_timeout_seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        30, description="How long a client may take for a request's head, or say nothing at first"
    )
    ingest_port: Port = Field(8001, description="Port of ingest")
    deliver_port: Port = Field(8002, description="Port of deliver")
    janitor_port: Port = Field(8003, description="Port of janitor")
    forwarded_allow_ips: str = Field(
        "127.0.0.1", description="Proxies whose X-Forwarded-* are believed (comma-separated, `*`)"
    )
    admin_token: SecretStr | None = Field(
        None, description="Operators' bearer token at the janitor; unset: those calls are refused"
    )
    upload_token: SecretStr | None = Field(
        None, description="Bearer token that uploads need; unset: anyone who reaches ingest uploads"
    )
    max_file_bytes: ByteSize = Field(
        ByteSize(10 * 2**30),
        ge=1,
        description="Largest upload; `10GiB` and the like are understood",
    )
    max_stored_bytes: ByteSize = Field(
        ByteSize(0), description="Quota over all drops; 0: only the disk limits"
    )
    min_free_bytes: ByteSize = Field(
        ByteSize(64 * 2**20), description="Free space that uploads must leave on the volume"
    )
    default_ttl_seconds: Seconds = Field(
        86_400, description="Life of a drop when none is asked for"
    )
    max_ttl_seconds: Seconds = Field(30 * 86_400, description="Longest life that can be asked for")
    max_max_downloads: Annotated[int, Field(ge=1, le=1000)] = Field(
        100, description="Most downloads that can be asked for"
    )
    upload_lease_seconds: Seconds = Field(
        600, description="How long an upload may make no progress"
    )
    claim_lease_seconds: Seconds = Field(
        600, description="How long a claim may make no progress before it lapses"
    )
    claim_max_seconds: Seconds = Field(86_400, description="Longest life of a claim")
    linger_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        0, description="How long a delivered file stays for its claimant (60 behind a gateway)"
    )
    tombstone_seconds: Seconds = Field(
        7 * 86_400, description="How long after its expiry a drop that is gone is remembered"
    )
    grace_seconds: Annotated[int, Field(ge=0)] = Field(
        900, description="Age below which a sweep leaves a thing alone"
    )
    due_interval_seconds: Seconds = Field(5, description="Time between due passes")
    sweep_interval_seconds: Seconds = Field(600, description="Time between sweeps")
    sweep_max_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of more than 100 things above which a sweep deletes nothing"
    )
    leader_lock: bool = Field(True, description="Several janitors take turns (saves work only)")
    ephemeral_volume: bool = Field(
        False, description="An emptied volume is normal: its records become tombstones at start"
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Processes of ingest and of deliver, each"
    )
    zero_copy: bool = Field(
        True, description="Files are sent by the kernel; off: through Python, where sendfile fails"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged"
    )
    crash_at: str | None = Field(
        None, description="For the fault tests: the process dies here (docs/faults.md)"
    )

    @field_validator("public_url")
    @classmethod
    def _url_is_plain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+/?", value):
            raise ValueError("must be http:// or https:// with a host and no path")
        return value.rstrip("/")

    @field_validator("crash_at")
    @classmethod
    def _crash_point_exists(cls, value: str | None) -> str | None:
        if value is not None:
            CrashAt.parse(value)
        return value

    @model_validator(mode="after")
    def _rules_between_fields(self) -> Self:
        if self.grace_seconds <= self.upload_lease_seconds + 60:
            raise ValueError("GRACE_SECONDS must be above UPLOAD_LEASE_SECONDS plus 60")
        if self.default_ttl_seconds > self.max_ttl_seconds:
            raise ValueError("DEFAULT_TTL_SECONDS must not be above MAX_TTL_SECONDS")
        if self.tombstone_seconds < self.claim_max_seconds + self.grace_seconds:
            raise ValueError(
                "TOMBSTONE_SECONDS must not be below CLAIM_MAX_SECONDS plus GRACE_SECONDS:"
                " a tombstone has to outlive any file that could bring its drop back"
            )
        if self.claim_max_seconds < self.claim_lease_seconds:
            raise ValueError("CLAIM_MAX_SECONDS must not be below CLAIM_LEASE_SECONDS")
        return self

    @property
    def volume_path(self) -> Path:
        """Where the shared volume is mounted."""
        return self.volume_dir or self.data_dir / "volume"


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigurationError: An unknown ONCEDROP_ name or a value out of range; names each.
    """
    known = _CLIENT_NAMES | {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(n for n in os.environ if n.startswith(PREFIX) and n.upper() not in known)
    if unknown:
        raise ConfigurationError(f"unknown setting: {', '.join(unknown)}")
    try:
        return Settings()
    except ValidationError as exc:
        problems = "; ".join(
            f"{PREFIX + str(e['loc'][0]).upper() + ': ' if e['loc'] else ''}{e['msg']}"
            for e in exc.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"settings: {problems}") from exc
