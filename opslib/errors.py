"""The one tree of errors. A message says what went wrong and what to do next; it never holds a secret."""


class OpsError(Exception):
    """Anything this project raises on purpose. The CLI prints it without a traceback and exits 1."""


class ConfigError(OpsError):
    """The settings are incomplete or wrong. The CLI exits 2."""


class SourceError(OpsError):
    """A backend (Redis, Postgres, a provider, the application) is unreachable, hung, or answered nonsense."""


class ContractError(OpsError):
    """The application's database no longer fits the adapter."""


class MigrationError(OpsError):
    """Our own schema cannot be brought to the wanted version."""


class CheckpointHeldError(OpsError):
    """Another exporter of the same name holds the checkpoint."""
