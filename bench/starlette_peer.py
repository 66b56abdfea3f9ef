"""The peer of the fan-out: sse-starlette with a queue per client. It runs in the environment of the peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_queues: set[asyncio.Queue[str]] = set()


async def events(request: Request) -> EventSourceResponse:
    queue: asyncio.Queue[str] = asyncio.Queue()
    _queues.add(queue)

    async def frames() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"comment": "hello"}
            while True:
                yield {"data": await queue.get()}
        finally:
            _queues.discard(queue)

    return EventSourceResponse(frames())


async def publish(request: Request) -> JSONResponse:
    body = (await request.body()).decode()
    for queue in tuple(_queues):
        queue.put_nowait(body)
    return JSONResponse({"queues": len(_queues)})


app = Starlette(routes=[Route("/events", events), Route("/publish", publish, methods=["POST"])])
