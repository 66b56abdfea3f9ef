"""Every setting of the server: one table of name, default, type and help, read from the environment.

Rules:
- What is not in the table is no setting. ``docs/operations.md`` lists them, and a test holds it to this table.
- A value that cannot be read stops the start with one sentence that names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent


def _setting(default: Any, help: str, *, choices: tuple[str, ...] = (), zero: bool = False) -> Any:
    """One row; ``choices``: the only values; ``zero``: a number that may be 0, too."""
    return field(default=default, metadata={"help": help, "choices": choices, "zero": zero})


@dataclass(frozen=True, slots=True)
class Settings:
    FILES_DIR: Path = _setting(ROOT / "files", "what /api/download serves; videos/ and uploads/ lie below it")
    INSTANCE_DIR: Path = _setting(ROOT / "instance", "where the embedded databases live")
    STREAMS_URL: str = _setting(
        "",
        "the log: sqlite:///<path>, redis://<host>:<port>/<db>, memory: (one worker, lost at its end); empty: INSTANCE_DIR/streams.db",
    )
    STREAMS_SYNC: str = _setting(
        "normal", "normal: what was acknowledged survives a crash of the server; full: of the machine"
    )
    MAX_APPEND_BYTES: int = _setting(8 * 2**20, "the largest append to a stream")
    MAX_STREAM_PATHS: int = _setting(100_000, "streams that clients may have made; beyond them 429")
    LONG_POLL_S: float = _setting(20.0, "seconds a long-poll waits for something new")
    DATABASE_URL: str = _setting(
        "",
        "the tables to export: sqlite:///<path> or postgresql://<user>@<host>/<name>; empty: INSTANCE_DIR/app.db, made at first start",
    )
    EXPORT_TABLES: str = _setting("users", "tables and views that may be exported, comma-separated")
    MAX_EXPORTS: int = _setting(
        64, "running exports of one worker, a connection each (and a thread, on SQLite); beyond them 503"
    )
    HEARTBEAT_S: float = _setting(15.0, "seconds of silence after which a live stream sends a heartbeat")
    SEND_TIMEOUT_S: float = _setting(
        30.0, "seconds without any progress after which a client that does not read is cut"
    )
    BODY_TIMEOUT_S: float = _setting(60.0, "seconds a request body may stall before it is given up")
    BODY_RATE: int = _setting(
        500,
        "bytes a second that a request body must bring in each BODY_TIMEOUT_S seconds of waiting for it; 0: any",
        zero=True,
    )
    MAX_UPLOAD_BYTES: int = _setting(10 * 2**30, "the largest upload")
    UPLOADS_SYNC: str = _setting(
        "full", "full: an upload that was acknowledged survives a crash of the machine; normal: of the server"
    )
    UPLOAD_KEEP_S: float = _setting(
        86400.0, "seconds after which a resumable upload that nobody goes on with is forgotten"
    )
    SEND_FILES: str = _setting(
        "own",
        "who sends a file: own (this server, by sendfile), flask (Flask's send_file, with Werkzeug's rules for ranges), x-accel-redirect (nginx), x-sendfile (Apache, lighttpd)",
        choices=("own", "flask", "x-accel-redirect", "x-sendfile"),
    )
    FILES_CACHE_CONTROL: str = _setting("no-cache", "the Cache-Control of files and videos")
    TRANSFORM_SPOOL_BYTES: int = _setting(
        256 * 2**20, "how much of an answer /api/transform keeps for a client that is still writing"
    )
    TRANSFORM_BYTES: int = _setting(10 * 2**30, "the most that one transform of a body may make")
    TRANSFORM_RATIO: int = _setting(
        200, "bytes that a transform may make of each byte of the body, beyond the first 16 MiB: a bomb makes more"
    )
    MAX_STREAMS: int = _setting(9000, "open streams of one worker; beyond them new ones get 503 with Retry-After")
    MAX_RUNS: int = _setting(100, "durable streams (?durable=1) that run at once in one worker; beyond them 503")
    RUN_BYTES: int = _setting(2**30, "the most that one durable stream may hold")
    RUN_KEEP_S: float = _setting(3600.0, "seconds for which a durable stream is kept after it was last read or written")
    NOTIFICATIONS_KEEP: int = _setting(
        10_000, "stored notifications per topic; the oldest beyond them are dropped, and readers are told"
    )
    PROGRESS_KEEP_S: float = _setting(
        3600.0, "seconds for which the progress of a finished upload, and the receipt of an export, can be read again"
    )
    OPENAI_BASE_URL: str = _setting("", "the OpenAI-compatible server of /api/chat; empty: OpenAI's own")
    OPENAI_API_KEY: str = _setting("", "its key; without a key and a base URL the offline model answers")
    CHAT_MODEL: str = _setting("gpt-4o-mini", "the model's name; with CHAT_MODELS the one that answers who names none")
    CHAT_MODELS: str = _setting(
        "",
        'several models by name, as JSON: {"fast": {"base_url": "http://…/v1", "api_key": "…", "model": "llama3.2"}, …}; each field may be missing',
    )
    CHAT_SYSTEM: str = _setting("", "a system prompt that stands before every conversation")
    CHAT_MAX_TOKENS: int = _setting(65_536, "the most tokens a caller may ask for")
    CHAT_HEADERS_S: float = _setting(
        1.5, "seconds the headers of an answer wait for its first token, so that a refusal is a real status"
    )
    CHAT_FIRST_TOKEN_S: float = _setting(60.0, "seconds the model may take to begin its answer")
    CHAT_IDLE_S: float = _setting(60.0, "seconds of silence between two tokens after which the model counts as failed")
    CHAT_TOTAL_S: float = _setting(600.0, "seconds one whole answer may take")
    CHAT_RETRIES: int = _setting(1, "how often a model that fails before its first token is asked again", zero=True)
    CHAT_GRACE_S: float = _setting(
        60.0, "seconds for which an answer that nobody reads any more goes on; 0: it is stopped at once", zero=True
    )
    CHAT_RUNS: int = _setting(1000, "answers that are made at once, in all workers; beyond them 429")
    CHAT_RUNS_PER_CALLER: int = _setting(100, "the same for each caller")
    CHAT_CALLER_HEADER: str = _setting(
        "", "the header that tells callers apart, such as X-Forwarded-For behind a proxy; empty: their address"
    )
    CHAT_BYTES: int = _setting(4 * 2**20, "the largest answer")
    STREAM_LOG: str = _setting(
        "-", "where one line of JSON for each finished stream goes: - (standard output), a file, or nowhere (empty)"
    )
    API_TOKENS: str = _setting(
        "",
        "who may do what by a static token: <name> <SHA-256 of the token> <scope> <scope> …, several separated by ;",
    )
    JWT_KEY: str = _setting("", "the key (HS256, 32 bytes at least) of signed tokens and links")
    JWT_JWKS: str = _setting("", "the public keys of signed tokens: a JWK Set, as a file or behind a URL")
    JWT_AUDIENCE: str = _setting("", "the audience that a signed token must have; empty: none")
    JWT_ISSUER: str = _setting("", "the issuer that a signed token must have; empty: any")
    LINK_S: float = _setting(3600.0, "seconds that a signed link may live at the most")
    ALLOW_ANONYMOUS: str = _setting("0", "1: everybody may do everything, also from other machines", choices=("0", "1"))
    TRUSTED_HOSTS: str = _setting(
        "",
        "the names of this server, comma-separated, .example.org with all below it; empty: any, but names of this machine only where nobody needs a token",
    )
    TRUSTED_PROXIES: int = _setting(0, "proxies in front whose X-Forwarded-For and X-Forwarded-Proto count", zero=True)
    CORS_ORIGINS: str = _setting(
        "", "origins whose pages may use this server, comma-separated: https://app.example.org; *: every one"
    )
    HEADERS_S: float = _setting(15.0, "seconds in which the headers of a connection's first request must have come")
    RATE_LIMIT: str = _setting(
        "", "how often a caller may ask, such as 100/second;20000/hour; empty: as often as it likes"
    )
    RATE_LIMIT_URL: str = _setting(
        "",
        "where that is counted: memory:// (each worker for itself) or redis://…; empty: in the Redis of STREAMS_URL, else in memory",
    )
    CALLER_STREAMS: int = _setting(
        0,
        "open streams, and files that are being sent, of each caller in one worker; beyond them 429; 0: no bound",
        zero=True,
    )
    CALLER_STREAM_PATHS: int = _setting(
        0,
        "streams, topics and durable runs that each caller has made and that are kept, in all workers; beyond them 429; 0: no bound",
        zero=True,
    )
    CALLER_RUNS: int = _setting(
        0, "running durable streams (?durable=1) of each caller in one worker; beyond them 429; 0: no bound", zero=True
    )
    CALLER_EXPORTS: int = _setting(
        0, "running exports of each caller in one worker; beyond them 429; 0: no bound", zero=True
    )
    MAX_UPLOADS: int = _setting(1000, "uploads that one worker takes at once; beyond them 503; 0: no bound", zero=True)
    CALLER_UPLOADS: int = _setting(
        0, "uploads of each caller at once in one worker; beyond them 429; 0: no bound", zero=True
    )
    UPLOAD_BYTES: int = _setting(0, "bytes of uploads in an hour, in all; beyond them 503; 0: no bound", zero=True)
    CALLER_UPLOAD_BYTES: int = _setting(
        0, "bytes of uploads in an hour of each caller; beyond them 429; 0: no bound", zero=True
    )
    TRANSFORM_BODY_BYTES: int = _setting(
        0, "bytes of bodies to transform in an hour, in all; beyond them 503; 0: no bound", zero=True
    )
    CALLER_TRANSFORM_BODY_BYTES: int = _setting(
        0, "bytes of bodies to transform in an hour of each caller; beyond them 429; 0: no bound", zero=True
    )
    APPEND_BYTES: int = _setting(
        0, "bytes appended to streams and published in an hour, in all; beyond them 503; 0: no bound", zero=True
    )
    CALLER_APPEND_BYTES: int = _setting(
        0,
        "bytes appended to streams and published in an hour of each caller; beyond them 429; 0: no bound",
        zero=True,
    )
    SENT_BYTES: int = _setting(
        0, "bytes sent in streams, exports and files in an hour, in all; beyond them 503; 0: no bound", zero=True
    )
    CALLER_SENT_BYTES: int = _setting(
        0, "bytes sent in streams, exports and files in an hour to each caller; beyond them 429; 0: no bound", zero=True
    )
    LOG_LEVEL: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR")

    @property
    def streams_url(self) -> str:
        return self.STREAMS_URL or f"sqlite:///{self.INSTANCE_DIR / 'streams.db'}"

    @property
    def database_url(self) -> str:
        return self.DATABASE_URL or f"sqlite:///{self.INSTANCE_DIR / 'app.db'}"


_READERS = {"Path": Path, "str": str, "int": int, "float": float}


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that ``environ`` asks for. Raises SystemExit with a sentence that names a bad value."""
    values: dict[str, Any] = {}
    for each in fields(Settings):
        text = environ.get(each.name)
        if text is None:
            continue
        try:
            values[each.name] = _READERS[str(each.type)](text)
        except ValueError:
            raise SystemExit(f"{each.name} must be of type {each.type}, and {text!r} is not.") from None
        if each.type in ("int", "float") and not (
            values[each.name] > 0 or (each.metadata["zero"] and float(text) == 0)
        ):
            least = "at least" if each.metadata["zero"] else "greater than"
            raise SystemExit(f"{each.name} must be {least} 0, and {text!r} is not.")
        if (choices := each.metadata["choices"]) and values[each.name] not in choices:
            raise SystemExit(f"{each.name} must be one of {', '.join(choices)}, and {text!r} is not.")
    return Settings(**values)
