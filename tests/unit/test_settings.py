"""Settings: every source, every refusal, and never a value in a message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from opslib import settings
from opslib.errors import ConfigError

PLANTED = "hunter2-planted"


def refused(env: dict[str, str]) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(ConfigError) as caught:
        settings.load(env)
    assert caught.value.__cause__ is None  # a chained validation error would hold the input
    return str(caught.value).splitlines()


def test_nothing_set_is_fine() -> None:
    """A stranger without any variable gets defaults that listen on loopback only."""
    loaded = settings.load({})
    assert loaded.redis_url is None
    assert loaded.bullmq_prefix == "bull"
    assert loaded.listen == ("127.0.0.1", 9401)
    assert loaded.nowpayments_base == "https://api.nowpayments.io"
    assert loaded.ops_ledger_horizon_seconds == 900


def test_attribute_is_the_lower_case_name() -> None:
    """FIELDS, attributes and environment names are the same list."""
    assert [field.attribute for field in settings.FIELDS] == list(settings.Settings.model_fields)
    assert all(field.meaning and field.kind for field in settings.FIELDS)
    secrets = {field.name for field in settings.FIELDS if field.secret}
    assert {"DATABASE_URL", "REDIS_URL", "SENTRY_DSN", "KINGUIN_API_KEY", "OPS_METRICS_TOKEN"} <= secrets


@pytest.mark.parametrize("wrong", [{"OPS_LEDGER_HORIZON_SECONDS": "60"}, {"OPS_LEDGER_SETTLE_SECONDS": "900"}])
def test_a_horizon_that_ends_before_a_row_settles_is_refused(wrong: dict[str, str]) -> None:
    """Every duplicate would be forgotten uncounted, and nobody would know."""
    (line,) = refused(wrong)
    assert "OPS_LEDGER_HORIZON_SECONDS" in line
    assert "OPS_LEDGER_SETTLE_SECONDS" in line
    settings.load({"OPS_LEDGER_HORIZON_SECONDS": "3", "OPS_LEDGER_SETTLE_SECONDS": "2"})


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://user:pw@host:6380/1",
        "unix:///run/redis.sock?db=0",
        "redis+cluster://a:7000,b:7001",
        "rediss+cluster://a:7000",
        "redis+sentinel://:pw@a:26379,b:26379/mymaster/0",
        "rediss+sentinel://a:26379/mymaster",
    ],
)
def test_redis_urls(url: str) -> None:
    """Every kind of Redis is accepted."""
    assert settings.load({"REDIS_URL": url}).redis_url == SecretStr(url)


@pytest.mark.parametrize("url", ["http://h", "redis://", "unix://", "redis://h:port", "localhost:6379", "redis://[::1"])
def test_bad_redis_urls(url: str) -> None:
    """Wrong scheme, no host, no socket or a bad port is refused by name."""
    (line,) = refused({"REDIS_URL": url})
    assert line.startswith("REDIS_URL (environment): ")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://u:p@h/db",
        "postgresql://u:p[x@/db?host=/run/postgresql",
        "host=/run/postgresql dbname=app password='a b'",
        "service=app",
    ],
)
def test_postgres_dsns(dsn: str) -> None:
    """Both spellings of libpq are accepted; our own database defaults to the application's."""
    loaded = settings.load({"DATABASE_URL": dsn})
    assert loaded.ops_dsn == SecretStr(dsn)
    assert list(loaded.secrets()) is not None
    other = settings.load({"DATABASE_URL": dsn, "OPS_DATABASE_URL": "dbname=ops"})
    assert other.ops_dsn == SecretStr("dbname=ops")


@pytest.mark.parametrize("dsn", ["postgresql+psycopg://h/db", "mysql://h/db", "just words", "passwd=x", "host='x"])
def test_bad_postgres_dsns(dsn: str) -> None:
    """What libpq cannot read is refused."""
    (line,) = refused({"DATABASE_URL": dsn})
    assert line.startswith("DATABASE_URL (environment): ")


@pytest.mark.parametrize("url", ["ftp://h", "https://", "http://u:p@h", "http://h?token=x", "http://h/#f"])
def test_base_urls_hold_nothing_secret(url: str) -> None:
    """A base URL is shown in errors: it may not carry credentials."""
    (line,) = refused({"KINGUIN_BASE_URL": url})
    assert line.startswith("KINGUIN_BASE_URL")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("0.0.0.0:9401", ("0.0.0.0", 9401)),  # noqa: S104 - written out is allowed
        ("[::1]:9401", ("::1", 9401)),
        ("ops.internal:65535", ("ops.internal", 65535)),
    ],
)
def test_listen(text: str, pair: tuple[str, int]) -> None:
    """Host and port, IPv6 in brackets."""
    assert settings.load({"OPS_LISTEN": text}).listen == pair


