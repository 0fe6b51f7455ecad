"""The application's admin API and our client of it: tokens, flags in memory and table, refusals that say what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest

from demo.app import App
from opslib import settings
from opslib.areas.app_admin import AppAdmin
from opslib.errors import ConfigError, NotFoundError, SourceError
from tests.service.shop_kit import ADMIN, EMAIL, an_app, minted


@pytest.fixture
async def app(app_database: str, tmp_path: Path) -> AsyncIterator[App]:
    """The application."""
    async with an_app(app_database, tmp_path) as app:
        yield app


async def set_flag(env: dict[str, str], name: str, *, enabled: bool) -> None:
    """Switch a flag, from a thread: the loop serves the application."""
    await asyncio.to_thread(AppAdmin(settings.load(env)).set_flag, name, enabled=enabled)


def token(app: App, **claims: Any) -> str:
    """A token with these claims changed."""
    whole = {"sub": ADMIN, "email": EMAIL, "role": "admin", "exp": time.time() + 60, **claims}
    return jwt.encode({name: value for name, value in whole.items() if value is not None}, app.jwt_secret, "HS256")


async def test_a_flag_is_switched_in_the_table_and_in_the_running_application(app: App, app_database: str) -> None:
    """By a minted token and by a ready one; the row names the administrator. A bare UPDATE is not heard."""
    await set_flag(minted(app), "maintenance_mode", enabled=True)
    assert app.admin.flags["maintenance_mode"] is True
    with psycopg.connect(app_database, autocommit=True) as owner:
        row = """SELECT enabled, "updatedById"::text FROM feature_flags WHERE name = 'maintenance_mode'"""
        assert owner.execute(row).fetchone() == (True, ADMIN)
        ready = {"APP_BASE_URL": app.url, "APP_ADMIN_TOKEN": token(app)}
        await set_flag(ready, "maintenance_mode", enabled=False)
        assert owner.execute(row).fetchone() == (False, ADMIN)
        assert app.admin.flags["maintenance_mode"] is False
        owner.execute("UPDATE feature_flags SET enabled = true WHERE name = 'maintenance_mode'")
        assert app.admin.flags["maintenance_mode"] is False
        await app.restart()
        assert app.admin.flags["maintenance_mode"] is True


async def test_a_flag_nobody_knows(app: App) -> None:
    """Is not found, whatever its name holds."""
    for name in ("nonsense", "../../orders", "a b?c#d"):
        with pytest.raises(NotFoundError, match="the application /admin/feature-flags/"):
            await set_flag(minted(app), name, enabled=True)


async def test_a_bad_token_is_refused_and_the_message_names_the_setting(app: App) -> None:
    """Signed with another secret, expired, of a plain user; neither token nor secret is repeated."""
    other = {**minted(app), "APP_JWT_SECRET": "another-secret-of-thirty-two-bytes"}
    with pytest.raises(SourceError, match=r"answered 401; check APP_JWT_SECRET and this machine's clock") as caught:
        await set_flag(other, "maintenance_mode", enabled=True)
    assert "another-secret" not in str(caught.value)
    for claims, status in (({"exp": time.time() - 1}, 401), ({"role": "user"}, 403), ({"email": None}, 401)):
        ready = token(app, **claims)
        with pytest.raises(SourceError, match=f"answered {status}; check APP_ADMIN_TOKEN") as caught:
            await set_flag({"APP_BASE_URL": app.url, "APP_ADMIN_TOKEN": ready}, "maintenance_mode", enabled=True)
        assert ready not in str(caught.value)
    assert app.admin.flags["maintenance_mode"] is False


async def test_an_application_that_is_away(app: App) -> None:
    """Says so within the client's budget."""
    await app.stop()
    with pytest.raises(SourceError, match="the application /admin/catalog/sync: cannot be reached"):
        await asyncio.to_thread(AppAdmin(settings.load(minted(app))).sync_catalog)


def test_without_credentials() -> None:
    """Which settings to give is said before anything is sent."""
    with pytest.raises(ConfigError, match="APP_ADMIN_TOKEN, or APP_JWT_SECRET with"):
        AppAdmin(settings.load({"APP_BASE_URL": "http://127.0.0.1:9"}))
    with pytest.raises(ConfigError, match="APP_BASE_URL is not set"):
        AppAdmin(settings.load({"APP_ADMIN_TOKEN": "t"}))


async def test_every_other_route(app: App, app_database: str) -> None:
    """What each of them takes, answers and refuses; without a token none answers."""
    with psycopg.connect(app_database, autocommit=True) as owner:
        row = owner.execute("INSERT INTO orders (email, status) VALUES ('a@b.example', 'fulfilled') RETURNING id")
        (order,) = row.fetchone() or (None,)
        async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
            head = {"Authorization": f"Bearer {token(app)}"}

            async def ask(method: str, path: str, body: Any = None) -> int:
                assert (await client.request(method, path, json=body)).status_code == HTTPStatus.UNAUTHORIZED
                return (await client.request(method, path, json=body, headers=head)).status_code

            assert await ask("POST", "/admin/catalog/sync") == HTTPStatus.CREATED
            assert await ask("DELETE", "/admin/ops/cache") == HTTPStatus.OK
            assert (app.admin.syncs, app.admin.flushes) == (1, 1)
            assert await ask("POST", f"/admin/orders/{order}/resend-keys") == HTTPStatus.CREATED
            assert await ask("POST", f"/admin/orders/{order}/retry-fulfillment") == HTTPStatus.BAD_REQUEST
            assert await ask("PATCH", f"/admin/orders/{order}/status", {"status": "refunded"}) == HTTPStatus.OK
            assert await ask("PATCH", f"/admin/orders/{order}/status", {"status": "eaten"}) == HTTPStatus.BAD_REQUEST
            assert await ask("PATCH", "/admin/feature-flags/kinguin_enabled", {}) == HTTPStatus.BAD_REQUEST
            assert await ask("POST", "/admin/ops/queues/nonsense/failed/1/retry") == HTTPStatus.NOT_FOUND
            for unknown in (uuid4(), "no-uuid"):
                assert await ask("POST", f"/admin/orders/{unknown}/resend-keys") == HTTPStatus.NOT_FOUND
        assert owner.execute("SELECT status FROM orders").fetchall() == [("refunded",)]
