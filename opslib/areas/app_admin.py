"""The application's admin API: what may be changed in a running application, as its own administrators do.

Whoever calls is an administrator by a bearer token: a ready one, or one minted per call that lives for a minute. The
application looks up nothing, the token is all: HS256 over sub, email, role and exp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jwt

from opslib.errors import ConfigError
from opslib.http import Endpoint, ProviderClient
from opslib.settings import Settings

LIFE_SECONDS = 60
"""Of a minted token: longer than a call takes and two clocks differ, too short to be worth stealing."""


class AppAdmin:
    """The admin API of the application the settings name. Synchronous: for jobs and commands.

    Args:
        settings: `APP_BASE_URL`, and `APP_ADMIN_TOKEN` or `APP_JWT_SECRET`, `APP_ADMIN_ID` and `APP_ADMIN_EMAIL`.

    Raises:
        ConfigError: They are not set.
    """

    def __init__(self, settings: Settings) -> None:
        settings.require("APP_BASE_URL")
        if not settings.has("APP_ADMIN_TOKEN") and not settings.has("APP_JWT_SECRET"):
            raise ConfigError(
                "the admin API needs APP_ADMIN_TOKEN, or APP_JWT_SECRET with APP_ADMIN_ID and APP_ADMIN_EMAIL"
            )
        self._settings = settings

    def set_flag(self, name: str, *, enabled: bool) -> None:
        """Switch a feature flag, in the table and in the running application.

        Raises:
            NotFoundError: The application has no such flag.
            SourceError: It is away, or refused.
        """
        self._send("PATCH", f"/admin/feature-flags/{_part(name)}", {"enabled": enabled})

    def sync_catalog(self) -> Mapping[str, Any]:
        """Fetch the provider's products anew; what the application answered.

        Raises:
            SourceError: It is away, or refused.
        """
        answer = self._send("POST", "/admin/catalog/sync")
        return answer if isinstance(answer, dict) else {}

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return asyncio.run(self._ask(method, path, body))

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        token, setting = self._token()
        client = ProviderClient(
            Endpoint(
                name="the application",
                base_url=self._settings.reveal("APP_BASE_URL"),
                headers={"Authorization": f"Bearer {token}"},
                base_setting="APP_BASE_URL",
                key_setting=setting,
            )
        )
        try:
            return await client.send(method, path, body)
        finally:
            await client.close()

    def _token(self) -> tuple[str, str]:
        """A token, and the setting it stands or falls with."""
        if self._settings.has("APP_ADMIN_TOKEN"):
            return self._settings.reveal("APP_ADMIN_TOKEN"), "APP_ADMIN_TOKEN: it is wrong or has expired"
        claims = {
            "sub": self._settings.reveal("APP_ADMIN_ID"),
            "email": self._settings.reveal("APP_ADMIN_EMAIL"),
            "role": "admin",
            "exp": int(time.time()) + LIFE_SECONDS,
        }
        secret = self._settings.reveal("APP_JWT_SECRET")
        return jwt.encode(claims, secret, algorithm="HS256"), "APP_JWT_SECRET and this machine's clock"


def _part(name: str) -> str:
    return quote(name, safe="")
