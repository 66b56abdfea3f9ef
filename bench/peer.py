"""The peer: the same streams as plain Flask has them, under gunicorn's own gevent worker."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections.abc import Iterator

from flask import Flask, Response, request, send_file

app = Flask(__name__)


@app.get("/readyz")
def readyz() -> str:
    return "ok"


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
        for row in database.execute("SELECT * FROM users ORDER BY id"):
            writer.writerow(row)
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
        database.close()

    return Response(rows(), mimetype="text/csv")