@pytest.mark.parametrize(
    "text", [":9401", "9401", "::1:9401", "h:", "h:x", "h:65536", "h:-1", "[]:1", "h:٣", "h:" + "9" * 5000]
)
def test_bad_listen(text: str) -> None:
    """No host means everywhere in other programs; here it is refused."""
    (line,) = refused({"OPS_LISTEN": text})
    assert line.startswith("OPS_LISTEN (environment): ")


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "1e999", "soon"])
def test_numbers_are_positive(number: str) -> None:
    """A horizon is a positive, finite number of seconds."""
    (line,) = refused({"OPS_LEDGER_HORIZON_SECONDS": number})
    assert line.startswith("OPS_LEDGER_HORIZON_SECONDS")


def test_all_errors_at_once() -> None:
    """One run tells everything that is wrong, in the environment, in the file and between settings."""
    lines = refused(
        {
            "REDIS_URL": "nonsense",
            "DATABASE_URL": "nonsense",
            "OPS_LISTN": "127.0.0.1:1",
            "OPS_LOG_LEVEL": "loud",
            "APP_JWT_SECRET": "x",
            "APP_ADMIN_TOKEN": "y",
            "OPS_METRICS_TOKEN_FILE": "/nowhere/token",
            "R2_ACCESS_KEY_ID": "x",
            "OPS_CONFIG": "/nowhere/ops.yaml",
        }
    )
    text = "\n".join(lines)
    for name in ("REDIS_URL", "DATABASE_URL", "OPS_LOG_LEVEL", "APP_ADMIN_ID", "R2_SECRET_ACCESS_KEY", "OPS_CONFIG"):
        assert name in text
    assert "OPS_LISTN (environment): unknown setting; did you mean OPS_LISTEN?" in lines
    assert "cannot read /nowhere/token (No such file or directory)" in text
    assert "keep the one to be used" in text


def test_empty_is_unset() -> None:
    """Compose files pass empty variables for what is not set."""
    loaded = settings.load({"REDIS_URL": " ", "OPS_LISTEN": "", "OPS_METRICS_TOKEN_FILE": ""})
    assert loaded.redis_url is None
    assert loaded.ops_metrics_token is None


def test_secret_from_file(tmp_path: Path) -> None:
    """X_FILE: the content without its final newline; blanks inside are kept."""
    path = tmp_path / "key"
    path.write_text(" s3cret \n")
    loaded = settings.load({"KINGUIN_API_KEY_FILE": str(path)})
    assert loaded.kinguin_api_key is not None
    assert loaded.kinguin_api_key.get_secret_value() == " s3cret "
    (shown,) = [each for each in loaded.describe() if each.name == "KINGUIN_API_KEY"]
    assert (shown.value, shown.origin) == ("set", "environment, KINGUIN_API_KEY_FILE")


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"\xff\xfe", b"x" * 70_000])
def test_bad_secret_files(tmp_path: Path, content: bytes) -> None:
    """Empty, several lines, binary or huge: refused with the setting's name, without the content."""
    path = tmp_path / "key"
    path.write_bytes(content)
    (line,) = refused({"KINGUIN_API_KEY_FILE": str(path)})
    assert "KINGUIN_API_KEY" in line
    assert "xxx" not in line


def test_secret_twice_and_file_of_no_secret(tmp_path: Path) -> None:
    """X and X_FILE together are refused, and so is X_FILE of something that is no secret."""
    path = tmp_path / "key"
    path.write_text("abcd")
    (line,) = refused({"KINGUIN_API_KEY": "abcd", "KINGUIN_API_KEY_FILE": str(path)})
    assert "both are set" in line
    (line,) = refused({"OPS_LISTEN_FILE": str(path)})
    assert "only secrets may come from a file" in line


