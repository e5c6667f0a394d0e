"""Every section there is, in the order in which they are measured."""

from __future__ import annotations

from benchmarks import dispatch, footprint, on_time, parallel

SECTIONS = {
    section.name: section
    for section in (
        footprint.SECTION,
        on_time.SECTION,
        parallel.SECTION,
        dispatch.SECTION,
    )
}
