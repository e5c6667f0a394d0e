"""Fifty symbols: bars, VWAP, volatility, correlation and a signal, over history or as they come.

    python examples/market.py                       a backtest over made trades
    python examples/market.py --live --seconds 20   the same analytics over trades as they come
    python examples/market.py --trades trades.csv   a backtest over a file of your own

A file has the columns timestamp (milliseconds since the Unix epoch), symbol, price and size.
Results are rows of two tables of an SQLite database: ask it to `select * from bars`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

import numpy as np

from run_task import (
    Empty,
    KeyedDataSet,
    KeyedStage,
    Pipeline,
    RunnerConfig,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task import aggregates as agg
from run_task.sinks import CallbackSink, Layout, SqlSink
from run_task.sources import CsvFile, paced

SYMBOLS = [f"S{number:02}" for number in range(50)]
TRADES_A_SECOND = 200
FIRST = 1_700_000_000_000  # when the made trades begin, in milliseconds
SURE = 0.002  # how far the fast average has to be from the slow one, as a part of it


class Trade(TypedDict):
    symbol: str
    price: float
    size: float


def made_trades(seconds: int) -> Iterator[tuple[int, Trade]]:
    """Random walks that share a part of each step, so that symbols go together."""
    random = np.random.default_rng(7)
    prices = 20 + 200 * random.random(len(SYMBOLS))
    for number in range(seconds * TRADES_A_SECOND):
        if number % TRADES_A_SECOND == 0:
            prices *= np.exp(0.001 * random.standard_normal())
        which = int(random.integers(len(SYMBOLS)))
        prices[which] *= np.exp(0.0005 * random.standard_normal())
        trade: Trade = {
            "symbol": SYMBOLS[which],
            "price": round(float(prices[which]), 4),
            "size": float(random.integers(1, 100)),
        }
        yield FIRST + number * 1000 // TRADES_A_SECOND, trade


@task
def volatility(trades: TimeSeriesView, start: int, end: int) -> float | None:
    """The standard deviation of the returns from trade to trade, over the last minute."""
    prices = trades.in_window["price"]
    return float(np.diff(np.log(prices)).std(ddof=1)) if len(prices) > 2 else None


Position = Literal["long", "flat", "short"]


def flat() -> Position:
    return "flat"


@task(state=flat)
def signal(bars: TimeSeriesView, start: int, end: int, held: Position) -> tuple[Position, Position]:
    """Long or short once the fast average is clearly off the slow one, until it crosses it."""
    fast, slow = float(bars["fast"][-1]), float(bars["slow"][-1])
    ahead = fast / slow - 1
    position = held
    if abs(ahead) > SURE:
        position = "long" if ahead > 0 else "short"
    elif (held == "long") is (ahead < 0):
        position = "flat"
    return position, position


def analytics(
    pipeline: Pipeline, trades: TimeSeries, database: str
) -> KeyedStage[TimeSeriesView, Position]:
    """What is the same for a backtest and live."""
    bars = pipeline.stage(
        "bars",
        [
            agg.ohlc("price").named("price"),
            agg.sum("size").named("volume"),
            agg.vwap("price", "size"),
            agg.count(),
        ],
        trades,
        "1s",
        by="symbol",
    )
    bars.sink(SqlSink(database, table="bars", layout=Layout.WIDE))

    minute = RunnerConfig(window="1m", empty=Empty.SKIP)
    risk = pipeline.stage(
        "risk",
        [
            volatility,
            agg.corr("price", "size").named("price_size_corr"),
            agg.ewm("price", "5s").named("fast"),
            agg.ewm("price", "30s").named("slow"),
            agg.last("price"),
        ],
        trades,
        "1s",
        config=minute,
        by="symbol",
    )
    risk.sink(SqlSink(database, table="risk", layout=Layout.WIDE))
    return pipeline.stage("signals", [signal], risk.series("2m"), "1s", by="symbol")


class Changes:
    """Prints each change of a position."""

    def __init__(self) -> None:
        self._held: dict[str, Position] = {}
        self.count = 0

    def note(self, stage: str, dataset: KeyedDataSet[str, Position]) -> None:
        for symbol, position in dataset[signal].items():
            if self._held.get(symbol, "flat") != position:
                print(f"{dataset.end_time:%H:%M:%S} {symbol} {position}", flush=True)
                self.count += 1
            self._held[symbol] = position


def main() -> None:
    parser = argparse.ArgumentParser(description="Analytics of fifty symbols.")
    parser.add_argument("--live", action="store_true", help="as trades come, not over history")
    parser.add_argument("--seconds", type=int, default=120, help="how much is made (120)")
    parser.add_argument("--trades", metavar="FILE", help="a CSV file in the place of made trades")
    parser.add_argument("--database", default="sqlite:///market.db", help="(sqlite:///market.db)")
    given = parser.parse_args()

    columns = {"symbol": str, "price": float, "size": float}
    trades = TimeSeries(columns, TimeUnit.MILLIS, key="symbol")
    rows: Any = made_trades(given.seconds)
    if given.trades is not None:
        rows = CsvFile(given.trades, unit=TimeUnit.MILLIS, columns=columns)
    pipeline = Pipeline("market")
    pipeline.source(paced(rows, unit=TimeUnit.MILLIS) if given.live else rows, into=trades)
    signals = analytics(pipeline, trades, given.database)
    changes = Changes()
    signals.sink(CallbackSink(changes.note))
    if given.live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    print(f"{changes.count} changes of position")


if __name__ == "__main__":
    main()
