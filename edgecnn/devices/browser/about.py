"""What a page says of its browser, in words."""

from __future__ import annotations

import re
from typing import Any

from edgecnn.errors import one_line

# In this order: each names those below it too, to be served the same pages.
_BROWSERS = (
    ("Edge", r"Edg(?:A|iOS)?/(\d+)"),
    ("Opera", r"OPR/(\d+)"),
    ("Samsung Internet", r"SamsungBrowser/(\d+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
    ("headless Chrome", r"HeadlessChrome/(\d+)"),
    ("Chrome", r"(?:Chrome|CriOS)/(\d+)"),
    ("Safari", r"Version/(\d+).*Safari/"),
)
_SYSTEMS = (
    ("Android", r"Android (\d+)"),
    ("iOS", r"(?:iPhone|iPad).* OS (\d+)"),
    ("Windows", r"Windows NT()"),
    ("ChromeOS", r"CrOS()"),
    ("macOS", r"Mac OS X()"),
    ("Linux", r"Linux()"),
)


def browser_name(user_agent: str) -> str:
    """Name and main version, as in ``Chrome 156``."""
    return _first(_BROWSERS, user_agent) or "a browser"


def system_name(about: dict[str, Any]) -> str | None:
    """The operating system, as in ``Android 16``; None where the browser does not tell.

    Chromium's user agent says "Android 10" everywhere; what it answers when asked is right.
    """
    platform, version = text_of(about, "platform"), text_of(about, "platform_version")
    if platform:
        return f"{platform} {version.partition('.')[0]}".strip() if platform == "Android" else platform
    return _first(_SYSTEMS, text_of(about, "user_agent"))


def text_of(about: dict[str, Any], key: str) -> str:
    """A text that the page gave, on one line of bearable length; empty where it gave none."""
    value = about.get(key)
    return one_line(value, 300) if isinstance(value, str) and value.strip() else ""


def _first(patterns: tuple[tuple[str, str], ...], text: str) -> str | None:
    for name, pattern in patterns:
        if found := re.search(pattern, text):
            return f"{name} {found.group(1)}".strip()
    return None
