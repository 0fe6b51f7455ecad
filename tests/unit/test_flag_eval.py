"""One user's answer and its reasons; a rollout that grows takes nobody's flag away."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from opslib.areas.flag_eval import evaluate, flagd, murmur3, position
from opslib.areas.flag_plan import Override
from opslib.areas.flags import Flag, Scope

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
USERS = [f"user-{number}" for number in range(20_000)]


def flag(*, enabled: bool = True, rollout: int = 100, scope: Scope = Scope.USER) -> Flag:
    """A declared flag."""
    return Flag(key="f", enabled=enabled, description="d", category="c", owner="o", scope=scope, rollout=rollout)


def held(until: datetime) -> Override:
    """Off until then."""
    return Override(value=False, until=until, set_by="anna", set_at=NOW, reason="incident 7")


def test_the_hash_is_murmur3() -> None:
    """Known values of the reference, of every length modulo four."""
    known = {b"": 0, b"a": 0x3C2569B2, b"hello": 0x248BFA47, b"Hello, world!": 0xC0363E43}
    assert {data: murmur3(data) for data in known} == known
    assert murmur3(b"The quick brown fox jumps over the lazy dog") == 0x2E4FF723


def test_raising_takes_nobodys_away() -> None:
    """20 % to 50 %: of 20,000 users none loses the flag, and the shares are right."""
    low, high = ({user for user in USERS if evaluate(flag(rollout=p), None, NOW, user).value} for p in (20, 50))
    assert low < high
    assert 0.19 < len(low) / len(USERS) < 0.21
    assert 0.49 < len(high) / len(USERS) < 0.51


def test_flags_divide_users_differently() -> None:
    """Who is among the first of one flag is not among the first of every flag."""
    both = sum(position("f", user) < 20 and position("g", user) < 20 for user in USERS)
    assert 0.03 < both / len(USERS) < 0.05


def test_an_answer_explains_itself() -> None:
    """Override, off, everybody, nobody in particular, inside, outside."""

    def because(of: Flag, user: str | None, override: Override | None = None) -> tuple[bool, str]:
        answer = evaluate(of, override, NOW, user)
        return answer.value, "; ".join(answer.because)

    until = NOW + timedelta(hours=2)
    said = "overridden by anna until 2026-11-21 14:00 UTC: incident 7"
    assert because(flag(), "u", held(until)) == (False, said)
    assert because(flag(), "u", held(NOW)) == (True, "on in the file, for everybody")
    assert because(flag(enabled=False, rollout=50), "u") == (False, "off in the file")
    outside = "on in the file, for 50 % of users; no user given: outside of every rollout"
    assert because(flag(rollout=50), None) == (False, outside)
    place = position("f", "user-1")
    value, text = because(flag(rollout=place + 1), "user-1")
    assert value
    assert text.endswith(f"{place} < {place + 1}: on")
    value, text = because(flag(rollout=place), "user-1")
    assert not value
    assert text.endswith(f"{place} >= {place}: off")


def test_the_document_says_what_holds_now() -> None:
    """An override is in it, a partial rollout is targeting, and nothing is ever DISABLED."""
    flags = {"f": flag(rollout=20), "g": flag(enabled=False), "h": flag(rollout=20, scope=Scope.VENDOR)}
    document = flagd(flags, {"g": replace(held(NOW + timedelta(hours=1)), value=True)}, NOW)["flags"]
    assert {key: one["defaultVariant"] for key, one in document.items()} == {"f": "off", "g": "on", "h": "off"}
    assert {one["state"] for one in document.values()} == {"ENABLED"}
    assert "targeting" not in document["g"]
    assert document["h"]["targeting"]["if"][0] == {"var": "vendorId"}


def test_fast_enough_to_ask_for_everybody() -> None:
    """Not a figure, a guard: 20,000 answers take well under ten seconds."""
    started = time.perf_counter()
    for user in USERS:
        position("f", user)
    assert time.perf_counter() - started < 10
