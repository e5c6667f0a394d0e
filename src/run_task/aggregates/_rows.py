"""The rows of many segments, one behind the other, and what aggregates share of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array
from run_task.tasks._declared import Segments
from run_task.time._interval import TimeUnit

Floats: TypeAlias = NDArray[np.float64]
Positions: TypeAlias = NDArray[np.intp]

T = TypeVar("T")

CHUNK: Final = 1 << 16
"""So many rows are computed at once, unless one segment has more: the columns that are made on the
way stay in the processor's cache. Results do not depend on it."""


_LONG: Final = 2048
"""If a segment is longer, it takes less time to find a rank than to sort it."""


_AT_FIRST: Final = np.zeros(1, np.intp)
_AT_FIRST.flags.writeable = False


class SegmentedRows:
    """The rows of some segments, none of which is empty, one segment behind the other.

    Results are to be the same to the last bit whatever other segments there are, so all that goes
    over the rows of a segment is done by :meth:`sum` and its likes, which begin anew with each
    segment; what NumPy does value by value serves as well. ``cumsum``, ``numpy.sum`` and the like
    over all rows do not.

    :ivar count: how many segments there are
    :ivar starts: where each begins; it ends where the next one does
    :ivar counts: how many rows each has, at least 1
    :ivar unit: the unit of times
    :ivar window_starts: the start of the window of each, in ``unit``
    :ivar window_ends: its end, in ``unit``
    """

    __slots__ = (
        "_floats",
        "_known",
        "_lasts",
        "_lengths",
        "_segments",
        "_sums",
        "_take",
        "_values",
        "count",
        "counts",
        "starts",
        "unit",
        "window_ends",
        "window_starts",
    )

    def __init__(
        self,
        segments: Segments,
        take: slice | Positions,
        starts: Positions,
        counts: Positions,
        window_starts: NDArray[np.int64],
        window_ends: NDArray[np.int64],
    ) -> None:
        self._segments = segments
        self._take = take  # which rows of all
        self.count: Final[int] = len(starts)
        self.starts: Final = starts
        self.counts: Final = counts
        self.unit: Final[TimeUnit] = segments.unit
        self.window_starts: Final = window_starts
        self.window_ends: Final = window_ends
        # What is asked for most often has a place of its own.
        self._values: dict[str, Array] = {}
        self._floats: dict[str, Floats] = {}
        self._sums: dict[str, Floats] = {}
        self._lasts: Positions | None = None
        self._lengths: Floats | None = None
        self._known: dict[Hashable, Any] = {}

    # What is in them

    @property
    def time(self) -> NDArray[np.int64]:
        """The timestamps of all rows."""
        return self._segments.time[self._take]

    def values(self, column: str) -> Array:
        """The values of a column, of all rows; of texts of any length, their codes."""
        found = self._values.get(column)
        if found is None:
            found = np.ascontiguousarray(self._segments.column(column)[self._take])
            self._values[column] = found
        return found

    def floats(self, column: str) -> Floats:
        """The values of a column of numbers as floats, of all rows."""
        found = self._floats.get(column)
        if found is None:
            found = self._floats[column] = self.values(column).astype(np.float64, copy=False)
        return found

    def texts(self, column: str) -> Sequence[str]:
        """What the codes of a column of texts stand for."""
        return self._segments.texts(column)

    # What aggregates do with it

    def shared(self, name: Hashable, make: Callable[..., T], *arguments: Any) -> T:
        """What several aggregates need, made by the first that asks for it.

        :param name: tells it from all else
        :param make: makes it
        :param arguments: what ``make`` is called with
        """
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = make(*arguments)
        found: T = known
        return found

    def sum(self, values: Array) -> Array:
        """The sum of each segment, added pairwise.

        :param values: one for each row
        """
        sums: Array = np.add.reduceat(values, self.starts)
        return sums

    def spread(self, of_segments: Array) -> Array:
        """For each row, what its segment has; if there is one segment, that alone, which NumPy
        takes for all rows.

        :param of_segments: one for each segment
        """
        return of_segments if self.count == 1 else np.repeat(of_segments, self.counts)

    @property
    def lasts(self) -> Positions:
        """Where the last row of each segment is."""
        found = self._lasts
        if found is None:
            found = self._lasts = self.starts + (self.counts - 1)
        return found

    @property
    def lengths(self) -> Floats:
        """How many rows each segment has, as floats."""
        found = self._lengths
        if found is None:
            found = self._lengths = self.counts.astype(np.float64)
        return found

    def sums(self, column: str) -> Floats:
        """The sum of a column of numbers in each segment."""
        found = self._sums.get(column)
        if found is None:
            found = self._sums[column] = self.sum(self.floats(column))
        return found

    def means(self, column: str) -> Floats:
        """The mean of a column of numbers in each segment."""
        return self.shared(("means", column), self._means, column)

    def _means(self, column: str) -> Floats:
        means: Floats = self.sums(column) / self.lengths
        return means

    def centred(self, column: str) -> Floats:
        """How far each value of a column of numbers is from the mean of its segment."""
        return self.shared(("centred", column), self._centred, column)

    def _centred(self, column: str) -> Floats:
        means = self.means(column)
        if self.count == 1:
            return self.floats(column) - means
        spread = self.spread(means)  # memory that is new takes longer than what is done with it
        return np.subtract(self.floats(column), spread, out=spread)

    def least(self, column: str) -> Array:
        """The least value of a column of numbers in each segment; NaN only if it has no other.

        0.0 where it is -0.0: which of two zeros is found depends on where they are in memory.
        """
        return self.shared(("least", column), self._extreme, np.fmin, column)

    def greatest(self, column: str) -> Array:
        """The greatest value of a column of numbers in each segment, likewise."""
        return self.shared(("greatest", column), self._extreme, np.fmax, column)

    def _extreme(self, take: np.ufunc, column: str) -> Array:
        values = self.values(column)
        found: Array = take.reduceat(values, self.starts)
        if found.dtype.kind == "f":
            found += 0.0
        return found

    def in_order(self, column: str) -> Array:
        """The values of a column of numbers, those of each segment in ascending order; NaN come
        last."""
        return self.shared(("in_order", column), self._in_order, column)

    def _in_order(self, column: str) -> Array:
        return sorted_within(self.values(column), self.starts, self.counts)

    def ranked(self, column: str, ranks: Positions) -> Array:
        """The values of some ranks of a column of numbers in each segment.

        :param column: the column's name
        :param ranks: any number of rows of ranks, in each one for each segment: 0 is the least, NaN
            come last
        :return: in the shape of the ranks
        """
        if self.count == 1:
            return self.placed(column, ranks.ravel().tolist())[ranks]
        found: Array = self.in_order(column)[self.starts + ranks]
        return found

    def placed(self, column: str, ranks: Sequence[int]) -> Array:
        """The values of a column of numbers in an order in which those of some ranks stand in their
        places, where there is one segment.

        :param column: the column's name
        :param ranks: which: 0 is the least, NaN come last
        """
        if int(self.counts[0]) <= _LONG:
            return self.in_order(column)
        found: Array = np.partition(self.values(column), ranks)
        return found

    # Parts of it

    def where(self, kept: NDArray[np.bool_]) -> tuple[SegmentedRows | None, Positions | None]:
        """Some of the rows, of those segments that have such rows.

        :param kept: for each row whether it is one of them
        :return: the rows, None if there are none; and which segments they are of, None: all
        """
        if kept.all():
            return self, None
        counts: Positions = np.add.reduceat(kept, self.starts, dtype=np.intp)
        present = np.flatnonzero(counts)
        if not len(present):
            return None, present
        take = self._take
        rows = np.flatnonzero(kept) + take.start if isinstance(take, slice) else take[kept]
        counts = counts[present]
        found = SegmentedRows(
            self._segments,
            rows,
            np.cumsum(counts) - counts,
            counts,
            self.window_starts[present],
            self.window_ends[present],
        )
        return found, present

    def only(self, segment: int) -> SegmentedRows:
        """The rows of one of the segments.

        :param segment: its number among these
        """
        start, stop = int(self.starts[segment]), int(self.starts[segment] + self.counts[segment])
        take = self._take
        if isinstance(take, slice):
            take = slice(take.start + start, take.start + stop)
        else:
            take = take[start:stop]
        one = slice(segment, segment + 1)
        return SegmentedRows(
            self._segments,
            take,
            np.zeros(1, np.intp),
            self.counts[one],
            self.window_starts[one],
            self.window_ends[one],
        )


