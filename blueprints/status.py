"""Whether the server lives, and whether it can serve."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from stores.errors import StoreError
from streaming import metrics as counted
from streaming.errors import Unavailable
from streaming.links import links

blueprint = Blueprint("status", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    # As the proxy in front asks: `flask doctor` finds one that speaks HTTP/1.0.
    return jsonify(status="ok", streams=len(links), protocol=request.environ.get("SERVER_PROTOCOL"))


@blueprint.get("/metrics")
def metrics() -> Response:
    """What all workers of this server have counted, as Prometheus reads it."""
    return Response(counted.exposition(), content_type=CONTENT_TYPE_PLAIN_0_0_4)


@blueprint.get("/readyz")
def readyz() -> Response:
    if links.draining:
        raise Unavailable("This worker is going down.", retry_after_s=1)
    for name in ("log", "tables"):
        try:
            current_app.extensions[name].ping()
        except StoreError as error:
            raise Unavailable(f"The store of the {name} does not answer: {error}", retry_after_s=1) from error
    return jsonify(status="ok")
