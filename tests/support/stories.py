"""What the stories of this folder have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import FilePayload

from oncedrop_common.drops import GoneReason
from oncedrop_common.store import keys
from oncedrop_common.store.events import SAMPLE_SECONDS
from oncedrop_common.tokens import drop_id as drop_id_of
from support.browser import Visitor
from support.services import Service
from support.stack import Stack, Uploaded
from support.valkey import admin

EVENTS_SHOWN = 100
Visit = Callable[..., Visitor]


def chosen_file(name: str, body: bytes) -> FilePayload:
    """What a file input is given."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": body}


def local(service: Service, url: str) -> str:
    """The address at this service, by the one name the tests allow."""
    return service.url + httpx.URL(url).raw_path.decode()


def uploaded(stack: Stack, name: str, body: bytes, **fields: Any) -> Uploaded:
    """A drop with this name, sent by a form."""
    answer = httpx.post(
        f"{stack.ingest.url}/upload", files={"file": (name, body)}, data=fields, timeout=60
    )
    assert answer.status_code == 201, answer.text
    told = answer.json()
    return Uploaded(
        local(stack.deliver, told["url"]), local(stack.ingest, told["owner_url"]), told["id"]
    )


def a_busy_week(stack: Stack) -> None:
    """As if much had happened: what the operator's page shows, at its fullest."""
    now_ms = int(time.time() * 1000)
    with admin(stack.redis.url) as client:
        for n in range(2 * EVENTS_SHOWN):
            name, drop_id = ("created", "claimed", "delivered")[n % 3], drop_id_of(str(n // 3))
            size = 12_345_678 * (n + 1)
            client.xadd(keys.EVENTS, {"event": name, "drop_id": drop_id, "size": size})
        # In one piece: a running janitor adds samples too, and later ones come last.
        with client.pipeline() as samples:
            samples.delete(keys.SAMPLES)
            for n in range(keys.SAMPLES_KEPT):
                at_ms = now_ms - (keys.SAMPLES_KEPT - n) * SAMPLE_SECONDS * 1000
                by_day = 1 + math.sin(n / 46)
                drops = round(30 * by_day) + n % 9 + n // 80
                size = round(drops * 7e7) + n % 13 * 10**8
                samples.xadd(keys.SAMPLES, {"drops": drops, "bytes": size}, f"{at_ms}-1")
            samples.execute()


def gone(stack: Stack, reason: GoneReason) -> Uploaded:
    """A drop that is gone, for this reason as far as its record tells."""
    drop = stack.upload(b"gone soon")
    httpx.delete(drop.owner_url)
    with admin(stack.redis.url) as client:
        client.hset(keys.DROP_PREFIX + drop.id, "reason", reason.value)
    return drop
