"""What a notebook shows."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from tests.support.threads import PATIENCE

from run_task import (
    ContextBuilder,
    DataSet,
    DataSets,
    Percentiles,
    PipelineStats,
    Runner,
    RunnerConfig,
    RunnerStats,
    SinkStats,
    SourceStats,
    TaskError,
    TimeSeries,
    TimeUnit,
    VirtualClock,
    Window,
    collect,
    task,
)
from run_task.observe._format import seconds
from run_task.observe._html import ERROR, value_text

WINDOW = Window(10, 20)
NASTY = "<script>alert('1')</script> & \"co\""


class Cells(HTMLParser):
    """The text of each row, by cells, and all tags that there are."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows:
            self.rows[-1][-1] += data


def failed(name: str, window: Window = WINDOW) -> TaskError:
    error = TaskError(name, window)
    error.__cause__ = ValueError(NASTY)
    return error


def markup(thing: Any) -> str:
    html: str = thing._repr_html_()
    return html


def shown(thing: Any) -> Cells:
    cells = Cells(markup(thing))
    assert cells.tags <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td"}
    return cells


def test_a_dataset_shows_results_errors_and_times() -> None:
    dataset = DataSet(
        WINDOW, {"mean": 1.5, NASTY: NASTY}, {"worst": failed("worst")}, {"mean": 0.0025}
    )
    cells = shown(dataset)
    assert "DataSet [10, 20)" in cells.text
    head, mean, nasty, worst = cells.rows
    assert head == ["task", "result", "took"]
    assert mean == ["mean", "1.5", "2.5 ms"]
    assert nasty == [NASTY, repr(NASTY), ""]
    assert worst[0] == "worst"
    assert worst[1].startswith("✗ task 'worst' gave no result for [10, 20): ValueError: <script>")
    assert markup(dataset).count(ERROR) == 1


def test_a_dataset_of_many_tasks_and_large_results_stays_small() -> None:
    large = list(range(10_000))
    values = {f"task {i}": large for i in range(5_000)}
    dataset = DataSet(WINDOW, values, {"worst": failed("worst")})
    assert len(markup(dataset)) < 40_000
    cells = shown(dataset)
    assert cells.rows[1][1] == "[0, 1, 2, 3, 4, 5, ...]"
    assert cells.rows[-2][0] == "worst", "errors are not what is left out"
    assert cells.rows[-1] == ["and 4901 more"]


def test_stats_show_counts_and_percentiles() -> None:
    spread = Percentiles(0.0, 1.5e-6, 0.25, 2.0)
    stats = RunnerStats(1234, 0, 0, spread, Percentiles())
    cells = shown(stats)
    assert cells.text.startswith("1,234 ticks, 0 missed, 0 dropped")
    assert cells.rows[1] == ["lateness", "0 s", "1.5 µs", "250 ms", "2 s"]
    assert ERROR not in markup(stats)
    assert ERROR in markup(RunnerStats(1234, 1, 0, spread, spread))
    assert ERROR in markup(RunnerStats(1234, 0, 1, spread, spread))


def test_datasets_show_their_first_and_last() -> None:
    windows = [Window(i, i + 1) for i in range(100)]
    datasets = DataSets(
        DataSet(window, {NASTY: i}, {"worst": failed("worst", window)})
        for i, window in enumerate(windows)
    )
    cells = shown(datasets)
    assert cells.rows[0] == ["timestamp", NASTY, "worst"]
    assert cells.rows[1] == ["1", "0", "error"]
    assert cells.rows[11] == ["..."]
    assert cells.rows[-1] == ["100", "99", "error"]
    assert len(cells.rows) == 22
    assert len(shown(datasets[:20]).rows) == 21
    wide = DataSets([DataSet(WINDOW, {f"task {i}": i for i in range(30)})])
    assert shown(wide).rows[0][-1] == "and 10 more"
    assert "0 DataSets" in shown(DataSets[int]()).text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (1e-9, "0.001 µs"), (2.5e-5, "25 µs"), (0.0123, "12.3 ms"), (75.0, "75 s")],
)
def test_times_have_the_unit_that_suits_them(value: float, text: str) -> None:
    assert seconds(value, 3) == text


def test_a_value_is_on_one_line_and_value_text() -> None:
    class Verbose:
        def __repr__(self) -> str:
            return "first\n  second " * 100

    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no")

    assert value_text("x" * 500).startswith("'xxx")
    assert len(value_text("x" * 500)) <= 123
    assert len(value_text(Verbose())) <= 123
    assert "\n" not in value_text(Verbose())
    assert value_text(Broken()).startswith("<Broken instance at")


def test_a_series_shows_its_first_and_last_rows() -> None:
    series = TimeSeries({NASTY: int}, TimeUnit.SECONDS)
    series.extend(range(10), **{NASTY: range(10)})
    for thing in (series, series.view()):
        cells = shown(thing)
        assert cells.rows[0] == ["time (s)", NASTY]
        assert cells.rows[1] == ["1970-01-01T00:00:00Z", "0"]
        assert cells.rows[4] == ["...", "..."]
        assert cells.rows[-1][1] == "9"
        assert len(cells.rows) == 8
    assert "of 10 rows" in shown(series).text


def test_a_runner_shows_how_far_it_has_come_and_its_stats() -> None:
    @task
    def nothing(data: object, start: int, end: int) -> None:
        """Its windows are counted."""

    context, receiver, _ = (
        ContextBuilder(list[int])
        .with_task(nothing)
        .with_interval("10ms")
        .with_config(RunnerConfig(name=NASTY))
        .build()
    )
    clock = VirtualClock()
    runner = Runner(context, clock=clock)
    assert "every 10ms: new" in shown(runner).text
    with runner:
        clock.advance("20ms")
        collect(receiver, 2, timeout=PATIENCE)
        cells = shown(runner)
        assert f"Runner {NASTY!r}, every 10ms: running" in cells.text
        assert "2 ticks, 0 missed" in cells.text
        assert cells.rows[1][0] == "lateness"
    assert "every 10ms: ended" in shown(runner).text


def test_the_stats_of_a_pipeline_show_stages_and_what_became_of_rows() -> None:
    stats = PipelineStats(
        {NASTY: RunnerStats(1_200, 3, lateness=Percentiles(0.001, 0.002, 0.003, 0.004))},
        (9,),
        waiting=2,
        lost=1,
        sources={"feed": SourceStats(received=10, stored=9, malformed=1)},
    )
    cells = shown(stats)
    assert cells.rows[1][:6] == [NASTY, "1,200", "3", "0", "1 ms", "3 ms"]
    assert cells.rows[2][:4] == ["source", "received", "stored", "malformed"]
    assert cells.rows[3][:5] == ["feed", "10", "9", "1", "0"]
    assert "2 results wait, 0 refused, 1 lost" in cells.text
    assert markup(stats).count(ERROR) == 3, "of what was lost, missed and malformed"
    sinks = {NASTY: SinkStats(results=9, written=5, dropped=4, failures=3)}
    of_sinks = PipelineStats({}, (), waiting=0, dropped=4, sinks=sinks)
    cells = shown(of_sinks)
    assert cells.rows[1][:5] == ["sink", "results", "written", "refused", "dropped"]
    assert cells.rows[2] == [NASTY, "9", "5", "0", "4", "0", "0", "3", "0"]
    assert cells.text.startswith("0 results wait, 0 refused, 0 lost, 4 dropped")
    assert shown(PipelineStats({}, (), waiting=0)).rows == [
        ["stage", "ticks", "missed", "empty", "lateness p50", "p99", "duration p50", "p99"]
    ]
