"""Print what Alertmanager loads, as JSON: each file's text by its path. Input: the settings by their names, as JSON."""

import json
import sys

from opsctl.commands.alertmanager import files
from opslib import settings
from opslib.errors import OpsError


def main() -> None:
    """Print it, or what the settings lack."""
    try:
        print(json.dumps(files(settings.load(json.load(sys.stdin)))))
    except OpsError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
