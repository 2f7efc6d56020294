"""Headers of a file response, and the claim URL and cookie by which a claimant is known again.

Cache-Control and Referrer-Policy are not here: every response gets them from a middleware.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from urllib.parse import quote

from oncedrop_common.drops import DropId, DropMeta
from oncedrop_common.errors import LinkUnknown
from oncedrop_common.file_names import clean_content_type, clean_name
from oncedrop_common.tokens import is_drop_id, is_secret
from oncedrop_deliver.ranges import Slice, Whole, claim_etag

CLAIM_COOKIE = "oncedrop_claim"

# RFC 8187 section 3.2.1: attr-char, beside letters, digits and -._~ which quote() always keeps.
_ATTR_CHARS = "!#$&+^`|"
# RFC 6266 appendix D: some clients decode %41 even in the plain parameter.
_PERCENT_ESCAPE = re.compile(r"%(?=[0-9A-Fa-f]{2})")


def content_disposition(name: str) -> str:
    """`attachment` with the name in both forms (RFC 6266 section 4.3 and appendix D, RFC 8187).

    Safe for every name: what a header, a quoted string or a file system cannot hold is gone from
    both. `filename` is for clients that know no `filename*`, such as `curl -OJ`.
    """
    shown = clean_name(name)
    return f"attachment; filename=\"{_ascii(shown)}\"; filename*=UTF-8''{quote(shown, _ATTR_CHARS)}"


def _ascii(name: str) -> str:
    """The name with accents dropped and each run of other foreign characters as one `_`.

    Args:
        name: As clean_name made it.
    """
    if name.isascii():
        return _PERCENT_ESCAPE.sub("_", name)
    plain = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    # Decomposition can bring forth "<" or ";", hence cleaned once more.
    return _PERCENT_ESCAPE.sub("_", clean_name(re.sub(r"[^ -~]+", "_", plain)))


def claim_headers(claim_id: str, claim_url: str) -> dict[str, str]:
    """What lets the claimant come back; for a 200, 206 or 304 (RFC 9110 section 15.4.5).

    Args:
        claim_id: The claimant's.
        claim_url: Absolute URL or path made by claim_path.
    """
    return {"ETag": claim_etag(claim_id), "Content-Location": claim_url}


def file_headers(meta: DropMeta, part: Whole | Slice) -> dict[str, str]:
    """Headers of a response that carries the file or a part of it, or of a HEAD for it.

    All values are printable ASCII. `sandbox` and `nosniff` keep a file that a browser shows after
    all from running as a page of this site. The digest is that of the whole file in a 206 too
    (RFC 9530 section 3), the length that of the part.
    """
    headers = {
        "Content-Disposition": content_disposition(meta.name),
        "Content-Type": clean_content_type(meta.content_type),
        "Content-Length": str(part.length if isinstance(part, Slice) else meta.size),
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(meta.sha256)).decode()}:",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "X-Accel-Buffering": "no",
    }
    if isinstance(part, Slice):
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{meta.size}"
    return headers


def claim_cookie(claim_id: str, *, token: str, lease_seconds: int, secure: bool) -> str:
    """The Set-Cookie value that brings the claim id back with a retry of the same link.

    Args:
        claim_id: The claimant's.
        token: Of the link, already known to be well-formed; the cookie goes back to it only.
        lease_seconds: What is left of the lease.
        secure: Whether the link is https.
    """
    attributes = [
        f"{CLAIM_COOKIE}={claim_id}",
        f"Max-Age={max(lease_seconds, 0)}",
        f"Path=/d/{token}",
        "HttpOnly",
        "SameSite=Strict",
    ]
    return "; ".join([*attributes, "Secure"] if secure else attributes)


def claim_path(drop_id: DropId, claim_id: str, name: str) -> str:
    """Path of the claim URL: `/c/<drop id>.<claim id>/<name>`; the name is decoration."""
    return f"/c/{drop_id}.{claim_id}/{quote(clean_name(name), safe='')}"


def parse_claim(segment: str) -> tuple[DropId, str]:
    """Drop id and claim id from the `<drop id>.<claim id>` segment of a claim URL.

    Raises:
        LinkUnknown: It has another form.
    """
    drop_id, _, claim_id = segment.partition(".")
    if not is_drop_id(drop_id) or not is_secret(claim_id):
        raise LinkUnknown("There is no such link.")
    return DropId(drop_id), claim_id
