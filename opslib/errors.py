"""The one tree of errors. A message says what went wrong and what to do next; it never holds a secret."""


class OpsError(Exception):
    """Anything this project raises on purpose. The CLI prints it without a traceback and exits with its code."""

    exit_code = 1


class ConfigError(OpsError):
    """The settings are incomplete or wrong."""

    exit_code = 2


class SourceError(OpsError):
    """A backend (Redis, Postgres, a provider, the application) is unreachable, hung, or answered nonsense."""

    exit_code = 5


class ContractError(OpsError):
    """The application's database no longer fits the adapter."""


class MigrationError(OpsError):
    """Our own schema cannot be brought to the wanted version."""


class CheckpointHeldError(OpsError):
    """Another exporter of the same name holds the checkpoint."""


class JobError(OpsError):
    """A job could not do its work; the run is FAILED with this message."""


class CancelledError(OpsError):
    """Somebody asked for this run to be cancelled; the run is CANCELLED."""


class StorageError(SourceError):
    """The object store is unreachable, refused a request, or answered nonsense."""


class RefusedError(OpsError):
    """The guard refused an action: role, reason or confirmation is missing."""

    exit_code = 3


class NotFoundError(OpsError):
    """What was asked for does not exist."""

    exit_code = 4
