"""The peer: the same streams as plain Flask has them, under gunicorn's own gevent worker."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections.abc import Iterator
from queue import Queue

from flask import Flask, Response, request, send_file

app = Flask(__name__)


@app.get("/readyz")
def readyz() -> str:
    return "ok"


_queues: set[Queue[bytes]] = set()


@app.get("/events")
def events() -> Response:
    """A queue per client, as most examples have it."""
    queue: Queue[bytes] = Queue()
    _queues.add(queue)

    def frames() -> Iterator[bytes]:
        try:
            yield b": hello\n\n"
            while True:
                yield b"data: " + queue.get() + b"\n\n"
        finally:
            _queues.discard(queue)

    return Response(frames(), mimetype="text/event-stream")


@app.post("/publish")
def publish() -> dict[str, int]:
    body = request.get_data()
    for queue in tuple(_queues):
        queue.put(body)
    return {"queues": len(_queues)}


@app.get("/file")
def file() -> Response:
    return send_file(os.environ["PEER_FILE"], conditional=True)


@app.post("/upload")
def upload() -> dict[str, int]:
    received = 0
    with open(os.environ["PEER_FILE"] + ".received", "wb") as out:
        while piece := request.stream.read(64 * 1024):
            out.write(piece)
            received += len(piece)
    os.unlink(out.name)
    return {"received": received}


@app.get("/export")
def export() -> Response:
    def rows() -> Iterator[str]:
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        database = sqlite3.connect(os.environ["PEER_DATABASE"])
        for row in database.execute("SELECT * FROM users ORDER BY id LIMIT ?", (os.environ["PEER_ROWS"],)):
            writer.writerow(row)
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
        database.close()

    return Response(rows(), mimetype="text/csv")
