"""What a setting may look like: URLs by scheme, DSNs, addresses. A refusal never repeats what it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)
_SECRET_PARAMETER = re.compile(r"passw|secret|token|key|sign", re.IGNORECASE)


def parse_listen(text: str) -> tuple[str, int]:
    """Split `host:port` (`[::1]:9401` for IPv6; port 0 takes a free one).

    Raises:
        ValueError: No host, no port, or a port out of range. The host must be written out, so that listening
            beyond this machine is somebody's choice and never the effect of a short form.
    """
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address is written [::1]:9401")
    if not colon or not host:
        raise ValueError("write host:port, as in 127.0.0.1:9401 (or 0.0.0.0:9401 to be reachable from elsewhere)")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):  # noqa: PLR2004 - the port range
        raise ValueError("the port is a number from 0 to 65535")
    return host, int(port)


def _url(text: str, schemes: tuple[str, ...]) -> str:
    """Check scheme, host and port without ever repeating the text."""
    try:
        parts = urlsplit(text)
        scheme, host = parts.scheme, parts.hostname
        if "," not in parts.netloc:  # several hosts: the client that knows them parses them
            _ = parts.port
    except ValueError:
        raise ValueError("is no URL: check brackets and the port") from None
    if scheme not in schemes:
        raise ValueError(f"starts with one of: {', '.join(f'{name}://' for name in schemes)}")
    if not (parts.path if scheme == "unix" else host):
        raise ValueError("names no socket path" if scheme == "unix" else "names no host")
    return text


def _base_url(text: str) -> str:
    """A base URL is printed in errors and joined with paths, so it holds nothing secret and nothing behind the path."""
    parts = urlsplit(_url(text, ("http", "https")))
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("is a plain base URL: no user, password, query or fragment in it")
    return text.rstrip("/")


def _visible(secret: SecretStr) -> SecretStr:
    """A line break inside a header or DSN is a slip of copy and paste (or an injection), never meant."""
    if not secret.get_secret_value().isprintable():
        raise ValueError("holds a control character or a line break: give one line of text")
    return secret


def _secret_url(*schemes: str) -> AfterValidator:
    def check(secret: SecretStr) -> SecretStr:
        _url(_visible(secret).get_secret_value(), schemes)
        return secret

    return AfterValidator(check)


def _postgres(secret: SecretStr) -> SecretStr:
    text = _visible(secret).get_secret_value()
    if re.match(r"[\w+.-]+://", text) and not text.startswith(("postgres://", "postgresql://")):
        raise ValueError("starts with postgresql:// (without +driver), or is written host=… dbname=…")
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        raise ValueError("libpq cannot read it: write postgresql://host:5432/database or host=… dbname=…") from None
    return secret


def _listen(text: str) -> str:
    parse_listen(text)
    return text


def _file(path: Path) -> Path:
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where we may not look
        raise ValueError("is no file this user can see: check the path and its permissions")
    return path


def _folder(path: Path) -> Path:
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where we may not look
        raise ValueError("is no folder this user can see: check the path and its permissions")
    return path


def _prefixes(text: str) -> str:
    found = [part.strip() for part in text.split(",")]
    if any(not part or part.startswith("/") for part in found):
        raise ValueError("write prefixes as the keys begin: orders/,keys/")
    if any(a.startswith(b) for a in found for b in found if a is not b):
        raise ValueError("one of the prefixes lies within another: write the outer one")
    return ",".join(found)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Secret = Annotated[SecretStr, AfterValidator(_visible)]
PostgresDsn = Annotated[SecretStr, AfterValidator(_postgres)]
RedisUrl = Annotated[SecretStr, _secret_url(*REDIS_SCHEMES)]
SecretHttpUrl = Annotated[SecretStr, _secret_url("http", "https")]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Listen = Annotated[str, AfterValidator(_listen)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
ExistingFolder = Annotated[Path, AfterValidator(_folder)]
Prefixes = Annotated[str, AfterValidator(_prefixes)]
KeepDays = Annotated[int, Field(ge=8, le=36_500)]
"""Less would reach into days the ledger and the facts still read; the database refuses it, too."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LowerCase = BeforeValidator(_lower)


def secret_parts(text: str) -> Iterable[str]:
    """The secret parts of a URL or DSN, as written and decoded."""
    if "://" not in text or text.startswith("postgres"):
        found = [str(value) for key, value in conninfo_to_dict(text).items() if key in ("password", "sslpassword")]
    else:
        parts = urlsplit(text)
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        # A user without password is a token (Sentry's key, a metrics endpoint's).
        found = [password or user]
        found += [value for key, value in parse_qsl(parts.query) if _SECRET_PARAMETER.search(key)]
    return {form for value in found for form in (value, unquote(value)) if form}
