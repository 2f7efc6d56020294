"""Looking is free: who only looks is told from who takes."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from starlette.datastructures import Headers

from oncedrop_common.drops import Confirm
from oncedrop_deliver.looking import PREVIEW_AGENTS, Look, why_looking

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/138.0.0.0 Safari/537.36"
)
CHROME_ACCEPT = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
)

LOOKERS = [
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Slackbot 1.0 (+https://api.slack.com/robots)",
    "Slack-ImgProxy (+https://api.slack.com/robots)",
    "TelegramBot (like TwitterBot)",
    "WhatsApp/2.23.20.0 A",
    "WhatsApp/2",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Facebot/1.0",
    "meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)",
    "Twitterbot/1.0",
    "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
    CHROME + " Edg/112.0.1722.48 MicrosoftPreview/2.0 +https://aka.ms/MicrosoftPreview",
    "Iframely/1.3.1 (+https://iframely.com/docs/about) Atlassian",
    "Mozilla/5.0 (compatible; Embedly/0.2; +http://support.embed.ly/)",
    "Mozilla/5.0 Google-PageRenderer Google (+https://developers.google.com/+/web/snippet/)",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    CHROME + " (compatible; Google-Read-Aloud; +https://developers.google.com/search/docs)",
    "APIs-Google (+https://developers.google.com/webmasters/APIs-Google.html)",
    "GoogleMessages/20.2 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) (Applebot/0.1; +http://www.apple.com/go/applebot)",
    # iMessage
    "Mozilla/5.0 (Macintosh) Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
    "Mattermost-Bot/1.1",
    CHROME + " Rocket.Chat/7.0.0",
    "Synapse (bot; +https://github.com/matrix-org/synapse)",
    "http.rb/5.1.1 (Mastodon/4.2.10; +https://mastodon.social/) Bot",
    "Mastodon/4.3.0 (http.rb/5.2.0; +https://mastodon.social/) Bot",
    "Pleroma 2.5.0; https://pleroma.example <admin@pleroma.example>; Bot",
    "Viber",
    "facebookexternalhit/1.1;line-poker/1.0",
    "facebookexternalhit/1.1; kakaotalk-scrap/1.0; +https://devtalk.kakao.com/t/scrap/33984",
    "Mozilla/5.0 (compatible; redditbot/1.0; +http://www.reddit.com/feedback)",
    "Mozilla/5.0 (compatible; Pinterestbot/1.0; +http://www.pinterest.com/bot.html)",
    "Mozilla/5.0 (compatible; vkShare; +http://vk.com/dev/Share)",
    CHROME + " BingPreview/1.0b",
    "Mozilla/4.0 (compatible; ms-office; MSOffice 16)",
    "Microsoft Office Existence Discovery",
    "MSOffice 16",
    CHROME + " Edg/117.0.2045.47 OneOutlook/1.2023.927.100",
    "Mozilla/5.0 (compatible; MS Defender SmartScreen URL Reputation)",
    "CiscoSecureEmail",
    "Barracuda Sentinel (EE)",
    "Snap URL Preview Service; bot; snapchat; https://developers.snap.com/robots",
    "Mozilla/5.0 (compatible; ZulipURLPreview/9.0; +https://zulip.example)",
    "Nextcloud Server Crawler",
    "SLACKBOT-LINKEXPANDING 1.0",
]

TAKERS = [
    "",
    "curl/8.5.0",
    "Wget/1.21.4",
    "Wget/1.20 (linux-gnu)",
    "Wget2/2.1.0",
    "aria2/1.37.0",
    "axel/2.17.11 (Linux)",
    "HTTPie/3.2.2",
    "xh/0.22.2",
    "python-requests/2.32.3",
    "python-httpx/0.28.1",
    "Python-urllib/3.12",
    "Python/3.12 aiohttp/3.9.5",
    "Go-http-client/1.1",
    "Go-http-client/2.0",
    "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.22621.2506",
    "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.22631; en-US) PowerShell/7.4.1",
    "Microsoft BITS/7.8",
    "CertUtil URL Agent",
    "axios/1.7.2",
    "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
    "undici",
    "okhttp/4.12.0",
    "Java/17.0.2",
    "Apache-HttpClient/4.5.14 (Java/17.0.2)",
    "libwww-perl/6.72",
    "Ruby",
    "GuzzleHttp/7",
    "reqwest/0.12.4",
    "Deno/1.44.0",
    "Dart/3.4 (dart:io)",
    "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8)",
    "CFNetwork/1494.0.7 Darwin/23.4.0",
    "fetch libfetch/2.0",
    "lftp/4.9.2",
    "rclone/v1.66.0",
    "restic/0.16.4",
    "Mozilla/5.0 (Linux) mirall/3.13.0 (Nextcloud)",
    "Debian APT-HTTP/1.3 (2.6.1)",
    "Homebrew/4.3.0",
    "Lavf/60.16.100",
    "VLC/3.0.20 LibVLC/3.0.20",
    "PostmanRuntime/7.39.0",
    "insomnia/9.2.0",
    "Transmission/4.0.5",
    "FDM/6.22",
    CHROME,
]


def headers(*fields: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.lower().encode(), text.encode()) for name, text in fields])


@pytest.mark.parametrize("agent", LOOKERS)
def test_a_preview_agent_looks(agent: str) -> None:
    asked = headers(("User-Agent", agent), ("Accept", "*/*"))
    assert why_looking(asked) is Look.AGENT


@pytest.mark.parametrize("agent", TAKERS)
def test_a_program_takes(agent: str) -> None:
    assert why_looking(headers(("User-Agent", agent), ("Accept", "*/*"))) is None
    assert why_looking(headers(("User-Agent", agent))) is None


def test_a_request_without_any_header_takes() -> None:
    assert why_looking(headers()) is None


@pytest.mark.parametrize(
    "accept",
    [
        CHROME_ACCEPT,
        "text/html",
        "TEXT/HTML",
        "text/html;q=0.1, */*",
        "text/html;level=1",
        "*/*, text/html ; q=0.001",
        "application/json,\ttext/html",
    ],
)
def test_who_accepts_html_by_name_looks(accept: str) -> None:
    assert why_looking(headers(("Accept", accept))) is Look.HTML


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/*",
        "*/*;q=0.8",
        "application/json, */*;q=0.5",
        "application/octet-stream",
        "application/xhtml+xml",
        "text/html-ish",
        "x-text/html",
        "text/html;q=0",
        "text/html;q=0.0, */*",
        "text/html; Q=0.000",
        "text/html;level=1;q=0",
        "image/avif,image/webp,*/*;q=0.8",
    ],
)
def test_who_does_not_ask_for_html_takes(accept: str) -> None:
    assert why_looking(headers(("Accept", accept))) is None


def test_html_in_a_second_accept_line_counts() -> None:
    assert why_looking(headers(("Accept", "*/*"), ("Accept", "text/html"))) is Look.HTML


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Sec-Purpose", "prefetch;anonymous-client-ip"),
        ("Sec-Purpose", "Prefetch"),
        ("Purpose", "prefetch"),
        ("Purpose", "preview"),
        ("X-Moz", "prefetch"),
        ("X-Purpose", "preview"),
        ("X-Purpose", ": preview"),
        ("X-Purpose", "instant"),
    ],
)
def test_who_announces_a_prefetch_looks(name: str, value: str) -> None:
    asked = headers(("User-Agent", CHROME), ("Accept", "*/*"), (name, value))
    assert why_looking(asked) is Look.PREFETCH


@pytest.mark.parametrize("value", ["", "navigate", "unprefetched", "download"])
def test_another_purpose_takes(value: str) -> None:
    assert why_looking(headers(("Purpose", value), ("Sec-Purpose", value))) is None


def test_a_drop_that_is_always_confirmed_is_only_looked_at() -> None:
    asked = headers(("User-Agent", "curl/8.5.0"), ("Accept", "*/*"))
    assert why_looking(asked, Confirm.ALWAYS) is Look.CONFIRM
    assert why_looking(asked, Confirm.AUTO) is None


def test_the_reason_is_the_first_that_applies() -> None:
    browser = (("Accept", CHROME_ACCEPT), ("Sec-Purpose", "prefetch"))
    assert why_looking(headers(*browser), Confirm.ALWAYS) is Look.PREFETCH
    assert why_looking(headers(*browser, ("User-Agent", "Twitterbot/1.0"))) is Look.AGENT
    assert why_looking(headers(browser[0]), Confirm.ALWAYS) is Look.HTML


def test_every_agent_on_the_list_has_a_source() -> None:
    text = resources.files("oncedrop_deliver").joinpath("looking_agents.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(PREVIEW_AGENTS)
    for line in lines:
        assert re.fullmatch(r"[^#]*[^# ] +# .*https?://\S+.*", line), line


def test_no_agent_on_the_list_is_short_or_covered_by_another() -> None:
    assert all(len(agent) >= 5 and agent.isascii() for agent in PREVIEW_AGENTS)
    for agent in PREVIEW_AGENTS:
        assert [known for known in PREVIEW_AGENTS if known in agent] == [agent]
