"""The cases of the crash suite: who dies where, while clients do what, and what it must come to.

docs/faults.md has this table; `make faults` writes it there after every case came out like this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oncedrop_common.crash_points import CrashPoint
from support import fault_docs
from support.crashes import LEASE_SECONDS, Story, Visit, World, visit
from support.services import RawClient
from support.waiting import wait_until

BODY = bytes(range(256)) * 16 * 1024
"""4 MiB: several steps of sendfile, and several blocks of an upload."""
LARGE = bytes(range(256)) * 32 * 1024
"""8 MiB: more than sockets hold."""
_MOST_PASSWORDS = 25

Driver = Callable[[World, str], Story]


@dataclass(frozen=True)
class Case:
    """One death.

    Attributes:
        at: Crash point, as ONCEDROP_CRASH_AT has it.
        drive: What clients do until the service dies; its docstring's first line says so.
        saw: What the client saw whose request it was.
        dead: State and place as the death left them.
        left: State and place after the restart and one sweep.
        end: What came of it.
    """

    at: str
    drive: Driver
    saw: str
    dead: str
    left: str
    end: str

    @property
    def doing(self) -> str:
        """What clients did."""
        return (self.drive.__doc__ or "").partition("\n")[0].rstrip(".")

    @property
    def expected(self) -> tuple[str, str, str, str]:
        """What run must return."""
        return self.saw, self.dead, self.left, self.end

    def run(self, world: World) -> tuple[str, str, str, str]:
        """Let it happen; World.outcome checks the invariants on the way."""
        world.reset()
        try:
            story = self.drive(world, self.at)
            saw, dead = story.visits[-1].saw(story.body), world.at_death
            return saw, dead, *world.outcome(story)
        finally:
            world.down()

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.at}-{self.drive.__name__}"


# ingest: an upload.


def put(world: World, at: str) -> Story:
    """PUT."""
    seen = Visit()
    with world.dying(at):
        seen = visit(f"{world.stack.ingest.url}/a.bin", method="PUT", content=BODY)
    return _upload(world, seen)


def form_of_two(world: World, at: str) -> Story:
    """A form with two files."""
    seen = Visit()
    with world.dying(at):
        files = [("file", ("a", BODY)), ("file", ("b", b"small"))]
        seen = visit(f"{world.stack.ingest.url}/upload", method="POST", files=files)
    return _upload(world, seen)


def left_upload(world: World, at: str) -> Story:
    """PUT whose client leaves in the middle."""
    with world.dying(at):
        head = "PUT /a.bin HTTP/1.1\nHost: localhost\nContent-Length: 9000000"
        client = RawClient(world.stack.ingest.port, head)
        client.socket.sendall(BODY)
        wait_until(world.stack.files, 10, what="the part")
        client.close()
    return _upload(world, Visit())


def _upload(world: World, seen: Visit) -> Story:
    return Story(world.only_drop(), BODY, visits=[seen])


def owner_deletes(world: World, at: str) -> Story:
    """The owner's DELETE."""
    world.up()
    story = world.put(BODY)
    with world.dying(at):
        story.visits.append(visit(story.owner_url, method="DELETE"))
    story.then = lambda: _deletes_again(world, story, visit(story.owner_url, method="DELETE"))
    return story


# deliver: one visitor of a drop.


def download(world: World, at: str) -> Story:
    """GET."""
    story = world.put(BODY)
    with world.dying(at):
        world.visit(story)
    return story


def download_restorable(world: World, at: str) -> Story:
    """GET, `if_interrupted=restore`."""
    story = world.put(BODY, if_interrupted="restore")
    with world.dying(at):
        seen = world.visit(story)
    # It does not come back.
    seen.headers.pop("content-location", None)
    return story


def download_of_two(world: World, at: str) -> Story:
    """GET, `max_downloads=2`."""
    story = world.put(BODY, max_downloads="2")
    with world.dying(at):
        world.visit(story)
    return story


def download_lingering(world: World, at: str) -> Story:
    """GET, the file lingers."""
    return _lingering(world, at, LEASE_SECONDS)


def download_lingered(world: World, at: str) -> Story:
    """GET, the file has lingered."""
    return _lingering(world, at, 1)


def _lingering(world: World, at: str, seconds: int) -> Story:
    story = world.put(BODY)
    with world.dying(at, linger_seconds=seconds):
        world.visit(story)
    return story


def slow_download(world: World, at: str) -> Story:
    """GET by a slow reader."""
    return _slowly(world, at, world.put(LARGE))


def slow_download_forgotten(world: World, at: str) -> Story:
    """GET by a slow reader; Redis is wiped."""
    return _slowly(world, at, world.put(LARGE), forget=True)


