"""What is counted of chats, for Prometheus: of this worker, since it began.

Rules:
- Labels are few: models are those of the settings, and outcomes those of ``chat_runs``.
- Tokens are counted once a run, when it has ended; estimates are told from what a model has said.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from streaming.chat_runs import Outcome
from streaming.metrics import REGISTRY

RUNNING = Gauge(
    "perennial_chat_running", "Answers that are being made now", registry=REGISTRY, multiprocess_mode="livesum"
)
_RUNS = Counter("perennial_chat_runs", "Answers that have ended", ("model", "outcome"), registry=REGISTRY)
_TOKENS = Counter(
    "perennial_chat_tokens", "Tokens of ended answers", ("model", "direction", "estimated"), registry=REGISTRY
)
_RETRIES = Counter("perennial_chat_retries", "Models asked again before their first token", registry=REGISTRY)
JOINED = Counter("perennial_chat_joined", "Questions that joined a run instead of being paid twice", registry=REGISTRY)
REFUSED = Counter("perennial_chat_refused", "Questions that found no slot", registry=REGISTRY)
_FIRST_TOKEN = Histogram(
    "perennial_chat_first_token_seconds",
    "From the question to the model's first token",
    ("model",),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)


def ended(outcome: Outcome) -> None:
    """Count a run that has ended."""
    RUNNING.dec()
    _RUNS.labels(outcome.model, outcome.how).inc()
    estimated = str(bool(outcome.usage.get("estimated"))).lower()
    for direction, name in (("input", "inputTokens"), ("output", "outputTokens")):
        _TOKENS.labels(outcome.model, direction, estimated).inc(outcome.usage.get(name, 0))
    _RETRIES.inc(outcome.retries)
    if outcome.first_token_s is not None:
        _FIRST_TOKEN.labels(outcome.model).observe(outcome.first_token_s)
