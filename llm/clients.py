"""The real client of a model's server: which transport is behind it, and how its connections are bounded."""

from __future__ import annotations

from urllib.request import getproxies

import httpx2
import openai

from llm.offline import OfflineTransport
from llm.transport import Transport
from settings import Settings


def make_client(settings: Settings) -> openai.OpenAI:
    """Return the client of this process; with neither key nor base URL the offline model answers behind it."""
    return client_for(settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY)


def client_for(base_url: str, api_key: str) -> openai.OpenAI:
    """Return a client of that server; without both the offline model answers behind it, without a URL OpenAI does.

    Make it after the fork. It is safe for any number of greenlets; whoever made it closes it.
    """
    offline = not (api_key or base_url)
    base_url = "http://offline.invalid/v1" if offline else base_url or "https://api.openai.com/v1"
    # Through a proxy httpx2 knows the way; a full pool there would wait silently, so its bound is not one.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.0)
    transport = OfflineTransport() if offline else None if getproxies() else Transport()
    return openai.OpenAI(
        api_key=api_key.strip() or "none-needed",
        base_url=base_url,
        max_retries=0,
        http_client=openai.DefaultHttpx2Client(limits=limits, transport=transport),
    )
