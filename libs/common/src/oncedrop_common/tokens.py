"""Secrets in links: minted here, compared here, stored only as digests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from oncedrop_common.drops import ClaimHash, DropId

SECRET_BYTES = 16
# 128 bits in base64url are 22 characters of which the last carries 2 bits: A, Q, g or w.
_SECRET = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]", re.ASCII)
_DROP_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def mint() -> str:
    """A new secret (token, owner key or claim id): 16 random bytes as 22 base64url characters."""
    return base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()


def is_secret(text: str) -> bool:
    """Whether text has the one canonical form of a minted secret."""
    return _SECRET.fullmatch(text) is not None


def is_drop_id(text: str) -> bool:
    """Whether text has the form of a drop id or a claim hash: 32 lower-case hex digits."""
    return _DROP_ID.fullmatch(text) is not None


def _digest(purpose: str, secret: str, length: int) -> str:
    return hashlib.sha256(f"{purpose}:{secret}".encode(errors="surrogatepass")).hexdigest()[:length]


def drop_id(token: str) -> DropId:
    """The drop id that this token leads to."""
    return DropId(_digest("oncedrop", token, 32))


def claim_hash(claim_id: str) -> ClaimHash:
    """The digest under which a claim is known to Redis and the volume."""
    return ClaimHash(_digest("oncedrop-claim", claim_id, 32))


def owner_hash(owner_key: str) -> str:
    """The digest under which an owner key is stored."""
    return _digest("oncedrop-owner", owner_key, 64)


def owner_key_matches(owner_key: str, stored_hash: str) -> bool:
    """Whether the key belongs to the stored digest; takes the same time either way."""
    return hmac.compare_digest(owner_hash(owner_key), stored_hash)


def same_secret(given: str, expected: str) -> bool:
    """Whether two secrets are equal; takes the same time wherever they differ."""
    return hmac.compare_digest(
        given.encode(errors="surrogatepass"), expected.encode(errors="surrogatepass")
    )