def rows_of_one(segments: Segments) -> SegmentedRows | None:
    """The rows of a segment that is alone; None: it has none."""
    first, stop = int(segments.starts[0]), int(segments.ends[0])
    if first == stop:
        return None
    counts = np.array([stop - first], np.intp)
    bounds = segments.window_starts, segments.window_ends
    return SegmentedRows(segments, slice(first, stop), _AT_FIRST, counts, *bounds)


def chunks(segments: Segments) -> Iterator[tuple[SegmentedRows, Positions | None]]:
    """Rows of segments in chunks of whole segments, without those that are empty.

    :param segments: which may overlap, and be in any order
    :return: the rows, and the numbers of the segments that they are of, None: all there are
    """
    starts, ends = segments.starts, segments.ends
    window_starts, window_ends = segments.window_starts, segments.window_ends
    counts: Positions = ends - starts
    if len(counts) == 1:
        if (rows := rows_of_one(segments)) is not None:
            yield rows, None
        return
    (filled,) = counts.nonzero()
    all_filled = len(filled) == len(counts)
    if not all_filled:
        starts, ends, counts = starts[filled], ends[filled], counts[filled]
    if not len(filled):
        return
    after = counts.cumsum()
    if all_filled and int(after[-1]) <= CHUNK:
        firsts = after - counts
        take = _rows_of(starts, ends, firsts, counts)
        yield SegmentedRows(segments, take, firsts, counts, window_starts, window_ends), None
        return
    first = 0
    while first < len(filled):
        done = int(after[first] - counts[first])
        stop = max(int(after.searchsorted(done + CHUNK, "right")), first + 1)
        its = slice(first, stop)
        where = filled[its]
        of_chunk = counts[its]
        firsts = after[its] - of_chunk - done
        take = _rows_of(starts[its], ends[its], firsts, of_chunk)
        yield (
            SegmentedRows(
                segments, take, firsts, of_chunk, window_starts[where], window_ends[where]
            ),
            where,
        )
        first = stop


