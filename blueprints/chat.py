"""``POST /api/chat``: a model's answer as it is made, for people with ``curl`` and for the AI SDK's useChat."""

from __future__ import annotations

import uuid

import openai
from flask import Blueprint, Response, current_app, request

from llm import messages
from llm.openai import complete, make_client
from streaming import bodies
from streaming.chat_framings import ChatText, DataStream, UIMessageStream
from streaming.cursors import Parameters
from streaming.errors import BadRequest, UnsupportedType
from streaming.feeds import Feed
from streaming.framings import Framing
from streaming.response import Begun, respond

blueprint = Blueprint("chat", __name__)

PROTOCOLS = ("text", "data", "ui")
PROTOCOL_OF_SHAPE: dict[messages.Shape, str] = {"content": "text", "parts": "data", "trigger": "ui"}


@blueprint.post("/api/chat")
def chat() -> Response:
    settings = current_app.extensions["settings"]
    query = Parameters("protocol", "durable")
    asked = _asked_protocol(query)
    question = _question()
    client = _client()
    limits = {"first_token_s": settings.CHAT_FIRST_TOKEN_S, "idle_s": settings.CHAT_IDLE_S}
    feed = Feed(lambda: complete(client, settings.CHAT_MODEL, question.messages, **limits))
    # A model that refuses does so soon, and this wait makes it a real status; a slow one only gets its headers later.
    answer = Begun(feed, within_s=settings.CHAT_HEADERS_S)
    return respond(answer, _framing(asked or PROTOCOL_OF_SHAPE[question.shape]), durable=query.flag("durable"))


@blueprint.after_request
def plain_errors(response: Response) -> Response:
    """Let an error be one plain sentence: chat clients show its body as it is. Who asks for JSON gets problem+json."""
    if response.mimetype == "application/problem+json" and not _prefers_json():
        response.set_data(response.get_json()["detail"])
        response.content_type = "text/plain; charset=utf-8"
    return response


def _asked_protocol(query: Parameters) -> str:
    """Return the protocol that the parameter asks for, else the header, else ""."""
    if asked := query.choice("protocol", "", *PROTOCOLS):
        return asked
    asked = request.headers.get("X-Stream-Protocol", "")
    if asked not in ("", *PROTOCOLS):
        sentence = f"X-Stream-Protocol must be one of {', '.join(PROTOCOLS)}, and {asked[:40]!r} is not."
        raise BadRequest(sentence, parameter="X-Stream-Protocol")
    return asked


def _question() -> messages.Question:
    if not request.is_json:
        raise UnsupportedType("Send the body as JSON, with Content-Type: application/json.")
    body_s = current_app.extensions["settings"].BODY_TIMEOUT_S
    return messages.read(bodies.read_all(request.environ, messages.LIMIT_BYTES, body_s))


def _framing(protocol: str) -> Framing:
    message_id = f"msg-{uuid.uuid4().hex}"
    if protocol == "text":
        return ChatText()
    return DataStream(message_id) if protocol == "data" else UIMessageStream(message_id)


def _client() -> openai.OpenAI:
    """Return this process's client. It is made at its first use: its connections must not be shared by a fork."""
    extensions = current_app.extensions
    if "openai" not in extensions:
        extensions["openai"] = make_client(extensions["settings"])
    client: openai.OpenAI = extensions["openai"]
    return client


def _prefers_json() -> bool:
    offers = ["text/plain", "application/problem+json", "application/json"]
    return (request.accept_mimetypes.best_match(offers) or "text/plain") != "text/plain"
