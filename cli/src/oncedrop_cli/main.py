"""The command: what is asked for, who does it, and how it ends."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from oncedrop_cli.credentials import UPLOAD_TOKEN, ask_password, secret_in, upload_token
from oncedrop_cli.display import Display
from oncedrop_cli.failures import INTERRUPTED, Failure, LocalFailure, UsageFailure
from oncedrop_cli.get import GIVE_UP_SECONDS, STDOUT, Getting, get
from oncedrop_cli.links import download_link, receipt_link, server_address
from oncedrop_cli.receipts import delete, status
from oncedrop_cli.send import Sending, send
from oncedrop_cli.server import VERSION

SERVER = "ONCEDROP_SERVER"
_DEFAULT_SERVER = "http://localhost:8001"
_TTL = re.compile(r"[0-9A-Za-z]{1,20}")
_EPILOG = f"""\
exit codes:
  0  done
  1  this machine: a file, the disk, a terminal
  2  the command is not understood
  3  there is no such link
  4  the link is used up, being used, expired, deleted or locked
  5  the server refuses: token, password, size, an option, held by another
  6  nobody answers, or the line broke for too long
  7  the SHA-256 is not that of what was sent
  130  interrupted (Ctrl-C)

environment:
  {SERVER}        the server to send to ({_DEFAULT_SERVER})
  {UPLOAD_TOKEN}  the token it may want for that
  HTTPS_PROXY, SSL_CERT_FILE, NO_COLOR  as usual
"""


def run() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Do what is asked for; the exit code."""
    display = Display(quiet=True)
    try:
        arguments = _parse(argv)
        display = Display(quiet=arguments.quiet)
        _COMMANDS[arguments.command](arguments, display)
        sys.stdout.flush()
    except Failure as exc:
        display.failure(str(exc))
        return exc.code
    except KeyboardInterrupt:
        display.failure("interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter's own flush must not say so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        display.failure("nobody reads the output any more.")
        return LocalFailure.code
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    if any(argument.startswith("--password=") for argument in argv):
        raise UsageFailure(
            "--password takes no value, for every process can read it there; it asks."
            " --password-file names a file."
        )
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oncedrop",
        description="Send a file, get a link that works once; get the file behind such a link.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"oncedrop {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_send(commands)
    _add_get(commands)
    for name, what in (
        ("status", "tell what became of a drop"),
        ("delete", "end a drop now"),
    ):
        command = _add(commands, name, what)
        command.add_argument(
            "receipt", metavar="RECEIPT", help="the receipt's link; - reads it from standard input"
        )
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", allow_abbrev=False
    )
    command.add_argument("--json", action="store_true", help="the result as one line of JSON")
    command.add_argument(
        "-q", "--quiet", action="store_true", help="nothing but the result and failures"
    )
    return command


def _add_send(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "send", "upload and print the link")
    command.add_argument(
        "paths",
        nargs="+",
        metavar="FILE",
        help="file or folder, several become one zip; - is standard input",
    )
    command.add_argument("--name", help="the file's name, where it shall be another")
    command.add_argument(
        "--server", metavar="URL", help=f"where to (${SERVER}, else {_DEFAULT_SERVER})"
    )
    command.add_argument(
        "--upload-token-file", metavar="PATH", help=f"holds the upload token (else ${UPLOAD_TOKEN})"
    )
    command.add_argument("--ttl", type=_ttl, help="how long the link works: 90s, 45m, 2h, 7d")
    command.add_argument("--max-downloads", type=int, metavar="N", help="how many may download (1)")
    password = command.add_mutually_exclusive_group()
    password.add_argument(
        "--password", action="store_true", help="ask for a password that the receiver will need"
    )
    password.add_argument("--password-file", metavar="PATH", help="holds that password")
    command.add_argument(
        "--if-interrupted",
        choices=("burn", "restore"),
        help="when a download broke off for good: remove the file, or let the next one have it",
    )
    command.add_argument(
        "--no-resume", action="store_true", help="who breaks off has no second chance"
    )
    command.add_argument(
        "--confirm", action="store_true", help="programs get the page with the button too"
    )


def _add_get(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "get", "download what a link leads to, resuming where the line breaks")
    command.add_argument("link", metavar="LINK", help="- reads it from standard input")
    command.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="file or folder (else its own name, here); - is standard output",
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    command.add_argument("--password-file", metavar="PATH", help="holds the password (else asked)")
    command.add_argument(
        "--give-up-after",
        type=float,
        default=GIVE_UP_SECONDS,
        metavar="SECONDS",
        help="how long to try again without progress (%(default)s)",
    )


def _ttl(text: str) -> str:
    if not _TTL.fullmatch(text):
        raise argparse.ArgumentTypeError("a time is like 90s, 45m, 2h or 7d")
    return text


def _send(arguments: argparse.Namespace, display: Display) -> None:
    server = server_address(arguments.server or os.environ.get(SERVER) or _DEFAULT_SERVER)
    options = {
        "Ttl": arguments.ttl,
        "Max-Downloads": arguments.max_downloads,
        "If-Interrupted": arguments.if_interrupted,
        "Resume": "0" if arguments.no_resume else None,
        "Confirm": "always" if arguments.confirm else None,
        "Password": _new_password(arguments),
    }
    send(
        Sending(
            server=server,
            paths=arguments.paths,
            name=arguments.name,
            options={name: str(value) for name, value in options.items() if value is not None},
            token=upload_token(arguments.upload_token_file),
            as_json=arguments.json,
        ),
        display,
    )


def _new_password(arguments: argparse.Namespace) -> str | None:
    if arguments.password_file:
        password = secret_in(arguments.password_file, "password")
    elif arguments.password:
        password = ask_password(twice=True)
    else:
        return None
    if password != password.strip():
        # It travels in a header, which loses them (RFC 9110 section 5.5).
        raise UsageFailure("A password neither begins nor ends with a space.")
    return password


def _get(arguments: argparse.Namespace, display: Display) -> None:
    if arguments.json and arguments.output == STDOUT:
        raise UsageFailure("Standard output is for the file already: no --json.")
    get(
        Getting(
            link=download_link(arguments.link),
            output=arguments.output,
            force=arguments.force,
            password=_password(arguments),
            give_up_seconds=arguments.give_up_after,
            as_json=arguments.json,
        ),
        display,
    )


def _password(arguments: argparse.Namespace) -> str | None:
    path: str | None = arguments.password_file
    return secret_in(path, "password") if path else None


def _status(arguments: argparse.Namespace, display: Display) -> None:
    status(receipt_link(arguments.receipt), display, as_json=arguments.json)


def _delete(arguments: argparse.Namespace, display: Display) -> None:
    delete(receipt_link(arguments.receipt), display, as_json=arguments.json)


_COMMANDS = {"send": _send, "get": _get, "status": _status, "delete": _delete}
