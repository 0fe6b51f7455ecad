"""One typed tree of settings: from the environment, over an optional YAML file, with every error at once.

Names are the environment's (`DATABASE_URL`); the file may write them in either case. An empty value is an unset one.
Each secret `X` may come as `X_FILE`, a path whose content is the value. No message ever repeats a value: a wrong
value is often a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic import ValidationError as PydanticError

from opslib import redact
from opslib.errors import ConfigError
from opslib.setting_types import (
    BaseUrl,
    ExistingFile,
    ExistingFolder,
    KeepDays,
    Listen,
    LowerCase,
    PostgresDsn,
    Prefixes,
    RedisUrl,
    Seconds,
    Secret,
    SecretHttpUrl,
    parse_listen,
    secret_parts,
)

MAX_FILE_BYTES = 64 * 1024
"""A secret or a settings file above this is a mistake (a log, a device), not a setting."""


def _plain(kind: str, meaning: str, default: Any = None) -> Any:
    return Field(default=default, title=kind, description=meaning)


def _hidden(kind: str, meaning: str) -> Any:
    return Field(default=None, title=kind, description=meaning, json_schema_extra={"secret": True})


class Settings(BaseModel):
    """Every setting, checked. An attribute is the environment name in lower case; None means not set."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: PostgresDsn | None = _hidden("Postgres URL or DSN", "The application's database; read by views only.")
    ops_database_url: PostgresDsn | None = _hidden("Postgres URL or DSN", "Our own schema `ops`; unset: DATABASE_URL.")
    redis_url: RedisUrl | None = _hidden("Redis URL", "The Redis of the application's queues.")
    bullmq_prefix: Annotated[str, Field(min_length=1, max_length=200)] = _plain(
        "text", "The queues' key prefix, without the colon.", "bull"
    )
    r2_endpoint: BaseUrl | None = _plain("http(s) URL", "The S3 endpoint of the bucket that holds keys and backups.")
    r2_bucket: str | None = _plain("text", "That bucket's name.")
    r2_access_key_id: Secret | None = _hidden("text", "Its access key id.")
    r2_secret_access_key: Secret | None = _hidden("text", "Its secret access key.")
    nowpayments_api_key: Secret | None = _hidden("text", "NOWPayments key, for balances and payments.")
    nowpayments_base: BaseUrl = _plain("http(s) URL", "Where NOWPayments answers.", "https://api.nowpayments.io")
    kinguin_api_key: Secret | None = _hidden("text", "Kinguin ESA key, for the balance.")
    kinguin_base_url: BaseUrl = _plain("http(s) URL", "Where Kinguin answers.", "https://gateway.kinguin.net")
    app_base_url: BaseUrl | None = _plain("http(s) URL", "The application's API.")
    app_metrics_url: SecretHttpUrl | None = _hidden(
        "http(s) URL", "The application's own /metrics: one process's, no balancer's."
    )
    app_admin_token: Secret | None = _hidden("text", "A ready token for the admin API; else give the three below.")
    app_jwt_secret: Secret | None = _hidden("text", "The application's signing secret, to mint short-lived tokens.")
    app_admin_id: str | None = _plain("text", "Id of the admin those tokens name.")
    app_admin_email: Secret | None = _hidden("e-mail", "E-mail of the admin those tokens name.")
    prometheus_url: SecretHttpUrl | None = _hidden("http(s) URL", "Prometheus, for reports.")
    alert_webhook_url: SecretHttpUrl | None = _hidden("http(s) URL", "Takes every alert as JSON, from Alertmanager.")
    alert_webhook_token_file: str | None = _plain("path", "Holds its bearer token; Alertmanager reads it.")
    alert_heartbeat_url: SecretHttpUrl | None = _hidden(
        "http(s) URL", "Is called once a minute, and tells somebody when that stops."
    )
    alert_email_to: str | None = _plain("addresses, by commas", "Who gets alerts by e-mail.")
    alert_email_from: str | None = _plain("address", "Whom those e-mails come from.")
    alert_smtp: str | None = _plain("host:port", "Who sends them.")
    alert_smtp_user: str | None = _plain("text", "Login there.")
    alert_smtp_password_file: str | None = _plain("path", "Holds its password; Alertmanager reads it.")
    alert_slack_url_file: str | None = _plain("path", "Holds Slack's webhook URL; Alertmanager reads it.")
    alert_slack_channel: str | None = _plain("text", "Where alerts are written: #ops.")
    alert_pagerduty_key_file: str | None = _plain("path", "Holds PagerDuty's routing key; Alertmanager reads it.")
    alert_runbook_url: BaseUrl | None = _plain("http(s) URL", "Put before `runbooks/NAME.md` in notifications.")
    alert_on_call: str | None = _plain("text", "Who is on call, or where that is written; in notifications.")
    grafana_url: BaseUrl | None = _plain("http(s) URL", "Grafana, for links in notifications.")
    sentry_dsn: SecretHttpUrl | None = _hidden("http(s) URL", "Where errors are reported; unset: nowhere.")
    sentry_environment: str = _plain("text", "Environment named in those reports.", "production")
    sentry_release: str | None = _plain("text", "Release named in those reports; unset: our version.")
    backup_database_url: PostgresDsn | None = _hidden(
        "Postgres URL or DSN", "What is backed up, as a login that reads everything; unset: DATABASE_URL."
    )
    backup_age_recipients: str | None = _plain(
        "age1…, comma-separated", "Backups are encrypted to these age recipients; unset: not encrypted."
    )
    backup_age_identity: Secret | None = _hidden(
        "AGE-SECRET-KEY-1…", "Opens encrypted backups, for proofs, drills and restores."
    )
    restore_database_url: PostgresDsn | None = _hidden(
        "Postgres URL or DSN",
        "Server and login `opsctl backups restore` writes with (a superuser); its --target names the database.",
    )
    restore_drill_database_url: PostgresDsn | None = _hidden(
        "Postgres URL or DSN", "A server drills may create a scratch database on; unset: a throw-away server."
    )
    ops_pg_bin: ExistingFolder | None = _plain(
        "path", "Folder of pg_dump and psql of the server's major; unset: they are looked for."
    )
    ops_config: ExistingFile | None = _plain("path", "A YAML file of settings; the environment wins over it.")
    ops_listen: Listen = _plain(
        "host:port", "Where the exporters answer. Beyond loopback only if written here.", "127.0.0.1:9401"
    )
    ops_tls_cert: ExistingFile | None = _plain("path", "Certificate chain (PEM), to serve TLS.")
    ops_tls_key: ExistingFile | None = _plain("path", "Its private key (PEM).")
    ops_metrics_token: Secret | None = _hidden("text", "Bearer token a scraper must send.")
    ops_exporter_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = _plain(
        "name",
        "Whose checkpoints these are; of one name only one runs. `ledger` finds what `app` counted under its own.",
        "default",
    )
    ops_ledger_horizon_seconds: Seconds = _plain(
        "seconds", "How far back rows may still appear or change; above the longest transaction.", 900.0
    )
    ops_ledger_settle_seconds: Seconds = _plain("seconds", "An undecided row is counted once this old.", 60.0)
    ops_ledger_refresh_seconds: Seconds = _plain("seconds", "How often the ledger is read.", 5.0)
    ops_ledger_gauges_seconds: Seconds = _plain(
        "seconds", "How often whole tables are asked: statuses, reconciliation.", 60.0
    )
    ops_backup_keep_days: Annotated[int, Field(ge=14, le=366)] = _plain(
        "days, 14 or more", "The newest backup of each of so many days is kept.", 30
    )
    ops_backup_keep_weeks: Annotated[int, Field(ge=0, le=520)] = _plain(
        "weeks", "The newest proven backup of each of so many weeks is kept.", 8
    )
    ops_backup_keep_months: Annotated[int, Field(ge=0, le=120)] = _plain(
        "months", "The newest proven backup of each of so many months is kept.", 12
    )
    ops_backup_max_removed_share: Annotated[float, Field(gt=0, le=1)] = _plain(
        "0 to 1", "Retention refuses to remove more than this share of all backups in one run.", 0.5
    )
    object_prefixes: Prefixes = _plain(
        "prefixes, by commas", "Objects of the bucket that are replicated: keys, above all.", "orders/"
    )
    replica_prefix: str = _plain("text", "Put before the key of each object's replica.", "keys-backup/")
    replica_bucket: str | None = _plain("text", "The bucket of the replicas; unset: R2_BUCKET.")
    replica_endpoint: BaseUrl | None = _plain("http(s) URL", "The S3 endpoint of that bucket; unset: R2_ENDPOINT.")
    replica_access_key_id: Secret | None = _hidden("text", "Its access key id; unset: R2_ACCESS_KEY_ID.")
    replica_secret_access_key: Secret | None = _hidden("text", "Its secret access key.")
    ops_keep_webhook_log_days: KeepDays = _plain(
        "days, 8 or more", "Webhook rows older than this are archived, then deleted.", 30
    )
    ops_keep_job_run_days: KeepDays = _plain(
        "days, 8 or more", "Job runs older than this are archived, then deleted.", 90
    )
    ops_flags_file: str | None = _plain("path", "The feature flags as they are meant to be, in YAML.")
    ops_flags_via: Annotated[Literal["api", "table"], LowerCase] = _plain(
        "api or table",
        "How flags are set: by the application's admin API, or in its table, which it reads when it next starts.",
        "api",
    )
    ops_weekly_subscribers: str | None = _plain(
        "ids", "Ids of the users who get the weekly summary, with commas between, beside those the adapter names."
    )
    ops_report_queue: str = _plain("text", "The BullMQ queue that makes their reports.", "reports")
    ops_email_queue: str = _plain("text", "The BullMQ queue that sends their e-mails.", "email")
    ops_report_folder: str | None = _plain("path", "Where reports are written for a web server, beside the bucket.")
    ops_report_keep_days: Annotated[int, Field(ge=7, le=3660)] = _plain(
        "reports, 7 or more", "Reports of days kept, with their pages of records.", 90
    )
    ops_report_keep_weeks: Annotated[int, Field(ge=7, le=520)] = _plain(
        "reports, 7 or more", "Reports of weeks kept.", 104
    )
    ops_log_format: Annotated[Literal["auto", "json", "console"], LowerCase] = _plain(
        "auto, json or console", "auto: console on a terminal, else JSON.", "auto"
    )
    ops_log_level: Annotated[Literal["debug", "info", "warning", "error"], LowerCase] = _plain(
        "debug, info, warning or error", "Lowest level logged.", "info"
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def ops_dsn(self) -> SecretStr | None:
        """Where schema `ops` lives: `OPS_DATABASE_URL`, else the application's database."""
        return self.ops_database_url or self.database_url

    @property
    def listen(self) -> tuple[str, int]:
        """`OPS_LISTEN` as (host, port)."""
        return parse_listen(self.ops_listen)

    @property
    def backup_dsn(self) -> SecretStr | None:
        """What is backed up: `BACKUP_DATABASE_URL`, else the application's database."""
        return self.backup_database_url or self.database_url

    def has(self, name: str) -> bool:
        """Is the setting of that environment name given?"""
        return getattr(self, _NAMES[name].attribute) is not None

    def reveal(self, name: str) -> str:
        """The text of a secret, for the client that needs it.

        Raises:
            ConfigError: It is not set.
        """
        value = getattr(self.require(name), name.lower())
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    def require(self, *names: str) -> Self:
        """Return these settings if every one of `names` (environment names) is set.

        Raises:
            ConfigError: Naming each missing one, what it is for and how to set it.
        """
        missing = [_NAMES[name] for name in names if not self.has(name)]
        if missing:
            raise ConfigError("\n".join(f"{field.name} is not set: {field.how()}" for field in missing))
        return self

    def require_ops(self) -> str:
        """The DSN of the database that holds schema `ops`.

        Raises:
            ConfigError: Neither `OPS_DATABASE_URL` nor `DATABASE_URL` is set.
        """
        return self.reveal("DATABASE_URL" if self.ops_database_url is None else "OPS_DATABASE_URL")

    def secrets(self) -> Iterator[str]:
        """Every text that must never be seen: secrets as they are, of URLs and DSNs their secret parts."""
        for field in FIELDS:
            value = getattr(self, field.attribute)
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
                yield from secret_parts(text) if "URL" in field.kind else (text,)

    def describe(self) -> tuple[Shown, ...]:
        """Every setting with its origin, for people; of a secret only whether it is set."""
        shown = []
        for field in FIELDS:
            value = getattr(self, field.attribute)
            if field.secret:
                text = "unset" if value is None else "set"
            else:
                text = "" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)
            shown.append(Shown(field.name, text, self._origins.get(field.attribute, "default"), field.secret))
        return tuple(shown)


