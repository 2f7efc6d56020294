"""Random clients, each drop with its own dice, and a record of all that they see.

Uploaders by PUT and by form with every option, slow ones and ones that leave; visitors who race,
break off anywhere, come back by claim URL, cookie, If-Range and If-Match to another replica; people
and bots who look; owners who delete; clients whose clock is wrong.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from random import Random
from urllib.parse import urlencode

import httpx

from oncedrop_common.drops import DropId
from oncedrop_common.errors import VolumeUnavailable
from oncedrop_common.volume import Volume
from support.fleet import Fleet
from support.history import Asked, History, Kept, What, body_of
from support.plain_http import WELL, Answer, Manner, ask
from support.services import BROWSER
from support.waiting import wait_until_async

_SIZES = (0, 1, 4096, 70_000, 70_000, 300_000, 300_000, 2_500_000)
_SAMPLE = 16
# A second, says DESIGN; the machine may be busy.
GONE_SECONDS = 5.0
_BOTS = (
    BROWSER,
    {"User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"},
    {"Sec-Purpose": "prefetch"},
)
_LONG_AGO, _FAR_AHEAD = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 2128 23:59:59 GMT"
# Conditions on times are ignored: no answer has a Last-Modified (RFC 9110, section 13.1.3).
_WRONG_CLOCKS = (
    {"Date": _LONG_AGO, "If-Unmodified-Since": _LONG_AGO},
    {"Date": _FAR_AHEAD, "If-Modified-Since": _FAR_AHEAD},
)


@dataclass
class Visitor:
    """Somebody with a link: a claimant from the first answer with a claim on."""

    drop: Kept
    claim: str = ""
    claim_path: str = ""
    cookie: str = ""
    parts: list[Asked] = field(default_factory=list)

    @property
    def offset(self) -> int:
        """Up to where it has the file without a gap."""
        at = 0
        for part in sorted(self.parts, key=lambda p: p.start):
            if part.start > at:
                break
            at = max(at, part.start + part.received)
        return at


class Crowd:
    """Clients of one fleet.

    Args:
        fleet: Whom they ask.
        history: What they note.
        seed: Of everything they do.
        ttl_seconds: How long a drop lives when its uploader does not say.
        stale_seconds: How long the volume's first mount may show what was removed at another.
    """

    def __init__(
        self,
        fleet: Fleet,
        history: History,
        seed: int,
        *,
        stale_seconds: float = 0,
        ttl_seconds: float = 86_400,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._stale_seconds = stale_seconds
        self._fleet = fleet
        self.history = history
        self._seed = seed
        self._next = 0
        self._volume = Volume(fleet.volume_dir)

    async def run(self, parallel: int, go_on: Callable[[int], bool]) -> None:
        """Tell one drop's story after the other, so many at a time, while go_on(number)."""

        async def worker() -> None:
            while go_on(self._next):
                self._next += 1
                await self._story(self._next, Random(f"{self._seed}/{self._next}"))

        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(worker())

    async def _story(self, number: int, dice: Random) -> None:
        drop = await self._upload(number, dice)
        if drop is None:
            # It may have been refused by a dead process, at once.
            await asyncio.sleep(dice.random() * 0.4)
            return
        acts: list[Callable[[Kept, Random], Awaitable[None]]] = [
            self._race, self._take, self._take, self._take_by_button, self._ranges, self._look,
            self._receipt, self._guess,
        ]  # fmt: skip
        for _ in range(dice.randrange(1, 4)):
            together = [dice.choice(acts)]
            if dice.random() < 0.15:
                together.append(self._delete)
            if dice.random() < 0.3:
                together.append(dice.choice(acts))
            # Each with dice of its own: who is first must not change what the others do.
            await asyncio.gather(*(act(drop, Random(dice.random())) for act in together))
            await asyncio.sleep(dice.random() * 0.3)
        if dice.random() < 0.8:
            # Else it waits for the end of the run, or its own.
            for _ in range(drop.max_downloads):
                await self._ask_for(Visitor(drop), dice)

    # Uploaders.

    async def _upload(self, number: int, dice: Random) -> Kept | None:
        size = dice.choice(_SIZES)
        seed = f"{self._seed}/{number}/body"
        body = body_of(seed, size)
        options = _options(dice)
        manner = WELL
        if size and dice.random() < 0.15:
            manner = Manner(leave_in_body=dice.randrange(size))
        elif size > 100_000 and dice.random() < 0.15:
            manner = Manner(write_pause=0.05 + dice.random() * 0.2)
        elif dice.random() < 0.05:
            manner = Manner(half_close=True)
        if dice.random() < 0.5:
            headers = {f"Oncedrop-{k.replace('_', '-')}": v for k, v in options.items()}
            method, path = "PUT", f"/file-{number}.bin"
            sent, archive = body, False
        else:
            archive = dice.random() < 0.3
            method, path = "POST", "/upload"
            files = [body, b"second file"] if archive else [body]
            headers, sent = _form(files, options, f"b{number}")
        answer = await ask(
            dice.choice(self._fleet.ingests).port, method, path,
            headers={**headers, "Accept": "application/json"}, body=sent, manner=manner,
        )  # fmt: skip
        self.history.asked.append(_noted("", What.UPLOAD, answer))
        if answer.status != 201 or not answer.complete:
            return None
        told = answer.json()
        if not archive:
            assert told["sha256"] == hashlib.sha256(body).hexdigest(), "2 the digest is wrong"
        ttl = options.get("ttl")
        drop = Kept(
            id=told["id"],
            at=answer.ended,
            size=told["size"],
            sha256=told["sha256"],
            seed="" if archive else seed,
            max_downloads=int(options.get("max_downloads", "1")),
            restorable=options.get("if_interrupted") == "restore",
            resumable=options.get("resume") != "0",
            ttl_seconds=float(ttl[:-1]) if ttl else self._ttl_seconds,
            password=options.get("password", ""),
            by_button=options.get("confirm") == "always",
            path=httpx.URL(told["url"]).path,
            owner_path=httpx.URL(told["owner_url"]).path,
        )
        self.history.kept[drop.id] = drop
        self.history.secrets |= {drop.path.rpartition("/")[2], drop.owner_path.rpartition(".")[2]}
        if drop.password:
            self.history.secrets.add(drop.password)
        return drop

    # Visitors.

    async def _race(self, drop: Kept, dice: Random) -> None:
        visitors = [Visitor(drop) for _ in range(dice.randrange(2, 7))]
        await asyncio.gather(*(self._ask_for(v, Random(dice.random())) for v in visitors))

    async def _take(self, drop: Kept, dice: Random) -> None:
        visitor = Visitor(drop)
        start = dice.randrange(drop.size) if drop.size and dice.random() < 0.15 else 0
        await self._ask_for(visitor, dice, start=start, manner=_manner(dice, drop.size))
        await self._come_back(visitor, dice)

    async def _take_by_button(self, drop: Kept, dice: Random) -> None:
        visitor = Visitor(drop)
        await self._press(visitor, dice)
        if dice.random() < 0.8:
            await self._come_back(visitor, dice)

    async def _ranges(self, drop: Kept, dice: Random) -> None:
        """The way of download managers: one part first, then several at a time."""
        visitor = Visitor(drop)
        await self._ask_for(visitor, dice, manner=Manner(leave_after=drop.size // 4))
        if visitor.claim:
            step = max(1, drop.size // 4)
            await asyncio.gather(
                *(self._resume(visitor, Random(dice.random()), start)
                  for start in range(0, drop.size, step))
            )  # fmt: skip
            await self._come_back(visitor, dice)

    async def _come_back(self, visitor: Visitor, dice: Random) -> None:
        for _ in range(4):
            size = visitor.drop.size
            if not visitor.claim or (visitor.parts and visitor.offset >= size):
                return
            if dice.random() < 0.15:
                return
            await asyncio.sleep(dice.choice((0, 0, 0.2, 1.0)))
            asked = await self._resume(visitor, dice, visitor.offset, _manner(dice, size))
            if asked.status in (404, 409, 410, 412, 416):
                return

    async def _look(self, drop: Kept, dice: Random) -> None:
        method = "HEAD" if dice.random() < 0.4 else "GET"
        headers = {} if method == "HEAD" else dict(dice.choice(_BOTS))
        answer = await ask(self._any_deliver(dice), method, drop.path, headers=headers)
        self.history.asked.append(self._judged(drop, What.LOOK, answer))

    async def _guess(self, drop: Kept, dice: Random) -> None:
        """One wrong password; a drop without one is looked at."""
        if not drop.password:
            return await self._look(drop, dice)
        answer = await ask(self._any_deliver(dice), "GET", drop.path, headers=_basic("wrong"))
        self.history.asked.append(self._judged(drop, What.LOOK, answer))
        return None

    # Owners.

    async def _receipt(self, drop: Kept, dice: Random) -> None:
        port = dice.choice(self._fleet.ingests).port
        answer = await ask(port, "GET", drop.owner_path, headers={"Accept": "application/json"})
        self.history.asked.append(self._judged(drop, What.RECEIPT, answer))

    async def _delete(self, drop: Kept, dice: Random) -> None:
        await asyncio.sleep(dice.random() * 0.5)
        answer = await ask(
            dice.choice(self._fleet.ingests).port, "DELETE", drop.owner_path,
            headers={"Accept": "application/json"},
        )  # fmt: skip
        asked = self._judged(drop, What.DELETE, answer)
        if answer.status == 200:
            asked = replace(asked, still_there=await self._names_left(drop, self._stale_seconds))
        self.history.asked.append(asked)

    # One request.

    async def _ask_for(
        self,
        visitor: Visitor,
        dice: Random,
        *,
        start: int = 0,
        manner: Manner = WELL,
        settled: bool = False,
    ) -> Asked:
        """Go to the link and take, as curl does."""
        drop = visitor.drop
        if drop.by_button:
            asked = await self._press(visitor, dice, settled=settled)
            if not visitor.claim:
                return asked
            return await self._resume(visitor, dice, start, manner, settled=settled)
        headers = {"Range": f"bytes={start}-"} if start else {}
        if drop.password:
            headers.update(_basic(drop.password))
        if dice.random() < 0.1:
            headers.update(dice.choice(_WRONG_CLOCKS))
        answer = await ask(
            self._any_deliver(dice), "GET", drop.path, headers=headers, manner=manner
        )
        return await self._took(visitor, What.TAKE, answer, settled=settled)

    async def _press(self, visitor: Visitor, dice: Random, *, settled: bool = False) -> Asked:
        """The landing page's button."""
        drop = visitor.drop
        fields = {"password": drop.password} if drop.password else {}
        answer = await ask(
            self._any_deliver(dice), "POST", drop.path, body=urlencode(fields).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )  # fmt: skip
        asked = replace(self._judged(drop, What.TAKE, answer), settled=settled)
        self.history.asked.append(asked)
        if answer.status == 303:
            self._is_claimant(visitor, answer.headers["location"], answer)
        return asked

    async def _resume(
        self,
        visitor: Visitor,
        dice: Random,
        start: int,
        manner: Manner = WELL,
        *,
        settled: bool = False,
    ) -> Asked:
        """Come back as the claimant, to any replica."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = visitor.claim_path
        way = dice.choice(("url", "url", "cookie", "if-range", "if-match"))
        if visitor.drop.by_button:
            # The link itself only ever shows the page.
            way = "url"
        if way == "cookie" and visitor.cookie:
            path, headers["Cookie"] = visitor.drop.path, visitor.cookie
        elif way == "if-range" and start:
            path, headers["If-Range"] = visitor.drop.path, f'"{visitor.claim}"'
        elif way == "if-match":
            path, headers["If-Match"] = visitor.drop.path, f'"{visitor.claim}"'
        if path == visitor.drop.path and visitor.drop.password:
            headers.update(_basic(visitor.drop.password))
        answer = await ask(self._any_deliver(dice), "GET", path, headers=headers, manner=manner)
        return await self._took(visitor, What.RESUME, answer, settled=settled)

    async def _took(self, visitor: Visitor, what: What, answer: Answer, *, settled: bool) -> Asked:
        drop = visitor.drop
        asked = replace(self._judged(drop, what, answer), settled=settled)
        if answer.status in (200, 206) and "content-location" in answer.headers:
            self._is_claimant(visitor, answer.headers["content-location"], answer)
            asked = replace(
                asked,
                claim=answer.headers["etag"].strip('"'),
                start=_start(answer),
                received=len(answer.body),
                digest=hashlib.sha256(answer.body).hexdigest(),
                promised=int(answer.headers["content-length"]),
            )
            visitor.parts.append(asked)
        elif what is What.RESUME:
            asked = replace(asked, claim=visitor.claim)
        whole = asked.complete and visitor.parts and visitor.offset >= drop.size
        # Without a second chance two answers are no download, though they hold the file.
        whole = whole and (drop.resumable or asked.received == drop.size)
        if whole and drop.max_downloads == 1:
            asked = replace(asked, still_there=await self._names_left(drop, GONE_SECONDS))
            visitor.parts[-1:] = [asked]
        self.history.asked.append(asked)
        return asked

    def _is_claimant(self, visitor: Visitor, claim_path: str, answer: Answer) -> None:
        visitor.claim_path = claim_path
        claim = claim_path.split("/")[2].partition(".")[2]
        if visitor.claim and claim != visitor.claim:
            # Another's claim now: what it has of the first one it cannot go on with.
            visitor.parts.clear()
        visitor.claim = claim
        self.history.secrets.add(claim)
        cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        visitor.cookie = cookie or visitor.cookie

    def _judged(self, drop: Kept, what: What, answer: Answer) -> Asked:
        asked = _noted(drop.id, what, answer)
        sample = body_of(drop.seed, drop.size)[:_SAMPLE] if drop.seed else b""
        refused = answer.status not in (200, 206) or what in (What.LOOK, What.RECEIPT)
        leaked = refused and len(sample) == _SAMPLE and sample in answer.body
        return replace(asked, leaked=leaked)

    def _names(self, drop: Kept) -> tuple[str, ...]:
        # A volume that is away leads to no bytes.
        with contextlib.suppress(VolumeUnavailable):
            return tuple(found.place for found in self._volume.find(DropId(drop.id)))
        return ()

    async def _names_left(self, drop: Kept, seconds: float) -> tuple[str, ...]:
        async def gone() -> bool:
            return not self._names(drop)

        with contextlib.suppress(AssertionError):
            await wait_until_async(gone, seconds, what="the file to go")
        return self._names(drop)

    def _any_deliver(self, dice: Random) -> int:
        return dice.choice(self._fleet.delivers).port

    # In the end.

    async def take_the_rest(self) -> None:
        """Somebody comes to every link, until there is nothing more to have."""
        dice = Random(f"{self._seed}/rest")

        async def rest(drop: Kept) -> None:
            for _ in range(drop.max_downloads + 1):
                asked = await self._ask_for(Visitor(drop), dice, settled=True)
                if asked.status not in (200, 206):
                    return
                # The last byte is with us a little before the service knows it.
                await self._names_left(drop, 1 if drop.max_downloads == 1 else 0.1)

        for drop in list(self.history.kept.values()):
            await rest(drop)


def _options(dice: Random) -> dict[str, str]:
    options: dict[str, str] = {}
    if dice.random() < 0.3:
        options["if_interrupted"] = dice.choice(("restore", "restore", "burn"))
    if dice.random() < 0.15:
        options["max_downloads"] = str(dice.randrange(2, 4))
    if dice.random() < 0.15:
        options["resume"] = "0"
    if dice.random() < 0.1:
        options["confirm"] = "always"
    if dice.random() < 0.08:
        options["password"] = f"secret {dice.getrandbits(64):x}"
    if dice.random() < 0.1:
        options["ttl"] = f"{dice.randrange(2, 15)}s"
    return options


def _form(
    files: list[bytes], options: dict[str, str], boundary: str
) -> tuple[dict[str, str], bytes]:
    parts = [
        f'Content-Disposition: form-data; name="{k}"\r\n\r\n{v}'.encode()
        for k, v in options.items()
    ]
    parts += [
        f'Content-Disposition: form-data; name="file"; filename="f{i}.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + body
        for i, body in enumerate(files)
    ]
    mark = f"----{boundary}".encode()
    body = b"".join(b"--" + mark + b"\r\n" + part + b"\r\n" for part in parts)
    headers = {"Content-Type": f"multipart/form-data; boundary={mark.decode()}"}
    return headers, body + b"--" + mark + b"--\r\n"


def _basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f":{password}".encode()).decode()}


def _manner(dice: Random, size: int) -> Manner:
    chance = dice.random()
    if chance < 0.3 and size:
        return Manner(leave_after=dice.randrange(size))
    if chance < 0.4 and size > 100_000:
        return Manner(read_pause=0.02 + dice.random() * 0.2)
    if chance < 0.45:
        return Manner(half_close=True)
    return WELL


def _noted(drop_id: str, what: What, answer: Answer) -> Asked:
    reason = ""
    if answer.status is not None and answer.status >= 400:
        document = answer.json()
        slug = str(document.get("type", "")).rpartition(":")[2]
        reason = str(document.get("reason", slug))
    return Asked(
        drop_id, what, answer.began, answer.headed, answer.ended, answer.status,
        complete=answer.complete, left_early=answer.left_early, reason=reason,
    )  # fmt: skip


def _start(answer: Answer) -> int:
    """First byte of a 206 (RFC 9110, section 14.4); 0 of a 200."""
    content_range = answer.headers.get("content-range", "bytes 0-")
    return int(content_range.removeprefix("bytes ").partition("-")[0])
