"""``flask --app wsgi token …``: make, hash and sign tokens, and links.

Rules:
- A token is written to standard output, once, and nowhere else; what the settings need is its hash.
- No secret is an argument: arguments are seen by every process of the machine. Keys come from the settings, tokens from
  standard input.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask import current_app
from flask.cli import AppGroup

from settings import Settings
from streaming import signed_links, static_tokens
from streaming.errors import Problem
from streaming.grants import scopes

commands = AppGroup("token", help="Tokens: who may do what (docs/security.md).")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@commands.command("make")
@click.argument("name")
@click.argument("scope", nargs=-1, required=True)
def make(name: str, scope: tuple[str, ...]) -> None:
    """Make a static token of NAME with each SCOPE: read:<pattern>, write:<pattern>, or * for everything."""
    token = static_tokens.make()
    try:
        entry = static_tokens.entry(name, static_tokens.hashed(token), list(scope))
    except ValueError as error:
        raise click.ClickException(f"{error}.") from None
    click.echo(token)
    click.echo(f"The token is above, and is shown only now. For API_TOKENS:\n  {entry}", err=True)


@commands.command("hash")
def hash_token() -> None:
    """Hash the token on standard input, for API_TOKENS."""
    if not (token := sys.stdin.readline().strip()):
        raise click.ClickException("There is no token on standard input.")
    click.echo(static_tokens.hashed(token))


@commands.command("sign")
@click.argument("subject")
@click.argument("scope", nargs=-1, required=True)
@click.option("--for", "lifetime", default="1h", show_default=True, help="How long it lives: 90s, 10m, 1h, 30d.")
def sign(subject: str, scope: tuple[str, ...], lifetime: str) -> None:
    """Sign a token (JWT) of SUBJECT with each SCOPE, by JWT_KEY."""
    try:
        granted = scopes(scope)
    except ValueError as error:
        raise click.ClickException(f"{error}.") from None
    claims = {"sub": subject, "read": list(granted.read), "write": list(granted.write)}
    with _told():
        click.echo(signed_links.sign(_settings(), claims, time.time() + _seconds(lifetime)))


@commands.command("link")
@click.argument("subject")
@click.argument("url")
@click.option("--for", "lifetime", default="10m", show_default=True, help="How long it lives: 90s, 10m, 1h.")
def link(subject: str, url: str, lifetime: str) -> None:
    """Sign a link by which SUBJECT may read URL, a path of this server with its query, and nothing else."""
    seconds = _seconds(lifetime)
    if seconds > _settings().LINK_S:
        raise click.ClickException(f"A link may live {_settings().LINK_S:g} seconds at the most (LINK_S).")
    with _told():
        read = signed_links.reads(current_app, url)
        click.echo(signed_links.link(_settings(), url, read, {"sub": subject}, time.time() + seconds))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        raise click.ClickException(problem.detail) from None


def _seconds(text: str) -> int:
    if not (found := re.fullmatch("([1-9][0-9]{0,8})([smhd])", text)):
        raise click.ClickException(f"{text!r} is no time: 90s, 10m, 1h or 30d are.")
    return int(found[1]) * _UNITS[found[2]]


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings
