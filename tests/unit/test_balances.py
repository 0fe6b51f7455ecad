"""What a provider's answer means: the documented shapes, and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.areas.balances import MAX_CURRENCIES, MAX_NAME, Kinguin, NowPayments, most, runway

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["balances", "balance", "currency", "amount"]) | st.text(), inner, max_size=4)
    ),
)


def test_both_shapes_of_nowpayments() -> None:
    """A list of pairs or a map; the currency in capitals."""
    listed = {"balances": [{"currency": "btc", "balance": 0.042}, {"currency": "usdttrc20", "balance": 3}]}
    mapped = {"btc": {"amount": 0.042, "pendingAmount": 0}, "usdttrc20": {"amount": 3, "pendingAmount": 1}}
    assert NowPayments._parse(listed) == NowPayments._parse(mapped) == {"BTC": 0.042, "USDTTRC20": 3.0}
    assert NowPayments._parse({"balances": []}) == NowPayments._parse({}) == {}


def test_kinguin_is_in_eur() -> None:
    """One number."""
    assert Kinguin._parse({"balance": 12.45}) == {"EUR": 12.45}
    assert Kinguin._parse({"balance": 0}) == {"EUR": 0.0}
    assert Kinguin._parse({"balance": -3}) == {"EUR": -3.0}


@pytest.mark.parametrize(
    "value",
    [None, True, "12.45", [], {}, math.inf, -math.inf, math.nan, 1e16, pytest.param(10**400, id="10^400")],
)
def test_what_is_no_amount(value: Any) -> None:
    """Null is not zero, a string is another API, and 10^400 is no money."""
    assert Kinguin._parse({"balance": value}) is None
    assert NowPayments._parse({"balances": [{"currency": "btc", "balance": value}]}) is None
    assert NowPayments._parse({"btc": {"amount": value}}) is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "x",
        1,
        {"data": {"items": []}},
        {"message": "no"},
        {"balances": [1]},
        {"balances": [{"balance": 1}]},
        {"balances": [{"currency": " ", "balance": 1}]},
        {"balances": [{"currency": "btc", "balance": 1}, {"currency": "BTC", "balance": 2}]},
    ],
)
def test_other_shapes(answer: Any) -> None:
    """Anything else is another shape; of two balances of one currency neither is guessed."""
    assert NowPayments._parse(answer) is None


@given(JSON)
def test_any_json_is_read_or_refused(answer: Any) -> None:
    """Whatever comes: amounts fit for a page, or None."""
    json.dumps(answer)
    for parsed in (NowPayments._parse(answer), Kinguin._parse(answer)):
        for currency, amount in (parsed or {}).items():
            assert currency.strip()
            assert len(currency) <= MAX_NAME
            assert math.isfinite(amount)


def test_most_keeps_those_with_money() -> None:
    """Of a thousand coins the empty ones go first."""
    many = {f"C{number:04}": float(number == 999) for number in range(1000)}
    kept = most(many)
    assert len(kept) == MAX_CURRENCIES
    assert kept["C0999"] == 1
    assert most(kept) == kept


@pytest.mark.parametrize(
    ("balance", "spent", "seconds", "days"),
    [
        (100, 70, 7 * 86_400, 10),
        (100, 50, 86_400, 2),
        (0, 50, 86_400, 0),
        (-5, 50, 86_400, 0),
        (100, 50, 86_399, None),
        (100, 0, 7 * 86_400, None),
        (100, 0, 0, None),
    ],
)
def test_runway(balance: float, spent: float, seconds: float, days: float | None) -> None:
    """Days at the spend per day of the history; unknown before a day of it or without spending."""
    assert runway(balance, spent, seconds) == days