def left_download_without_resume(world: World, at: str) -> Story:
    """GET, `resume=0`, the client leaves."""
    return _slowly(world, at, world.put(LARGE, resume="0"), leave=True)


def left_download_to_be_restored(world: World, at: str) -> Story:
    """GET, `resume=0` and `if_interrupted=restore`, the client leaves."""
    story = world.put(LARGE, resume="0", if_interrupted="restore")
    return _slowly(world, at, story, leave=True)


def _slowly(
    world: World, at: str, story: Story, *, forget: bool = False, leave: bool = False
) -> Story:
    seen = Visit()
    story.visits.append(seen)
    with world.dying(at):
        path = story.url.removeprefix(world.stack.deliver.url)
        client = RawClient.get(world.stack.deliver.port, path, receive_buffer=65536)
        try:
            body = client.read_body(100_000)
            if forget:
                world.forget(story.id)
            if leave:
                client.close()
            world.wait_dead()
        finally:
            client.close()
        seen.status, seen.received = 200, body
        if not leave:
            seen.headers["content-location"] = client.header("content-location")
    world.told(story)
    return story


def form(world: World, at: str) -> Story:
    """The landing page's button."""
    story = world.put(BODY)
    with world.dying(at):
        world.visit(story, method="POST")
    return story


def wrong_range(world: World, at: str) -> Story:
    """The button, then a range that the file has not."""
    story = world.put(BODY)
    with world.dying(at):
        first = world.visit(story, method="POST")
        assert first.claim_path is not None
        url = world.stack.deliver.url + first.claim_path
        story.visits.append(visit(url, headers={"Range": "bytes=9000000-"}))
    return story


def download_forgotten(world: World, at: str) -> Story:
    """GET; Redis was wiped."""
    story = world.put(BODY)
    world.forget(story.id)
    with world.dying(at):
        world.visit(story)
    return story


def download_uncommitted(world: World, at: str) -> Story:
    """GET; Redis is as before the commit."""
    story = world.put(BODY)
    owner_hash = world.fields(story.id)["owner_hash"]
    world.forget(story.id)
    world.with_store(lambda store: store.open_upload(story.id, owner_hash, 3600))
    with world.dying(at):
        world.visit(story)
    world.age(story.id, LEASE_SECONDS + 1)
    return story


def download_taken_by_other(world: World, at: str) -> Story:
    """GET; Redis is as before another's claim."""
    story = world.put(LARGE)
    world.up()
    first = Visit(200)
    story.visits.append(first)
    with world.forgetting(story.id):
        path = story.url.removeprefix(world.stack.deliver.url)
        client = RawClient.get(world.stack.deliver.port, path, receive_buffer=65536)
        first.received = client.read_body(100_000)
        first.headers["content-location"] = client.header("content-location")
        world.down()
        client.close()
    world.told(story)
    with world.dying(at):
        world.visit(story)
    return story


def last_wrong_password(world: World, at: str) -> Story:
    """One wrong password too many."""
    story = world.put(BODY, password="right")
    before = " ".join(f"{n:022}:{n}" for n in range(1, _MOST_PASSWORDS))
    world.write(story.id, wrong_passwords=before)
    with world.dying(at):
        world.visit(story, auth=("", "wrong"))
    return story


# janitor: the operator deletes.


def operator_deletes(world: World, at: str) -> Story:
    """The operator's DELETE."""
    story = world.put(BODY)
    with world.dying(at):
        story.visits.append(world.operator_deletes(story.id))
    story.then = lambda: _deletes_again(world, story, world.operator_deletes(story.id))
    return story


def _deletes_again(world: World, story: Story, answer: Visit) -> str:
    assert answer.status == 200, answer
    assert b'"reason":"deleted"' in answer.received
    assert world.standing(story.id) == "gone (deleted); no file"
    return "DELETE again: gone"


_SILENCE = "no answer"
_PART = "a part"
_WHOLE = "the whole file"
_READY = "ready; blobs/"
_CLAIMED = "claimed; claimed/"
_NOT_TAKEN = "claimed; blobs/"
_UPLOADING = "uploading; incoming/"
_UNCOMMITTED = "uploading; blobs/"
_ABANDONED = "gone (abandoned); no file"
_DELIVERED = "gone (delivered); no file"
_INTERRUPTED = "gone (interrupted); no file"
_DELETED = "gone (deleted); no file"
_LOCKED = "gone (locked); no file"
_SAME = "stays so"
_BURNT = "burnt, for nobody knows that nothing was sent"
_NEXT = "the next visitor has it"
_RESUMES = "its claimant resumes and has the rest"
_RESUMES_LATE = "its claimant resumes and has the rest; gone (interrupted); no file"
_NEXT_AFTER_LEASE = "ready; blobs/; the next visitor has it"
_READY_UNKNOWN = "ready; blobs/; expires, for nobody has its link"
_UNKNOWN = "expires, for nobody has its link"
_AGAIN = "DELETE again: gone"

