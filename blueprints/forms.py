"""What pages do where no script runs: a chat, a transform and the events of a topic, shown by the page itself.

Rules:
- A page arrives as its stream does: what a model says, what comes back, what is published stands in it at once.
- Nothing is kept here: a conversation is in the form that goes on with it, and a question that is sent again (a reload)
  joins the run that answers it.
- What is refused before the first byte is, for a browser, the page with one sentence, under the status that it has.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from urllib.parse import parse_qsl

import msgspec
from flask import Blueprint, Response, current_app, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from llm import messages
from llm.models import Models
from settings import Settings
from stores.base import Log
from streaming import (
    bodies,
    callers,
    chat_answers,
    file_names,
    page_framings,
    page_policy,
    publishing,
    refusals,
    topics,
    transforming,
)
from streaming.begun import Begun
from streaming.body_limits import limited
from streaming.chat_answers import chats
from streaming.chat_index import digest
from streaming.chat_parts import Parts
from streaming.chats import Ask
from streaming.cursors import Parameters
from streaming.errors import BadRequest, Problem, Unauthorized, UnsupportedType
from streaming.events import json_event
from streaming.framings import Text
from streaming.multipart import FormFile
from streaming.page_framings import Answer, Page
from streaming.pipeline import TRANSFORMS
from streaming.response import respond

blueprint = Blueprint("forms", __name__)

FORM_BYTES = 2**20
MESSAGE_CHARS = 20_000
_CHAT_ID = re.compile("[A-Za-z0-9_-]{1,64}")
_SHOWN = ("text/", "application/x-ndjson")
_ENDINGS = {"application/x-ndjson": "ndjson", "text/csv": "csv", "text/plain": "txt"}
_ENDINGS |= {"application/gzip": "gz", "application/zstd": "zst"}


@blueprint.after_request
def secure(response: Response) -> Response:
    return page_policy.secure(response)


# Chat


@blueprint.post("/chat")
def chat() -> Response:
    Parameters()
    form = _fields()
    said, text = form.get("said", []), form.get("message", [""])[0].strip()
    id = form.get("id", [""])[0]
    if not _CHAT_ID.fullmatch(id) or len(said) % 2:
        raise BadRequest("The form has lost its chat: begin a new one.", parameter="id")
    answer = Answer()
    page = partial(_chat_page, id, said, text, answer)
    try:
        run_id, begun = _asked(id, [*said, text])
    except Unauthorized:
        raise
    except Problem as problem:
        return _refused(problem, page)
    return respond(begun, Page(page, answer.write), headers=chat_answers.headers(run_id))


def _asked(id: str, said: list[str]) -> tuple[str, Begun]:
    """Ask the model for what follows ``said``, person and model in turn. Raises what the API of chat does."""
    if not said[-1] or len(said[-1]) > MESSAGE_CHARS:
        raise BadRequest(f"A message has 1 to {MESSAGE_CHARS} characters.", parameter="message")
    settings: Settings = current_app.extensions["settings"]
    models: Models = current_app.extensions["models"]
    asked = [
        {"role": ("user", "assistant")[number % 2], "content": text, "id": f"{id}-{number}"}
        for number, text in enumerate(said)
    ]
    body = msgspec.json.encode({"id": id, "messages": asked})
    question = messages.read(body, settings.CHAT_MAX_TOKENS)
    model = models.named("")
    # The form is its own Idempotency-Key: sent again, it joins its answer, also one that has come to its end.
    ask = Ask(id, chat_answers.caller(), "", digest(body), digest(body), callers.mark())
    parts = Parts("", model, int(time.time()), question.size)
    run_id, _ = chats().begin(ask, parts, models.asked(model, question))
    return run_id, chat_answers.begun(run_id, settings.CHAT_HEADERS_S)


def _chat_page(id: str, said: list[str], text: str, answer: Answer, sentence: str) -> str:
    """The page around the answer; one that is not whole is no part of what is said next."""
    next_said = said if sentence or not answer.text else [*said, text, answer.text]
    return render_template(
        "chat.html", posted=True, id=id, said=said, text=text, next_said=next_said, sentence=sentence,
        hole=page_framings.HOLE, again=text if sentence else "",
    )  # fmt: skip


# Transform


@blueprint.post("/transform")
@limited("transforms")
def transform() -> Response:
    save = Parameters("save").flag("save")
    form = _multipart()
    file = iter(form)
    first = next(file, b"")  # the fields stand before the file
    fields = form.fields
    names = [name for name in fields.get("to", []) if name] or ["upper"]
    text = "" if first else fields.get("text", [""])[0].replace("\r\n", "\n")
    page = partial(_transform_page, names, text)
    try:
        answer, framing = _transformed(names, chain([first or text.encode()], file), bool(first or text))
    except Unauthorized:
        raise
    except Problem as problem:
        return _refused(problem, page)
    if save or not framing.content_type.startswith(_SHOWN):
        named = {"Content-Disposition": _disposition(form.filename, framing.content_type)}
        return respond(answer, framing, headers=named, cut_after_error=True)
    return respond(answer, Page(page, page_framings.text))


def _transformed(names: list[str], pieces: Iterator[bytes], some: bool) -> tuple[Begun, Text]:
    if not some:
        raise BadRequest("There is nothing to transform: type a text, or choose a file.", parameter="text")
    if len(names) > transforming.MOST:
        raise BadRequest(f"There may be at most {transforming.MOST} transforms in a row.", parameter="to")
    if unknown := set(names) - set(TRANSFORMS):
        raise BadRequest(f"{unknown.pop()[:40]!r} is no transform.", parameter="to")
    return transforming.transformed(names, pieces)


def _multipart() -> FormFile:
    settings: Settings = current_app.extensions["settings"]
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype != "multipart/form-data" or not boundary:
        raise UnsupportedType("Send the form as multipart/form-data, with its boundary.")
    pieces = bodies.arriving(settings.MAX_UPLOAD_BYTES)
    return FormFile(pieces, boundary.encode("latin-1", "replace"), FORM_BYTES, required=False)


def _disposition(filename: str, content_type: str) -> str:
    """Called as the file was, with the ending of what came of it. Plain ASCII: no old reader takes it for another."""
    ending = _ENDINGS.get(content_type.partition(";")[0], "out")
    name = f"{file_names.plain(filename) if filename else 'answer'}.{ending}"
    return 'attachment; filename="{}"'.format(re.sub(r"[^A-Za-z0-9._-]", "_", name))


def _transform_page(names: list[str], text: str, sentence: str) -> str:
    return render_template(
        "transform.html", posted=True, transforms=list(TRANSFORMS), names=names, text=text, sentence=sentence,
        hole=page_framings.HOLE,
    )  # fmt: skip


# Events


@blueprint.get("/events/list")
def list_events() -> Response:
    query = Parameters("topic", "follow")
    topic, follow = query.text("topic", "default", *publishing.NAME), query.flag("follow")
    log: Log = current_app.extensions["log"]
    reader = topics.Reader(log, topics.begin_at(log, [topic], ""), topics.frame)
    page = partial(_events_page, topic, follow)
    return respond(reader.follow() if follow else reader.stored(), Page(page, page_framings.row, again=follow))


@blueprint.post("/events/list")
@limited("appends")
def publish() -> AnyResponse:
    query = Parameters("topic")
    topic = query.text("topic", "default", *publishing.NAME)
    text = _fields().get("message", [""])[0]
    if not text.strip():
        raise BadRequest("There is nothing to publish.", parameter="message")
    publishing.publish(topic, json_event(publishing.message(text), "notification"))
    return redirect(f"/events/list?topic={topic}", 303)


def _events_page(topic: str, follow: bool, sentence: str) -> str:
    return render_template("events_list.html", topic=topic, follow=follow, sentence=sentence, hole=page_framings.HOLE)


# All of them


def _fields() -> dict[str, list[str]]:
    """The fields of a form as browsers send it without files. Raises BadRequest, UnsupportedType, TooLarge."""
    if request.mimetype != "application/x-www-form-urlencoded":
        raise UnsupportedType("Send the form as application/x-www-form-urlencoded.")
    body = bodies.taken(FORM_BYTES)
    most = 2 * messages.LIMIT_MESSAGES
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=most, errors="strict")
    except ValueError as error:  # UnicodeDecodeError, too
        raise BadRequest("The form cannot be read.") from error
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        # Browsers send every line end as CRLF (HTML standard, 4.10.21.4).
        fields.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return fields


def _refused(problem: Problem, page: Callable[[str], str]) -> Response:
    """The page with what is wrong said in it, where a browser asks."""
    return page_policy.shown(refusals.problem_response(problem), lambda told: page(told["detail"]))
