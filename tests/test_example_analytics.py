"""The examples of many keys: over history and live, their tables beside a plain loop."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from examples import devices, market
from tests.conftest import ROOT
from tests.support.threads import PATIENCE

SECONDS = 6

Table = dict[tuple[str, str], tuple[Any, ...]]
"""Rows of a table by key and the end of the window."""


def run(example: str, folder: Path, *arguments: str) -> tuple[list[str], Path]:
    """The lines that an example prints, and its database."""
    database = folder / "results.db"
    words = ["--seconds", str(SECONDS), "--database", f"sqlite:///{database}", *arguments]
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / f"{example}.py", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 6,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines(), database


def table(database: Path, name: str, key: str, columns: Sequence[str]) -> Table:
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute(
            f"select {key}, window_end, {', '.join(columns)} from {name}"
        ).fetchall()
    finally:
        connection.close()
    return {(row[0], row[1]): row[2:] for row in rows}


BAR = "price_open", "price_high", "price_low", "price_close", "volume", "price_vwap", "count"


def bars_by_hand() -> list[tuple[str, tuple[Any, ...]]]:
    """The bars of each second and symbol, sorted."""
    trades: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for at, row in market.made_trades(SECONDS):
        trades[at // 1000, row["symbol"]].append((row["price"], row["size"]))
    found: list[tuple[str, tuple[Any, ...]]] = []
    for (_, symbol), its in sorted(trades.items()):
        prices, sizes = zip(*its)
        vwap = sum(price * size for price, size in its) / sum(sizes)
        bar = prices[0], max(prices), min(prices), prices[-1], sum(sizes), vwap, len(its)
        found.append((symbol, bar))
    return found


@pytest.mark.parametrize("how", [[], ["--live"]], ids=["backtest", "live"])
def test_market_stores_bars_that_a_person_can_query(how: list[str], tmp_path: Path) -> None:
    lines, database = run("market", tmp_path, *how)
    found = table(database, "bars", "symbol", BAR)
    bars = bars_by_hand()
    in_order = sorted(found, key=lambda key: (key[1], key[0]))
    assert [symbol for symbol, _ in in_order] == [symbol for symbol, _ in bars]
    for key, (_, bar) in zip(in_order, bars):
        assert found[key] == pytest.approx(bar)
    risk = table(database, "risk", "symbol", ["volatility", "fast", "slow", "price_last"])
    assert risk.keys() >= found.keys()
    assert all(row[3] is not None for row in risk.values())
    for (symbol, at), row in found.items():
        assert risk[symbol, at][3] == row[3]  # the last price of the second is that of the minute
    assert lines[-1].endswith("changes of position")


def test_a_backtest_gives_what_the_live_run_gives(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before, _ = run("market", tmp_path / "a")
    live, _ = run("market", tmp_path / "b", "--live")
    assert sorted(before) == sorted(live)


@pytest.mark.parametrize("how", [[], ["--live"]], ids=["history", "live"])
def test_devices_stores_the_statistics_of_each(how: list[str], tmp_path: Path) -> None:
    lines, database = run("devices", tmp_path, *how)
    found = table(database, "temperatures", "device", ["readings", "mean", "highest"])
    readings: dict[str, list[float]] = defaultdict(list)
    for _, row in devices.made_readings(SECONDS):
        readings[row["device"]].append(row["temperature"])
    assert {key for key, _ in found} == set(readings)
    for (device, _), (count, mean, highest) in found.items():
        its = readings[device]
        assert (count, highest) == (len(its), max(its))
        assert mean == pytest.approx(statistics.fmean(its))
    received = sum(map(len, readings.values()))
    assert f"{received} readings" in lines[-1]
