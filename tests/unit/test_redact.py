"""Redaction: a planted secret survives nowhere, plain text stays, and the time is linear."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from opslib import settings
from opslib.errors import ConfigError
from opslib.redact import MAX_DEPTH, redact, register, secret_name

SECRET = 'S3cr/et+"pl än\\ted'


def nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON-like values around `leaf`."""
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=5) | leaf.filter(lambda x: isinstance(x, str)), inner, max_size=3)
        ),
        max_leaves=8,
    )


@given(st.text(), st.text())
@example("x://", "@")
@example("password='", "")
def test_registered_secret_survives_in_no_text(before: str, after: str) -> None:
    """Whatever stands around it, as it is, URL-encoded, JSON-escaped, in a repr or in base64."""
    register([SECRET])
    forms = [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        repr(SECRET)[1:-1],
    ]
    for form in forms:
        assert form not in redact(before + form + after)
    basic = base64.b64encode((before + SECRET + after).encode("utf-8", "replace")).decode()
    core = base64.b64encode(SECRET.encode()).decode()[:-4]
    assert core not in redact(basic)
    assert "***" in redact(basic)


@given(nested(st.text(max_size=8).flatmap(lambda text: st.sampled_from([text, text + SECRET, SECRET + text]))))
def test_registered_secret_survives_in_no_nesting(value: Any) -> None:
    """Keys, values, lists, tuples: nowhere."""
    register([SECRET])
    assert SECRET not in repr(redact(value)).encode().decode("unicode_escape", "replace")
    assert repr(SECRET)[1:-1] not in repr(redact(value))


@given(nested(st.text() | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans() | st.binary()))
def test_redacting_twice_changes_nothing_more(value: Any) -> None:
    """Idempotent on anything."""
    once = redact(value)
    assert redact(once) == once


PIECES = [
    "password",
    "token",
    "=",
    ":",
    '"',
    "'",
    "\\",
    " ",
    "@",
    "://",
    "a",
    "x.y",
    "Bearer ",
    "eyJ",
    ".",
    "Cookie",
    "%40",
    "1",
    ",",
]


@given(st.lists(st.sampled_from([*PIECES, "***", "Authorization"]), max_size=25).map("".join))
@example('Cookie=\\password"')
def test_idempotent_on_text_made_of_trouble(text: str) -> None:
    """Text assembled from what the patterns look for."""
    once = redact(text)
    assert redact(once) == once


@given(
    st.text(alphabet=st.characters(exclude_characters=":=@%", exclude_categories=["Cs"])).filter(
        lambda t: "eyJ" not in t
    )
)
def test_text_without_secrets_is_unchanged(text: str) -> None:
    """Without a name, an address or a scheme there is nothing to hide."""
    if "bearer" in text.lower() or "basic" in text.lower():
        return
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "connection to server at 127.0.0.1:5432 failed: Connection refused",
        "basic authentication failed; the bearer of bad news",
        "GET http://127.0.0.1:3000/metrics 200 in 0.012 s, ratio 12:30 key=17 user=bob",
        "bullmq@5.63.0 and bitloot-ops@0.1.0",
        "signature_valid=false, token: none",
        '{"processed": true, "signatureValid": false, "name": "reserve"}',
        "2026-11-21T00:00:00Z queue fulfillment-queue: 3 waiting",
        "APP_ADMIN_TOKEN is not set: give it in the environment",
    ],
)
def test_everyday_messages_stay_readable(text: str) -> None:
    """Over-hiding has its price; what one reads every day stays."""
    assert redact(text) == text
    assert redact({"message": text}) == {"message": text}


