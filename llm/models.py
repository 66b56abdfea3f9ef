"""The models by name: where each is, and what it is asked (CHAT_MODELS, CHAT_SYSTEM).

Rules:
- A key goes to its own server only: a model without one has none, also where OPENAI_API_KEY is set.
- Clients are made at their first use, in the process that uses them: connections must not be shared by a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
import openai

from llm.clients import client_for
from llm.messages import Question
from llm.openai import Limits, complete
from settings import Settings
from streaming.errors import NotFound
from streaming.events import Event


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    base_url: str = ""
    api_key: str = ""
    model: str = ""


class Models:
    """Raises SystemExit with one sentence when CHAT_MODELS cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._entries = _entries(settings)
        self._clients: dict[tuple[str, str], openai.OpenAI] = {}
        self._system = settings.CHAT_SYSTEM
        limits = settings.CHAT_FIRST_TOKEN_S, settings.CHAT_IDLE_S, settings.CHAT_TOTAL_S
        self._limits = Limits(*limits, settings.CHAT_RETRIES)
        self.default = settings.CHAT_MODEL if settings.CHAT_MODEL in self._entries else next(iter(self._entries))

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def named(self, name: str) -> str:
        """Return the name of the model that answers who asks for ``name``. Raises NotFound."""
        if name and name not in self._entries:
            raise NotFound(f"There is no model {name[:80]!r} here.", parameter="model")
        return name or self.default

    def asked(self, name: str, question: Question) -> Callable[[Callable[[Event], bool]], Iterator[Event | None]]:
        """Return the call that asks the model ``name`` (one of ``names``): see ``llm.openai.complete``."""
        entry = self._entries[name]
        messages = [*self._prompt(), *question.messages]
        client = self._client(entry.base_url, entry.api_key)
        return partial(complete, client, entry.model or name, messages, self._limits, **question.parameters)

    def _prompt(self) -> list[Mapping[str, Any]]:
        return [{"role": "system", "content": self._system}] if self._system else []

    def _client(self, base_url: str, api_key: str) -> openai.OpenAI:
        key = base_url, api_key
        if key not in self._clients:
            self._clients[key] = client_for(base_url, api_key)
        return self._clients[key]


def _entries(settings: Settings) -> dict[str, _Entry]:
    if not settings.CHAT_MODELS:
        return {settings.CHAT_MODEL: _Entry(settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY)}
    try:
        entries = msgspec.json.decode(settings.CHAT_MODELS, type=dict[str, _Entry])
    except msgspec.DecodeError as error:
        raise SystemExit(f"CHAT_MODELS cannot be read: {error}.") from None
    if not entries:
        raise SystemExit("CHAT_MODELS names no model.")
    return entries
