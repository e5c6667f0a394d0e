"""Every section there is, in the order in which they are measured.

To add one, write a module whose function takes an :class:`~benchmarks.question.Effort` and gives a
:class:`~benchmarks.question.Question` for each table, name it in a ``SECTION``, and list it here.
The rest (options, tables, goals, JSON, the tests' short run) is common to all. Peers are called by
:func:`benchmarks.apart.apart`.
"""

from __future__ import annotations

from benchmarks import (
    aggregates,
    brokers,
    checkpoint,
    cluster,
    dispatch,
    footprint,
    journal,
    keys,
    live,
    many,
    on_time,
    parallel,
    processes,
    replay,
    series,
    serving,
    sources,
)

SECTIONS = {
    section.name: section
    for section in (
        footprint.SECTION,
        on_time.SECTION,
        many.SECTION,
        parallel.SECTION,
        dispatch.SECTION,
        processes.SECTION,
        cluster.SECTION,
        series.SECTION,
        keys.SECTION,
        aggregates.SECTION,
        live.SECTION,
        checkpoint.SECTION,
        journal.SECTION,
        replay.SECTION,
        sources.SECTION,
        serving.SECTION,
        brokers.SECTION,
    )
}