def test_refusals_of_settings_stay_readable() -> None:
    """Our own messages name settings called token and key: none of them may read like a value."""
    env = {
        "APP_ADMIN_TOKEN": "x",
        "APP_JWT_SECRET": "y",
        "OPS_METRICS_TOKEN_FILE": "/nowhere",
        "KINGUIN_API_KEY": "a\nb",
        "OPS_SECRET_TOKEN": "x",
        "OPS_TLS_KEY": "/nowhere",
        "R2_SECRET_ACCESS_KEY": "x",
        "OPS_LISTEN_FILE": "x",
    }
    with pytest.raises(ConfigError) as caught:
        settings.load(env)
    assert redact(str(caught.value)) == str(caught.value)
    with pytest.raises(ConfigError) as caught:
        settings.Settings().require(*(field.name for field in settings.FIELDS if field.default is None))
    assert redact(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:PLANTED@db/shop",
        "postgresql://app:p@PLANTED@db/shop",
        "postgresql://app:p/PLANTED@db/shop",
        "redis://:PLANTED@h:6379/0",
        "https://PLANTED@sentry.example/1",
        "https://u:x@h:1/?a=b&api_key=PLANTED",
        "host=/run dbname=x password=PLANTED",
        "host=/run password = 'a b\\' PLANTED' user=x",
        'dsn="host=x password=PLANTED"',
        '{"password": "PLANTED"}',
        '{"password": "a\\"PLANTED"}',
        '"{\\"apiKey\\": \\"PLANTED\\"}"',
        "{'x-api-key': 'PLANTED'}",
        "{'x-api-key': b'PLANTED'}",
        "X-Api-Key: PLANTED",
        "x-nowpayments-sig: PLANTED",
        "Authorization: Bearer PLANTED",
        "Authorization: Digest username=x, response=PLANTED",
        "authorization=Basic PLANTED",
        "Cookie: a=b; session=PLANTED",
        "Set-Cookie: PLANTED; HttpOnly",
        "got Bearer PLANTED1 instead",
        "Basic " + base64.b64encode(b"user:PLANTED").decode(),
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJQTEFOVEVEIn0.sig",
        "x=eyJhbGciOiJIUzI1NiJ9.PLANTED.sig",
        "SentryDsn(token=PLANTED)",
        "KINGUIN_API_KEY=PLANTED",
        "refreshToken: PLANTED,",
        "mail jPLANTED@example.com bounced",
        "mail x.PLANTED+tag@mail.example.co.uk",
        "?email=xPLANTED%40example.com",
    ],
)
def test_unregistered_secrets_by_their_looks(text: str) -> None:
    """Each kind of credential is hidden in the shapes it has in messages."""
    shown = redact(text)
    assert "PLANTED" not in shown
    assert base64.b64encode(b"PLANTED").decode()[:6] not in shown
    assert redact(shown) == shown


def test_email_keeps_first_letter_and_domain() -> None:
    """Enough to recognise, not enough to write to."""
    assert redact("to alice.smith@example.com.") == "to a***@example.com."


def test_values_under_secret_names() -> None:
    """Whatever kind of value: hidden; None and booleans say nothing and stay."""
    value = {
        "password": ["a", {"b": 1}],
        "accessToken": 12345,
        "Cookie": b"x",
        "signature_valid": False,
        "token": None,
        "headers": [("X-Api-Key", "abc"), ["authorization", "abc"], ("accept", "json")],
        "path": SecretStr("abc"),
    }
    assert redact(value) == {
        "password": "***",
        "accessToken": "***",
        "Cookie": "***",
        "signature_valid": False,
        "token": None,
        "headers": [("X-Api-Key", "***"), ["authorization", "***"], ("accept", "json")],
        "path": "**********",
    }


@pytest.mark.parametrize(
    "name", ["key", "name", "queue", "passed", "bypass", "author", "design", "tokyo", "external_id"]
)
def test_everyday_names_are_no_secrets(name: str) -> None:
    """A name that only resembles one."""
    assert not secret_name(name)


def test_short_and_empty_secrets_are_not_known_by_heart() -> None:
    """An empty password must not turn every message into asterisks."""
    register(["", "abc", "****"])
    assert redact("abc and nothing **** else") == "abc and nothing **** else"


def test_numbers_that_are_secrets() -> None:
    """A numeric secret is hidden as a number too."""
    register(["8812734"])
    assert redact({"n": 8812734, "m": 12}) == {"n": "***", "m": 12}


def test_cycles_and_depth_end() -> None:
    """A value that holds itself, and one nested beyond reason, are cut."""
    loop: list[Any] = [1]
    loop += [loop, {"again": loop}]
    assert redact(loop) == [1, "***", {"again": "***"}]
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    shown = redact(deep)
    for _ in range(MAX_DEPTH):
        shown = shown[0]
    assert shown == "***"


@pytest.mark.parametrize(
    "piece",
    ["a", "a@", "@", "eyJ", "eyJ.", "a=", "token=", "a:", "a://", "a://:@", "'", "\\", 'password="\\', "-", "bearer ",
     "authorization:", "a.", "a@b.", '\\"', "token='", " ", ":", "%40", "a%40b."],
)  # fmt: skip
def test_time_is_linear(piece: str) -> None:
    """A megabyte of what each pattern dislikes is done in well under a second per 100 kB of quadratic trouble."""
    register([SECRET, "another secret", "a" * 30 + "b"])
    # The tail lets every pattern look, also those that are skipped where their mark is missing.
    text = piece * (1_000_000 // len(piece)) + " @ %40 :// eyJ ="
    started = time.process_time()
    redact(text)
    # 0.3 s here; anything quadratic takes hours at this size.
    assert time.process_time() - started < 5
