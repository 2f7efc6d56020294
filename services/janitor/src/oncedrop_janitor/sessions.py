"""The operator's session in a browser: a cookie that proves the admin token without holding it.

Nothing is stored, so every janitor with the same token knows it. It cannot be called back before
its time is over, except by another admin token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time

from pydantic import SecretStr
from starlette.requests import Request

from oncedrop_common.credentials import credentials
from oncedrop_common.errors import AdminUnauthorized
from oncedrop_common.tokens import same_secret

SESSION_COOKIE = "oncedrop_operator"
SESSION_SECONDS = 8 * 3600
_VALUE = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Sessions:
    """Who is the operator.

    Args:
        admin_token: None: nobody is.
        secure: Whether people reach the janitor by https, whatever a single request says.
    """

    def __init__(self, admin_token: SecretStr | None, *, secure: bool) -> None:
        self._admin_token = admin_token
        self._secure = secure

    def require(self, request: Request) -> None:
        """Let pass who sends the admin token, or has logged in.

        A cookie comes along by itself, so with a cookie only the janitor's own pages may ask for
        changes: `SameSite=Strict` sees to that in every browser of today, and Sec-Fetch-Site
        (Fetch Metadata) once more.

        Raises:
            AdminUnauthorized: It is somebody else, or no token is configured.
        """
        if self._admin_token is None:
            raise AdminUnauthorized("No admin token is configured; set ONCEDROP_ADMIN_TOKEN.")
        given = credentials(request, "bearer")
        if given is None and self.logged_in(request):
            own = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
            if own or request.method in ("GET", "HEAD"):
                return
        if given is None or not self.is_token(given):
            raise AdminUnauthorized("This needs the admin token, as a bearer token.")

    def is_token(self, given: str) -> bool:
        """Whether this is the admin token; takes the same time wherever it differs."""
        expected = self._admin_token
        return expected is not None and same_secret(given, expected.get_secret_value())

    def logged_in(self, request: Request) -> bool:
        """Whether the request brings a session whose time is not over."""
        match = _VALUE.fullmatch(request.cookies.get(SESSION_COOKIE, ""))
        if match is None or self._admin_token is None:
            return False
        expires = int(match[1])
        return same_secret(match[2], self._proof(expires)) and expires > time.time()

    def cookie(self, request: Request) -> str:
        """The Set-Cookie value that logs in.

        Without a Path it goes back to the folder it came from (RFC 6265 section 5.1.4): to all of
        the janitor, and behind the gateway to nothing else.
        """
        expires = int(time.time()) + SESSION_SECONDS
        return self._attributes(request, f"{expires}.{self._proof(expires)}", SESSION_SECONDS)

    def no_cookie(self, request: Request) -> str:
        """The Set-Cookie value that logs out."""
        return self._attributes(request, "", 0)

    def _attributes(self, request: Request, value: str, seconds: int) -> str:
        secure = "; Secure" if self._secure or request.url.scheme == "https" else ""
        return f"{SESSION_COOKIE}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"

    def _proof(self, expires: int) -> str:
        token = self._admin_token.get_secret_value() if self._admin_token else ""
        # A key of its own, so that the proof is good for nothing but this.
        key = hmac.digest(token.encode(), b"oncedrop operator session", hashlib.sha256)
        proof = hmac.digest(key, str(expires).encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
