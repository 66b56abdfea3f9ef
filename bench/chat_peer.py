"""The peer of the chat bench: the openai client's typed chunks through a plain Flask stream, as examples have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
from flask import Flask, Response, request

app = Flask(__name__)
_clients: list[openai.OpenAI] = []


def _client() -> Any:
    if not _clients:
        _clients.append(openai.OpenAI(max_retries=0))
    return _clients[0]


@app.post("/chat")
def chat() -> Response:
    messages = request.get_json()["messages"]

    def pieces() -> Iterator[str]:
        stream = _client().chat.completions.create(model="bench", messages=messages, stream=True)
        for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text

    return Response(pieces(), mimetype="text/plain")