def test_yaml_below_environment(tmp_path: Path) -> None:
    """The environment wins over the file, by X or by X_FILE; origins say which it was."""
    key = tmp_path / "key"
    key.write_text("from-env-file")
    config = tmp_path / "ops.yaml"
    config.write_text(
        "redis_url: redis://file\nBULLMQ_PREFIX: shop\nops_listen: ~\n"
        "kinguin_api_key: from-yaml\napp_admin_token: 0123\n"
    )
    loaded = settings.load({"OPS_CONFIG": str(config), "REDIS_URL": "redis://env", "KINGUIN_API_KEY_FILE": str(key)})
    assert loaded.redis_url == SecretStr("redis://env")
    assert loaded.bullmq_prefix == "shop"
    assert loaded.ops_listen == "127.0.0.1:9401"
    assert loaded.kinguin_api_key == SecretStr("from-env-file")
    assert loaded.app_admin_token == SecretStr("0123")
    origins = {each.name: each.origin for each in loaded.describe()}
    assert origins["REDIS_URL"] == "environment"
    assert origins["BULLMQ_PREFIX"] == f"{config}:2"
    assert origins["OPS_LISTEN"] == "default"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("redis_ulr: x", "did you mean REDIS_URL?"),
        ("- a\n- b", "write `name: value` lines"),
        ("a: [", "not valid YAML"),
        ("redis_url: [redis://h]", "takes one value"),
        ("redis_url: redis://h\nREDIS_URL: redis://h", "written twice"),
        ("ops_config: /x", "belongs into the environment"),
        ("? {a: b}\n: c", "unknown setting"),
        ("[" * 5000, "not valid YAML"),
        ("redis_url: &a redis://h\nbullmq_prefix: *b", "not valid YAML"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, says: str) -> None:
    """The file is strict, and an error has its line."""
    path = tmp_path / "ops.yaml"
    path.write_text(text)
    lines = refused({"OPS_CONFIG": str(path)})
    assert any(says in line and line.startswith(str(path)) for line in lines), lines


def test_no_message_repeats_a_value(tmp_path: Path) -> None:
    """A secret planted in every setting, in the wrong one, and as a key of the file is in no message and no repr."""
    bad = f"bad://{PLANTED}\n{PLANTED}"
    path = tmp_path / "ops.yaml"
    path.write_text(
        "".join(f"{field.name}: {PLANTED}\n" for field in settings.FIELDS) + f"{PLANTED}: x\nx: [{PLANTED}\n"
    )
    for env in (
        {field.name: bad for field in settings.FIELDS if field.name != "OPS_CONFIG"},
        {field.name: PLANTED for field in settings.FIELDS if field.name != "OPS_CONFIG"} | {"OPS_LISTEN": PLANTED},
        {"OPS_CONFIG": str(path)},
    ):
        assert PLANTED not in "\n".join(refused(env))


def test_repr_and_description_hide_secrets() -> None:
    """Neither repr nor the table of check-config holds a secret; `secrets` lists every one."""
    env = {
        "DATABASE_URL": f"postgresql://app:{PLANTED}-1@h/db",
        "OPS_DATABASE_URL": f"host=h password={PLANTED}-2",
        "REDIS_URL": f"redis+sentinel://:{PLANTED}-3@a:1,b:2/m?sentinel_password={PLANTED}-4",
        "APP_METRICS_URL": f"http://{PLANTED}-5@h/metrics",
        "SENTRY_DSN": f"http://{PLANTED}-6@h/1",
        "KINGUIN_API_KEY": f"{PLANTED}-7",
    }
    loaded = settings.load(env)
    assert PLANTED not in repr(loaded) + str(loaded) + repr(loaded.describe())
    assert {text for text in loaded.secrets() if PLANTED in text} == {f"{PLANTED}-{n}" for n in range(1, 8)}


def test_require_names_every_missing_one() -> None:
    """What a subject lacks is said at once, with how to set it; a name that is no setting is our own mistake."""
    loaded = settings.load({"REDIS_URL": "redis://h"})
    assert loaded.require("REDIS_URL") is loaded
    assert (loaded.has("REDIS_URL"), loaded.has("BULLMQ_PREFIX"), loaded.has("DATABASE_URL")) == (True, True, False)
    with pytest.raises(
        ConfigError, match=re.compile(r"^DATABASE_URL is not set.*_FILE.*\nAPP_BASE_URL is not", re.DOTALL)
    ):
        loaded.require("DATABASE_URL", "REDIS_URL", "APP_BASE_URL")
    with pytest.raises(KeyError):
        loaded.require("DATABASE_ULR")


@given(
    st.dictionaries(st.sampled_from([field.name for field in settings.FIELDS if field.name != "OPS_CONFIG"]), st.text())
)
def test_any_text_loads_or_is_refused(env: dict[str, str]) -> None:
    """Whatever the environment holds: settings or ConfigError, nothing else; and secrets can be listed."""
    try:
        loaded = settings.load(env)
    except ConfigError:
        return
    assert all(isinstance(text, str) for text in loaded.secrets())