INGEST = (
    Case("upload.before_open", put, _SILENCE, "no record; no file", "no record; no file", _SAME),
    Case(
        "upload.after_open", put, _SILENCE, "uploading; no file", "uploading; no file", _ABANDONED
    ),
    Case("upload.after_part", put, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.in_body", put, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.in_body:2", put, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.before_header", put, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.after_header", put, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.after_fsync", put, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.after_rename", put, _SILENCE, _UNCOMMITTED, _UNCOMMITTED, _READY_UNKNOWN),
    Case("upload.between_folder_fsyncs", put, _SILENCE, _UNCOMMITTED, _UNCOMMITTED, _READY_UNKNOWN),
    Case("upload.after_folder_fsyncs", put, _SILENCE, _UNCOMMITTED, _UNCOMMITTED, _READY_UNKNOWN),
    Case("upload.before_commit", put, _SILENCE, _UNCOMMITTED, _UNCOMMITTED, _READY_UNKNOWN),
    Case("upload.after_commit", put, _SILENCE, _READY, _READY, _UNKNOWN),
    Case("upload.before_answer", put, _SILENCE, _READY, _READY, _UNKNOWN),
    Case("upload.after_zip_prefix", form_of_two, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case("upload.before_commit", form_of_two, _SILENCE, _UNCOMMITTED, _UNCOMMITTED, _READY_UNKNOWN),
    Case("undo.before_unlink", left_upload, _SILENCE, _UPLOADING, _UPLOADING, _ABANDONED),
    Case(
        "undo.after_unlink",
        left_upload,
        _SILENCE,
        "uploading; no file",
        "uploading; no file",
        _ABANDONED,
    ),
    Case("undo.after_abandon", left_upload, _SILENCE, _ABANDONED, _ABANDONED, _SAME),
    Case("delete.before_delete", owner_deletes, _SILENCE, _READY, _READY, _AGAIN),
    Case(
        "delete.before_unlink", owner_deletes, _SILENCE, "gone (deleted); blobs/", _DELETED, _AGAIN
    ),
    Case("delete.after_unlink", owner_deletes, _SILENCE, _DELETED, _DELETED, _AGAIN),
)

DELIVER = (
    Case("claim.before_claim", download, _SILENCE, _READY, _READY, _NEXT),
    Case("claim.after_claim", download, _SILENCE, _NOT_TAKEN, _NOT_TAKEN, _NEXT_AFTER_LEASE),
    Case("claim.before_rename", download, _SILENCE, _NOT_TAKEN, _NOT_TAKEN, _NEXT_AFTER_LEASE),
    Case("claim.after_rename", download, _SILENCE, _CLAIMED, _CLAIMED, _BURNT),
    Case("claim.after_open", download, _SILENCE, _CLAIMED, _CLAIMED, _BURNT),
    Case("claim.after_fsync", download, _SILENCE, _CLAIMED, _CLAIMED, _BURNT),
    Case("serve.before_head", download, _SILENCE, _CLAIMED, _CLAIMED, _BURNT),
    Case("serve.after_head", download, "the head", _CLAIMED, _CLAIMED, _RESUMES),
    Case("serve.after_step", download, _PART, _CLAIMED, _CLAIMED, _RESUMES_LATE),
    Case("serve.after_step:3", download, _PART, _CLAIMED, _CLAIMED, _RESUMES_LATE),
    Case("serve.after_last_byte", download, _WHOLE, _CLAIMED, _CLAIMED, _INTERRUPTED),
    Case("serve.after_last_ack", download, _WHOLE, _CLAIMED, _CLAIMED, _INTERRUPTED),
    Case("deliver.before_deliver", download, _WHOLE, _CLAIMED, _CLAIMED, _INTERRUPTED),
    Case(
        "deliver.after_deliver", download, _WHOLE, "gone (delivered); claimed/", _DELIVERED, _SAME
    ),
    Case(
        "deliver.before_unlink", download, _WHOLE, "gone (delivered); claimed/", _DELIVERED, _SAME
    ),
    Case("deliver.after_unlink", download, _WHOLE, _DELIVERED, _DELIVERED, _SAME),
    Case("serve.after_renew", slow_download, _PART, _CLAIMED, _CLAIMED, _RESUMES),
    Case("serve.after_remember", slow_download_forgotten, _PART, _CLAIMED, _CLAIMED, _RESUMES_LATE),
    Case(
        "claim.after_rename", download_restorable, _SILENCE, _CLAIMED, _CLAIMED, _NEXT_AFTER_LEASE
    ),
    Case("serve.after_step", download_restorable, _PART, _CLAIMED, _CLAIMED, _NEXT_AFTER_LEASE),
    Case(
        "serve.after_last_ack", download_restorable, _WHOLE, _CLAIMED, _CLAIMED, _NEXT_AFTER_LEASE
    ),
    Case(
        "claim.after_claim",
        download_of_two,
        _SILENCE,
        _READY,
        _READY,
        "the next 2 visitors have it",
    ),
    Case("serve.before_head", download_of_two, _SILENCE, _READY, _READY, _NEXT),
    Case("serve.after_step", download_of_two, _PART, _READY, _READY, _NEXT),
    Case("deliver.after_deliver", download_of_two, _WHOLE, _READY, _READY, _NEXT),
    Case("deliver.in_linger", download_lingering, _WHOLE, _CLAIMED, _CLAIMED, _DELIVERED),
    Case("deliver.after_linger", download_lingered, _WHOLE, _CLAIMED, _DELIVERED, _SAME),
    Case(
        "deliver.after_lapse",
        left_download_without_resume,
        _PART,
        "gone (interrupted); claimed/",
        _INTERRUPTED,
        _SAME,
    ),
    Case(
        "deliver.before_unlink",
        left_download_without_resume,
        _PART,
        "gone (interrupted); claimed/",
        _INTERRUPTED,
        _SAME,
    ),
    Case("deliver.after_lapse", left_download_to_be_restored, _PART, _CLAIMED, _READY, _NEXT),
    Case(
        "restore.after_rename_back", left_download_to_be_restored, _PART, _NOT_TAKEN, _READY, _NEXT
    ),
    Case("restore.after_restore", left_download_to_be_restored, _PART, _READY, _READY, _NEXT),
    Case("claim.before_redirect", form, _SILENCE, _NOT_TAKEN, _NOT_TAKEN, _NEXT_AFTER_LEASE),
    Case("claim.after_fsync", wrong_range, _SILENCE, _CLAIMED, _CLAIMED, _RESUMES),
    Case("release.before_release", wrong_range, _SILENCE, _CLAIMED, _CLAIMED, _RESUMES),
    Case("release.after_release", wrong_range, _SILENCE, _CLAIMED, _READY, _NEXT),
    Case("restore.after_rename_back", wrong_range, _SILENCE, _NOT_TAKEN, _READY, _NEXT),
    Case("restore.after_restore", wrong_range, _SILENCE, _READY, _READY, _NEXT),
    Case("claim.before_rebuild", download_forgotten, _SILENCE, "no record; blobs/", _READY, _NEXT),
    Case("claim.after_rebuild", download_forgotten, _SILENCE, _READY, _READY, _NEXT),
    Case("claim.before_commit", download_uncommitted, _SILENCE, _UNCOMMITTED, _READY, _NEXT),
    Case("claim.after_commit", download_uncommitted, _SILENCE, _READY, _READY, _NEXT),
    Case(
        "claim.before_adopt", download_taken_by_other, _SILENCE, _CLAIMED, _CLAIMED, _RESUMES_LATE
    ),
    Case("claim.after_adopt", download_taken_by_other, _SILENCE, _CLAIMED, _CLAIMED, _RESUMES_LATE),
    Case(
        "lock.before_unlink", last_wrong_password, _SILENCE, "gone (locked); blobs/", _LOCKED, _SAME
    ),
    Case("lock.after_unlink", last_wrong_password, _SILENCE, _LOCKED, _LOCKED, _SAME),
)

JANITOR = (
    Case(
        "delete.before_unlink",
        operator_deletes,
        _SILENCE,
        "gone (deleted); blobs/",
        _DELETED,
        _AGAIN,
    ),
    Case("delete.after_unlink", operator_deletes, _SILENCE, _DELETED, _DELETED, _AGAIN),
)

SWEEP = tuple(point for point in CrashPoint if point.startswith(("sweep.", "apply.")))
"""Each while a sweep goes over a drop of every kind."""


def crash_table() -> str:
    """What docs/faults.md says of crash points."""
    rows = [
        "| crash point | during | the client saw | left | after restart and sweep | in the end |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| `{c.at}` | {c.doing} | {c.saw} | {c.dead} | {c.left} | {c.end} |"
            for c in INGEST + DELIVER + JANITOR
        ),
        "",
        "A sweep that dies, at each of these, is finished by the next one:",
        ", ".join(f"`{point}`" for point in SWEEP) + ".",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    fault_docs.write("crash points", crash_table())