def _rows_of(
    starts: Positions, ends: Positions, firsts: Positions, counts: Positions
) -> slice | Positions:
    """Which rows segments have, one segment behind the other."""
    if (starts[1:] == ends[:-1]).all():
        return slice(int(starts[0]), int(ends[-1]))
    rows: Positions = np.repeat(starts - firsts, counts)
    rows += np.arange(len(rows))
    return rows


def sorted_within(values: Array, starts: Positions, counts: Positions) -> Array:
    """Values in order, segment by segment; NaN come last.

    Segments of like lengths are sorted together, as the rows of a matrix.

    :param values: numbers
    :param starts: where each segment begins, one behind the other
    :param counts: how many values it has
    """
    if len(starts) == 1:
        alone: Array = np.sort(values)
        return alone
    longest = int(counts.max())
    if longest == int(counts.min()):
        alike: Array = np.sort(values.reshape(-1, longest), axis=1)
        return alike.ravel()
    found: Array = np.empty_like(values)
    # Of what sorts behind all values; what is equal to it need not be told from it.
    filler: Any = np.nan if values.dtype.kind == "f" else _greatest_of(values.dtype)
    classes = np.frexp(counts - 1)[1]  # those of 2**(n-1) + 1 to 2**n values are alike
    for each in np.unique(classes):
        of_class = np.flatnonzero(classes == each)
        lengths = counts[of_class][:, None]
        columns = np.arange(int(lengths.max()))
        inside = columns < lengths
        rows = starts[of_class][:, None] + columns
        matrix: Array = np.full(rows.shape, filler, values.dtype)
        matrix[inside] = values[rows[inside]]
        matrix.sort(axis=1)
        found[rows[inside]] = matrix[inside]
    return found


def _greatest_of(dtype: np.dtype[Any]) -> Any:
    return True if dtype.kind == "b" else np.iinfo(dtype).max
