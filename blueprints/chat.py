"""``/api/chat``: a model's answer as it is made, for people with ``curl`` and for the AI SDK's useChat.

A POST begins a run, or joins one; what it answers is a reader of it, and so is every resumption.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Blueprint, Response, current_app, jsonify, request

from llm import messages
from llm.models import Models
from settings import Settings
from streaming import bodies, callers, chat_answers
from streaming.chat_answers import chats
from streaming.chat_framings import ChatText, DataStream, UIMessageStream
from streaming.chat_index import digest
from streaming.chat_parts import Parts
from streaming.chats import Ask
from streaming.completion_framings import CompletionChunks
from streaming.cursors import Parameters
from streaming.errors import BadRequest, NotFound, UnsupportedType
from streaming.framings import Framing
from streaming.response import respond

blueprint = Blueprint("chat", __name__)

PROTOCOLS = ("text", "data", "ui", "openai")
PROTOCOL_OF_SHAPE: dict[messages.Shape, str] = {"content": "text", "parts": "data", "trigger": "ui"}
PROTOCOL_OF_ACCEPT = {"text/plain": "text", "text/event-stream": "ui"}


@blueprint.post("/api/chat")
def chat() -> Response:
    settings, models = _settings(), _models()
    query = Parameters("protocol", "durable")
    asked = _asked_protocol(query)
    body = _body()
    question = messages.read(body, settings.CHAT_MAX_TOKENS)
    model = models.named(question.model)
    parts = Parts(question.continues, model, int(time.time()), question.size)
    run_id, new = chats().begin(_ask(question, body), parts, models.asked(model, question))
    # A model that refuses does so soon, and this wait makes it a real status; a slow one only gets its headers later.
    answer = chat_answers.begun(run_id, settings.CHAT_HEADERS_S)
    headers = chat_answers.headers(run_id) | ({} if new else {"X-Run-Joined": "true"})
    framing = _framing(asked or PROTOCOL_OF_SHAPE[question.shape], run_id)
    return respond(answer, framing, headers=headers, durable=query.flag("durable"))


@blueprint.get("/api/chat")
def resume_of_v4() -> Response:
    """What useChat of the AI SDK 4 asks when its page is opened: an empty answer where there is none, never a 204."""
    query = Parameters("chatId", "protocol", "running")
    return _resumed(query, request.args.get("chatId", ""), "data", lambda: _empty_text(200))


@blueprint.get("/api/chat/<id>/stream")
def resume(id: str) -> Response:
    """The whole answer from its beginning, or from Last-Event-ID; 204 where there is none."""
    return _resumed(Parameters("protocol", "running"), id, "ui", lambda: _empty_text(204))


@blueprint.post("/api/chat/<id>/stop")
def stop(id: str) -> Response:
    """End the chat's answer where it is, whoever makes it; what came is kept."""
    Parameters()
    return jsonify(chats().stop(chat_answers.find("write", id)))


@blueprint.after_request
def plain_errors(response: Response) -> Response:
    """Let an error be one plain sentence: chat clients show its body as it is. Who asks for JSON gets problem+json."""
    if response.mimetype == "application/problem+json" and not _prefers_json():
        response.set_data(response.get_json()["detail"])
        response.content_type = "text/plain; charset=utf-8"
    return response


def _resumed(query: Parameters, chat: str, protocol: str, nothing: Callable[[], Response]) -> Response:
    protocol = _asked_protocol(query) or protocol
    try:
        run_id = chat_answers.find("read", chat)
    except NotFound:
        return nothing()
    # OpenAI's chunks have no ids to go on after, and each needs what the first part says.
    number = 0 if protocol == "openai" else chat_answers.place(run_id)
    ended = (query.flag("running") or number < 0) and chats().ended(run_id)
    if ended or number < 0:
        return nothing()
    return respond(
        chats().read(run_id, number), _framing(protocol, run_id, number), headers=chat_answers.headers(run_id)
    )


def _empty_text(status: int) -> Response:
    return Response(status=status, content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})


def _ask(question: messages.Question, body: bytes) -> Ask:
    """What makes it the question that was asked before: its chat, its last message, and what its client wants."""
    same = (question.chat, question.last_id, question.trigger, question.message_id)
    last = str(question.messages[-1])
    return Ask(
        question.chat,
        chat_answers.caller(),
        digest(*same, last) if question.chat and question.last_id else "",
        chat_answers.idempotency_key(),
        digest(body),
        callers.mark(),
    )


def _asked_protocol(query: Parameters) -> str:
    """Return the protocol that the parameter asks for, else the header, else ``Accept``, else ""."""
    if asked := query.choice("protocol", "", *PROTOCOLS):
        return asked
    asked = request.headers.get("X-Stream-Protocol", "")
    if asked not in ("", *PROTOCOLS):
        sentence = f"X-Stream-Protocol must be one of {', '.join(PROTOCOLS)}, and {asked[:40]!r} is not."
        raise BadRequest(sentence, parameter="X-Stream-Protocol")
    # Who takes anything, too, has no wish: libraries send such lists by themselves.
    accepted = [value.partition(";")[0].lower() for value, quality in request.accept_mimetypes if quality > 0]
    return asked or (PROTOCOL_OF_ACCEPT.get(accepted[0], "") if len(accepted) == 1 else "")


def _body() -> bytes:
    if not request.is_json:
        raise UnsupportedType("Send the body as JSON, with Content-Type: application/json.")
    return bodies.taken(messages.LIMIT_BYTES)


def _framing(protocol: str, run_id: str, number: int = 0) -> Framing:
    if protocol == "text":
        return ChatText()
    if protocol == "openai":
        return CompletionChunks(with_usage=True)
    return DataStream() if protocol == "data" else UIMessageStream(run_id[-6:], number)


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _models() -> Models:
    models: Models = current_app.extensions["models"]
    return models


def _prefers_json() -> bool:
    offers = ["text/plain", "application/problem+json", "application/json"]
    return (request.accept_mimetypes.best_match(offers) or "text/plain") != "text/plain"