@dataclass(frozen=True, slots=True)
class SettingField:
    """One setting, for the docs and for messages.

    Attributes:
        name: Environment name.
        kind: What to write, in words.
        default: As one would write it; None when unset.
        secret: Never shown, and also accepted as NAME_FILE.
        meaning: One sentence.
    """

    name: str
    kind: str
    default: str | None
    secret: bool
    meaning: str

    @property
    def attribute(self) -> str:
        """Its attribute of `Settings`."""
        return self.name.lower()

    def how(self) -> str:
        """Tell how to set it."""
        also = f" (or {self.name}_FILE)" if self.secret else ""
        return f"give it{also} in the environment or in the file OPS_CONFIG names. {self.meaning}"


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting as `opsctl check-config` prints it: a secret's value is `set` or `unset`."""

    name: str
    value: str
    origin: str
    secret: bool


def _fields() -> Iterator[SettingField]:
    for attribute, info in Settings.model_fields.items():
        default = f"{info.default:.15g}" if isinstance(info.default, float) else info.default
        secret = bool(info.json_schema_extra)
        yield SettingField(attribute.upper(), info.title or "", default, secret, info.description or "")


FIELDS: tuple[SettingField, ...] = tuple(_fields())
"""Every setting, in the order of the docs."""
_NAMES = {field.name: field for field in FIELDS}
_ALLOWED = {*_NAMES, *(f"{field.name}_FILE" for field in FIELDS if field.secret)}
_TOGETHER = (
    ("OPS_TLS_CERT", "OPS_TLS_KEY"),
    ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
    ("REPLICA_ACCESS_KEY_ID", "REPLICA_SECRET_ACCESS_KEY"),
    ("APP_JWT_SECRET", "APP_ADMIN_ID", "APP_ADMIN_EMAIL"),
)


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `env` (default: the environment), over the YAML file `OPS_CONFIG` names.

    From here on their secrets are known to `redact`.

    Raises:
        ConfigError: One line for each thing that is wrong. No line repeats a value.
    """
    env = os.environ if env is None else env
    errors: list[str] = []
    given = {name: value.strip() for name, value in env.items() if name in _ALLOWED and value.strip()}
    errors += [
        _unknown(name, f"{name} (environment)") for name in env if name.startswith("OPS_") and name not in _ALLOWED
    ]
    values, origins = _resolve(given, dict.fromkeys(given, "environment"), errors)
    if path := given.get("OPS_CONFIG"):
        file_given, places = _read_yaml(path, errors)
        file_values, file_origins = _resolve(file_given, places, errors)
        values, origins = {**file_values, **values}, {**file_origins, **origins}
    errors += _inconsistent(values)
    settings = Settings()
    try:
        settings = Settings.model_validate({name.lower(): value for name, value in values.items()})
    except PydanticError as exc:
        for error in exc.errors(include_input=False, include_url=False, include_context=False):
            name = str(error["loc"][0]).upper()
            text = error["msg"].removeprefix("Value error, ")
            errors.append(f"{name} ({origins.get(name, 'default')}): {text[:1].lower()}{text[1:]}")
    if settings.ops_ledger_horizon_seconds <= settings.ops_ledger_settle_seconds:
        # A row that stays undecided would be forgotten before it is old enough to count.
        errors.append("OPS_LEDGER_HORIZON_SECONDS (or its default): must be more than OPS_LEDGER_SETTLE_SECONDS")
    if errors:
        raise ConfigError("\n".join(errors))
    redact.register(settings.secrets())
    settings._origins.update({name.lower(): origin for name, origin in origins.items()})  # noqa: SLF001 - our own
    return settings


def _inconsistent(values: Mapping[str, str]) -> Iterator[str]:
    """What each value alone cannot show."""
    for group in _TOGETHER:
        missing = [name for name in group if name not in values]
        if 0 < len(missing) < len(group):
            present = [name for name in group if name in values]
            yield f"{', '.join(missing)} (unset): needed beside {', '.join(present)}; set all or none"
    if "APP_ADMIN_TOKEN" in values and "APP_JWT_SECRET" in values:
        yield "APP_ADMIN_TOKEN and APP_JWT_SECRET (all sources): both are set; keep the one to be used"


def _resolve(
    given: Mapping[str, str], places: Mapping[str, str], errors: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Turn each X_FILE of one source into X: the values, and where each came from."""
    values = {name: value for name, value in given.items() if name in _NAMES}
    origins = {name: places[name] for name in values}
    for name in given.keys() - _NAMES.keys():
        target = name.removesuffix("_FILE")
        if target in values:
            errors.append(f"{target} and {name} ({places[name]}): both are set; keep one of them")
        elif (text := _read_text(Path(given[name]), f"{name} ({places[name]})", errors)) is not None:
            # Only line ends: a blank may be part of a password, a final newline is only how the file was written.
            values[target] = text.rstrip("\r\n")
            origins[target] = f"{places[name]}, {name}"
            if not values[target]:
                errors.append(f"{name} ({places[name]}): the file {given[name]} is empty")
    return values, origins


