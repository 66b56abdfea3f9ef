"""Access control as the settings ask for it: the guard, made once, and each request brought before it."""

from __future__ import annotations

from flask import Flask, current_app, request

from settings import Settings
from streaming import needs, static_tokens
from streaming.exposure import is_closed
from streaming.grants import Need
from streaming.guard import Guard, Rules, Signed


def make(settings: Settings) -> Guard:
    """Return the guard. Raises SystemExit with a sentence that names a setting that cannot be."""
    if is_closed(settings) and settings.ALLOW_ANONYMOUS == "1":
        raise SystemExit(
            "ALLOW_ANONYMOUS=1 lets everybody in, and API_TOKENS, JWT_KEY or JWT_JWKS do not: one of them."
        )
    try:
        tokens = static_tokens.read(settings.API_TOKENS)
    except ValueError as error:
        raise SystemExit(f"API_TOKENS cannot be read: {error}.") from None
    return Guard(
        Rules(
            tokens,
            _signed(settings),
            frozenset(words(settings.TRUSTED_HOSTS)),
            not is_closed(settings) and settings.ALLOW_ANONYMOUS != "1",
            frozenset(words(settings.CORS_ORIGINS)),
        )
    )


def _signed(settings: Settings) -> Signed | None:
    if not (settings.JWT_KEY or settings.JWT_JWKS):
        return None
    # Here, and only then: with the cryptography that they need they cost 12 MB.
    from streaming.key_sets import KeySet
    from streaming.signed_tokens import KEY_BYTES, SignedTokens

    if settings.JWT_KEY and len(settings.JWT_KEY.encode()) < KEY_BYTES:
        raise SystemExit(f"JWT_KEY must have {KEY_BYTES} bytes at least: whoever has one token could try shorter ones.")
    keys = KeySet(settings.JWT_JWKS) if settings.JWT_JWKS else None
    return SignedTokens(settings.JWT_KEY, keys, settings.JWT_AUDIENCE, settings.JWT_ISSUER, settings.LINK_S).caller


def admit() -> None:
    """Before every request that Flask sees. Raises what ``Guard.admit`` raises."""
    # Who looks whether the server lives may know it by its address only.
    if request.endpoint in ("status.healthz", "status.readyz"):
        return
    guard: Guard = current_app.extensions["guard"]
    guard.admit(request.environ, _needs, request.endpoint in needs.OPEN)


def _needs() -> list[Need]:
    path = request.environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    return needs.needs(request.endpoint, request.method, path, request.view_args or {}, request.args.getlist)


def guard_of(app: Flask) -> Guard:
    guard: Guard = app.extensions["guard"]
    return guard


def words(text: str) -> list[str]:
    """Return the comma-separated words, in lower case."""
    return [word.strip().lower() for word in text.split(",") if word.strip()]
