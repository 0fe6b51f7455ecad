"""The flag file is read strictly: what is wrong is named with its line, all at once, and nothing of it is used."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from opslib.areas import flags
from opslib.areas.flags import FlagFileError, Scope

ROOT = Path(__file__).parents[2]
GOOD = "enabled: true, description: d, category: c, owner: o"


def errors(tmp_path: Path, text: str | bytes) -> list[str]:
    """What is wrong with a file of this content, without its path."""
    file = tmp_path / "flags.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FlagFileError) as caught:
        flags.load(file)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return [error.replace(str(file), "") for error in caught.value.errors]


def test_ours_is_valid_and_names_what_the_application_is_seeded_with() -> None:
    """The file of this repository, as its head explains it."""
    file = flags.load(ROOT / "flags" / "flags.yaml")
    assert {key: flag.plain for key, flag in file.flags.items()} == {
        "auto_fulfill_enabled": True,
        "captcha_enabled": True,
        "custom_products_enabled": True,
        "email_notifications_enabled": True,
        "fulfillment_enabled": True,
        "kinguin_enabled": True,
        "payment_processing_enabled": True,
        "maintenance_mode": False,
    }
    assert len(file.checksum) == 64


def test_everything_a_flag_can_say(tmp_path: Path) -> None:
    """Each field arrives as its type, and the defaults are what the head of the file says."""
    file = tmp_path / "flags.yaml"
    file.write_text(
        f"flags:\n  plain: {{{GOOD}}}\n"
        f"  whole: {{{GOOD}, expiry: 2027-01-31, scope: vendor, rollout: 20, enforce: true}}\n"
        f"  nobody: {{{GOOD}, scope: user, rollout: 0}}\n"
    )
    loaded = flags.load(file).flags
    plain, whole = loaded["plain"], loaded["whole"]
    assert (plain.expiry, plain.scope, plain.rollout, plain.enforce) == (None, Scope.GLOBAL, 100, False)
    assert (whole.expiry, whole.scope, whole.rollout, whole.enforce) == (date(2027, 1, 31), Scope.VENDOR, 20, True)
    assert (plain.plain, whole.plain, loaded["nobody"].plain) == (True, None, False)
    assert [whole.expired(date(2027, 1, day)) for day in (30, 31)] == [False, False]
    assert whole.expired(date(2027, 2, 1))
    assert not plain.expired(date(2999, 1, 1))


def test_every_error_at_its_line(tmp_path: Path) -> None:
    """Unknown and missing fields, wrong types, doubles and nonsense, each on its own line, all at once."""
    text = f"""\
flags:
  a: {{{GOOD}, enabeld: true}}
  b: {{{GOOD}}}
  b: {{{GOOD}}}
  c:
    enabled: maybe
    description: d
    category: c
    rollout: 20
  d: {{{GOOD}, rollout: 20}}
  e: {{{GOOD}, rollout: 101, scope: planet}}
  f: [1, 2]
  "g h": {{{GOOD}}}
  h: {{{GOOD}, rollout: "20", scope: user}}
  i: {{{GOOD}, expiry: 2027-02-30}}
  j: {{{GOOD}, owner: [x]}}
  k: {{{GOOD}, expiry: soon}}
  l: {{{GOOD}, key: m}}
more: 1
"""
    found = errors(tmp_path, text)
    assert sorted(int(error.split(":")[1]) for error in found) == [
        2,
        4,
        5,
        6,
        10,
        11,
        11,
        12,
        13,
        14,
        15,
        16,
        17,
        18,
        19,
    ]
    told = "\n".join(found)
    for what in (
        ":2: a.enabeld: extra inputs are not permitted",
        ":4: flags: b is written twice",
        ":5: c.owner: field required",
        ":6: c.enabled: input should be a valid boolean",
        ":10: d.rollout: a partial rollout needs `scope: user` or `scope: vendor`",
        ":11: e.rollout: input should be less than or equal to 100",
        ":12: f: write `name: value` lines",
        ":15: i.expiry: cannot be read",
        ":16: j: owner is written twice",
        ":18: l.key: the name before the colon is the key",
        ":19: the file holds `flags:` and nothing else",
    ):
        assert what in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe", ": not UTF-8 text; is it the right file?"),
        ("flags: [", ":1: not valid YAML"),
        ("", ": no `flags:` in it; an empty list is written `flags: {}`"),
        ("- a", ":1: the file: write `name: value` lines"),
        ("x" * (1024 * 1024 + 1), ": more than 1048576 bytes; is it the right file?"),
        ("flags: &a {x: *a}", ":1: x.x: takes one value, not a list or a mapping"),
        ("flags: {<<: {a: 1}}", ":1: flags: a name is plain text"),
    ],
)
def test_no_flag_file_at_all(tmp_path: Path, text: str | bytes, message: str) -> None:
    """Another kind of file says so."""
    assert any(message.lstrip(":").strip() in error for error in errors(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Names the setting."""
    for path in (tmp_path / "missing.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(FlagFileError, match="check OPS_FLAGS_FILE"):
            flags.load(path)


def test_an_empty_file_of_flags_is_one(tmp_path: Path) -> None:
    """Nothing declared is a decision."""
    (tmp_path / "flags.yaml").write_text("flags: {}\n")
    assert flags.load(tmp_path / "flags.yaml").flags == {}
