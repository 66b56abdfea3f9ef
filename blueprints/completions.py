"""``/v1/chat/completions`` and ``/v1/models``: this server as the base URL of any OpenAI client.

An answer is a run as at ``/api/chat``, and can be read, resumed and stopped there under its run's id.
"""

from __future__ import annotations

import time

from flask import Blueprint, Response, current_app, jsonify, request

from llm import messages
from llm.models import Models
from settings import Settings
from streaming import bodies, callers, chat_answers, wire
from streaming.begun import Begun
from streaming.chat_answers import chats
from streaming.chat_index import digest
from streaming.chat_parts import Parts
from streaming.chats import Ask
from streaming.completion_framings import Completion, CompletionChunks, error_body
from streaming.cursors import Parameters
from streaming.errors import ClientLeft, StreamFailed, Unauthorized, UnsupportedType, UpstreamFailed
from streaming.events import Event
from streaming.response import respond

blueprint = Blueprint("completions", __name__)


@blueprint.post("/v1/chat/completions")
def completions() -> Response:
    settings, models = _settings(), _models()
    Parameters()
    body = _body()
    question = messages.read(body, settings.CHAT_MAX_TOKENS)
    model = models.named(question.model)
    ask = Ask("", chat_answers.caller(), key=chat_answers.idempotency_key(), body=digest(body), mark=callers.mark())
    parts = Parts("", model, int(time.time()), question.size)
    run_id, _ = chats().begin(ask, parts, models.asked(model, question))
    answer = chat_answers.begun(run_id, settings.CHAT_HEADERS_S)
    headers = chat_answers.headers(run_id)
    if question.stream:
        return respond(answer, CompletionChunks(question.with_usage), headers=headers)
    return _whole(answer, headers)


@blueprint.get("/v1/models")
def list_models() -> Response:
    Parameters()
    return jsonify(object="list", data=[_model(name) for name in _models().names])


@blueprint.get("/v1/models/<path:model>")
def model(model: str) -> Response:
    Parameters()
    return jsonify(_model(_models().named(model)))


@blueprint.after_request
def openai_errors(response: Response) -> Response:
    """Let an error have OpenAI's shape, which its clients read."""
    if response.mimetype == "application/problem+json":
        problem = response.get_json()
        told = error_body(problem["detail"], problem["status"], problem.get("parameter", ""))
        response.set_data(current_app.json.dumps(told))
        response.content_type = "application/json"
    return response


def _whole(answer: Begun, headers: dict[str, str]) -> Response:
    """Wait for the end of the answer. Raises ClientLeft, and UpstreamFailed for an answer that is not whole."""
    whole = Completion()
    link = wire.Link(request.environ)
    try:
        while (item := link.pull(answer)) is not wire.END:
            if isinstance(item, Event):
                whole.add(item)
    except wire.Interrupted:
        if link.expired and not link.gone:
            raise Unauthorized("The token has expired.") from None
        raise ClientLeft("The client left before the answer was whole.") from None
    except StreamFailed as error:
        raise UpstreamFailed(str(error)) from error
    finally:
        answer.close()
        link.close()
    response = jsonify(whole.whole())
    response.headers.update({"Cache-Control": "no-store", **headers})
    return response


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "perennial"}


def _body() -> bytes:
    if not request.is_json:
        raise UnsupportedType("Send the body as JSON, with Content-Type: application/json.")
    return bodies.taken(messages.LIMIT_BYTES)


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _models() -> Models:
    models: Models = current_app.extensions["models"]
    return models
