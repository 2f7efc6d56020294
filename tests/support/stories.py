"""What the stories of this folder have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import FilePayload

from oncedrop_common.drops import GoneReason
from oncedrop_common.store import keys
from support.browser import Visitor
from support.services import Service
from support.stack import Stack, Uploaded
from support.valkey import admin

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


def gone(stack: Stack, reason: GoneReason) -> Uploaded:
    """A drop that is gone, for this reason as far as its record tells."""
    drop = stack.upload(b"gone soon")
    httpx.delete(drop.owner_url)
    with admin(stack.redis.url) as client:
        client.hset(keys.DROP_PREFIX + drop.id, "reason", reason.value)
    return drop
