"""The one function everything said aloud passes through: logs, Sentry events, error messages.

It knows the secrets of the settings by heart (`register`) and others by their looks. Where it must choose, it hides
too much. Every pattern starts at a boundary and never gives back what it took (possessive quantifiers), so that the
time is linear in the text, whoever wrote it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
MIN_SECRET = 4
"""Characters of the shortest secret known by heart; hiding every `ab` would hide the message."""
MAX_DEPTH = 50
"""Levels of nesting looked into; what lies deeper is hidden whole."""
MAX_PASSES = 5

_PARTS = re.compile(
    "passw|passphrase|pwd|secret|token|apikey|accesskey|privatekey|signature|authorization|cookie|credential|jwt"
    "|^(?:pass|auth|otp)$|sig$"
)
_SEPARATORS = str.maketrans("", "", "-_ .")
_HARMLESS = frozenset({"", "true", "false", "null", "none"})

_URL = re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]*+://)([^\s\"'<>]*+)")
_HEADER = re.compile(
    r"(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie)(\s{0,4}[:=]\s{0,4})(?![\s\"'\\])[^\r\n]++", re.IGNORECASE
)
_NAME = re.compile(r"(?<![\w-])([\w-]++)\\{0,3}[\"']?\s{0,4}[:=]\s{0,4}")
_VALUE = re.compile(
    r"[bru]{0,2}(?P<quote>\\{0,3}[\"'])(?P<quoted>(?:(?!(?P=quote))(?:\\.|.))*+)(?P=quote)?"
    r"|(?:(?:bearer|basic|token|digest)\s{1,4})?(?P<plain>(?:\\.|[^\s\\\"'<>])++)",
    re.IGNORECASE | re.DOTALL,
)
_SCHEME = re.compile(r"(?<![\w-])(bearer|basic)(\s{1,4})([\w.~+/=-]++)", re.IGNORECASE)
_DOTTED = re.compile(r"(?<![\w.-])[\w.-]++")
_EMAIL = re.compile(r"(?<![\w.+-])([\w.+-])[\w.+-]*+(@|%40)([\w-]++(?:\.[\w-]++)++)")

_known: tuple[str, ...] = ()


def register(secrets: Iterable[str]) -> None:
    """Know `secrets` by heart from now on: as they are, URL-encoded, in base64, escaped as in JSON or a repr.

    One shorter than `MIN_SECRET` is left to its looks.
    """
    global _known  # noqa: PLW0603 - what one part of the process knows to be secret, all parts must hide
    forms = set(_known)
    for secret in secrets:
        forms.update(form for form in _forms(secret) if len(form) >= MIN_SECRET and form.strip("*"))
    # Longest first: a secret may hold another one.
    _known = tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _forms(secret: str) -> Iterable[str]:
    if len(secret) < MIN_SECRET:
        return
    yield from (secret, quote(secret, errors="replace"), quote(secret, safe="", errors="replace"))
    yield quote_plus(secret, errors="replace")
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    raw = secret.encode("utf-8", "replace")
    for before, skip in ((0, 0), (1, 2), (2, 3)):
        # Inside a longer text (user:password) base64 may start in the middle of a group, so three forms each;
        # the characters that also depend on a neighbour are left out.
        whole = (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + raw).decode()[skip:whole]


def redact(value: Any) -> Any:
    """Return `value` without secrets, credentials and full e-mail addresses.

    Text stays text; mappings become dicts, lists and tuples keep their kind, numbers, booleans and None stay, other
    objects become their redacted text. Redacting twice changes nothing more.
    """
    return _redact(value, ())


def secret_name(name: str) -> bool:
    """Does a field of this name hold a secret?"""
    return _PARTS.search(name.translate(_SEPARATORS).lower()) is not None


def _redact(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        shown = str(value)
        return value if _by_heart(shown) == shown else MASK
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _inside(value, above)
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "backslashreplace")
    return _text(str(value))  # of a SecretStr that is asterisks


def _inside(value: Any, above: tuple[int, ...]) -> Any:
    if len(above) >= MAX_DEPTH or id(value) in above:
        return MASK
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {_text(str(key)): _field(key, each, above) for key, each in value.items()}
    if len(value) == 2 and isinstance(value, list | tuple):  # noqa: PLR2004 - a header as a pair
        items = [_redact(value[0], above), _field(value[0], value[1], above)]
    else:
        items = [_redact(each, above) for each in value]
    return tuple(items) if isinstance(value, tuple) else items


def _field(name: Any, value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool) or not (isinstance(name, str) and secret_name(name)):
        return _redact(value, above)
    return value if isinstance(value, str) and value.lower() in _HARMLESS else MASK


def _text(text: str) -> str:
    # What one pass hides can bring to light what another pattern looks for: `Cookie=\\password"`.
    for _ in range(MAX_PASSES):
        before, text = text, _pass(text)
        if text == before:
            break
    return text


def _pass(text: str) -> str:
    text = _by_heart(text)
    if "://" in text:
        text = _URL.sub(_url, text)
    if ":" in text or "=" in text:
        text = _pairs(_HEADER.sub(rf"\1\2{MASK}", text))
    text = _SCHEME.sub(_scheme, text)
    if "eyJ" in text:
        text = _DOTTED.sub(_jwt, text)
    return _EMAIL.sub(_email, text) if "@" in text or "%40" in text else text


def _by_heart(text: str) -> str:
    for form in _known:
        if form in text:
            text = text.replace(form, MASK)
    return text


def _url(match: re.Match[str]) -> str:
    """Hide user and password alike: a token travels as either."""
    scheme, rest = match.groups()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        # A raw / # or ? in a password ends the authority early; a port would be digits.
        port = authority.rpartition(":")[2]
        if ":" not in authority or port.isdigit() or "]" in port or "@" not in rest:
            return match[0]
        authority = rest[: rest.rindex("@") + 1]
    return f"{scheme}{MASK}@{authority.rpartition('@')[2]}{rest[len(authority) :]}"


def _pairs(text: str) -> str:
    """Hide the values of `name=value`, `name: value` and `"name": "value"` whose name speaks of a secret."""
    done = position = 0
    out: list[str] = []
    while name := _NAME.search(text, position):
        position = name.end()
        value = _VALUE.match(text, position) if secret_name(name[1]) else None
        if value is None or (value["quoted"] or value["plain"] or "").rstrip(",;)]}").lower() in _HARMLESS:
            continue
        mark = value["quote"] or ""
        out += (text[done:position], mark, MASK, mark)
        done = position = value.end()
    return "".join((*out, text[done:]))


def _scheme(match: re.Match[str]) -> str:
    """`Bearer x`, `Basic x` when x looks like a credential and not like the next word of a sentence."""
    name, gap, value = match.groups()
    if name.lower() == "basic":
        try:
            secret = b":" in base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            secret = False
    else:
        secret = len(value) >= 20 or any(char.isdigit() for char in value)  # noqa: PLR2004 - no word is that long
    return f"{name}{gap}{MASK}" if secret else match[0]


def _jwt(match: re.Match[str]) -> str:
    before, _, after = match[0].partition("eyJ")
    parts = after.split(".")
    return before + MASK if len(parts) >= 3 and parts[0] and parts[1] else match[0]  # noqa: PLR2004 - a JWT has three


def _email(match: re.Match[str]) -> str:
    first, at, domain = match.groups()
    # `package@1.2.3` is a release, not a person.
    return match[0] if domain.rpartition(".")[2].isdigit() else f"{first}{MASK}{at}{domain}"