def _read_text(path: Path, what: str, errors: list[str]) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            errors.append(f"{what}: {path} holds more than {MAX_FILE_BYTES} bytes; is it the right file?")
            return None
        return content.decode()
    except UnicodeDecodeError:
        errors.append(f"{what}: {path} is not UTF-8 text; is it the right file?")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else "no valid path"
        errors.append(f"{what}: cannot read {path} ({reason}); check the path and this user's permissions")
    return None


def _read_yaml(path: str, errors: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The file's names and values with `file:line` of each. Nodes, not objects: 0123 stays 0123, and no alias grows."""
    import yaml  # noqa: PLC0415 - most have no such file

    given: dict[str, str] = {}
    places: dict[str, str] = {}
    text = _read_text(Path(path), "OPS_CONFIG (environment)", errors)
    try:
        root = yaml.compose(text or "", Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        errors.append(f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML")
        return given, places
    if root is None:
        return given, places
    if not isinstance(root, yaml.MappingNode):
        errors.append(f"{path}: write `name: value` lines, one for each setting")
        return given, places
    for key, node in root.value:
        place = f"{path}:{key.start_mark.line + 1}"
        name = str(key.value).upper() if isinstance(key, yaml.ScalarNode) else ""
        if name not in _ALLOWED:
            errors.append(f"{place}: {_unknown(name, 'the name')}")
        elif name == "OPS_CONFIG":
            errors.append(f"{place}: OPS_CONFIG belongs into the environment")
        elif name in given:
            errors.append(f"{place}: {name} is written twice")
        elif not isinstance(node, yaml.ScalarNode):
            errors.append(f"{place}: {name} takes one value, not a list or a mapping")
        elif node.tag != "tag:yaml.org,2002:null" and node.value.strip():
            given[name], places[name] = node.value.strip(), place
    return given, places


def _unknown(name: str, shown: str) -> str:
    """Say that there is no such setting. A name from the file is not repeated: it may be a value that lost its key."""
    if name.endswith("_FILE") and name.removesuffix("_FILE") in _NAMES:
        return f"{shown}: only secrets may come from a file; set {name.removesuffix('_FILE')}"
    near = difflib.get_close_matches(name[:80], sorted(_ALLOWED), n=1)
    return f"{shown}: unknown setting" + (f"; did you mean {near[0]}?" if near else "; see `opsctl check-config`")
