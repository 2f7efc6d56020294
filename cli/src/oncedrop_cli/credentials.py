"""Passwords and tokens come from a terminal, a file or the environment, never from an argument.

Every process on the machine may read every other's arguments, and shells write them down.
"""

from __future__ import annotations

import getpass
import os
import unicodedata
import warnings

from oncedrop_cli.failures import LocalFailure, UsageFailure

UPLOAD_TOKEN = "ONCEDROP_UPLOAD_TOKEN"  # noqa: S105 - a variable's name
_FILE_BYTES = 4096


def ask_password(*, twice: bool = False) -> str:
    """A password from the terminal, without echo.

    Args:
        twice: Ask again, so that a slip does not lock everybody out.

    Raises:
        UsageFailure: There is no terminal, or the two differ.
    """
    password = _ask("Password: ")
    if twice and _ask("The same again: ") != password:
        raise UsageFailure("The two passwords differ.")
    if not password:
        raise UsageFailure("An empty password is none.")
    return password


def _ask(prompt: str) -> str:
    with warnings.catch_warnings():
        # Without a terminal getpass would warn, and then read with echo.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except (getpass.GetPassWarning, EOFError):
            raise UsageFailure(
                "There is no terminal to ask for the password; --password-file names a file."
            ) from None


def secret_in(path: str, what: str) -> str:
    """A secret that a file holds, without the line's end.

    Raises:
        LocalFailure: The file cannot be read.
        UsageFailure: It holds nothing, too much, or more than a line of text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_BYTES + 1)
    except OSError as exc:
        raise LocalFailure(f"{path}: {exc.strerror}.") from exc
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageFailure(f"{path}: the {what} is not UTF-8.") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret or len(content) > _FILE_BYTES or _has_controls(secret):
        raise UsageFailure(f"{path}: this should be a line of text, the {what}.")
    return secret


def upload_token(path: str | None) -> str | None:
    """The token that the server may want for uploads, from this file or the environment.

    Raises:
        LocalFailure, UsageFailure: As secret_in; or it cannot be a token.
    """
    token = secret_in(path, "upload token") if path else os.environ.get(UPLOAD_TOKEN, "").strip()
    if not token.isascii() or _has_controls(token):
        raise UsageFailure("The upload token has characters that no token has.")
    return token or None


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(c) == "Cc" for c in text)
