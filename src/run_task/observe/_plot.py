"""Lines over time, by matplotlib: on axes that are given, or on some of their own.

pyplot, which has figures that all of a program share, is not touched: a figure is gone with the
last who holds it, and shows itself in a notebook.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES: Final = 10
"""How many lines can be told apart by their colours."""

_MOST_POINTS: Final = 20_000
"""Up to how many points of a line are drawn one by one."""

_PARTS: Final = 2_000
"""In how many parts a longer one is drawn: more than a picture has pixels."""

_FEW: Final = 60
"""Up to how many points of a line each has a mark of its own."""

_NAMED: Final = 4
"""How many of those that are left out are named."""

_SECOND_NS: Final = 10**9
_DAY_NS: Final = 86_400 * _SECOND_NS
_FIRST_DAY: Final = -719_000
_LAST_DAY: Final = 2_932_000
"""Of the calendar that matplotlib has, with room for its margins: the years from 1 to 9999."""

_FINEST_NS: Final = 100_000
"""Over less than this, the days that matplotlib counts tell no moments apart."""

_MUTED: Final = "0.45"


@dataclass(frozen=True, slots=True, eq=False)
class TimeAxis:
    """The times of some points.

    :param stamps: timestamps, in ascending order
    :param unit_ns: how many nanoseconds their unit has; None: nobody knows
    :param zone: the zone in which they are shown
    :param origin: of what the numbers are told that stand for times which no calendar can tell
    """

    stamps: NDArray[np.int64]
    unit_ns: int | None
    zone: tzinfo
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Values that a line can be made of.

    :param values: one for each time; NaN where there is none
    :param stepped: whether a value holds until the next
    :param told: what is said of it behind its name
    """

    values: NDArray[Any]
    stepped: bool = False
    told: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """What is to be drawn.

    :param what: what it is of, for messages
    :param times: the times of its rows
    :param columns: by name, the numbers of these rows, or what else there is, in a word
    :param keys: for each row, the place of its key, and the keys; None: there are none
    """

    what: str
    times: TimeAxis
    columns: Mapping[str, Numbers | str]
    keys: tuple[NDArray[np.integer[Any]], Sequence[Any]] | None = None

    def draw(
        self, names: Sequence[Any] = (), keys: Iterable[Any] | None = None, axes: Axes | None = None
    ) -> Axes:
        """Draw a line of each column, and of each key.

        :param names: of which columns, or the tasks that they are called after; none: of all that
            are numbers, or of as many as can be told apart
        :param keys: of which keys; None: of those that have the most rows
        :param axes: where; None: on axes of their own
        :return: the axes
        :raises ConfigError: if there is nothing to draw, it is no number, or matplotlib is not
            installed
        """
        on: Any = _own_axes() if axes is None else _checked(axes)
        notes: list[str] = []
        numbers = self._numbers([getattr(name, "name", name) for name in names], notes)
        chosen = self._keys(keys, numbers, notes)
        shown = _Shown(self.times)
        for key, rows in chosen.items():
            for name, found in numbers.items():
                label = f"{name}{found.told}"
                if key is not None:
                    label = f"{key}{found.told}" if len(numbers) == 1 else f"{key} {label}"
                values = found.values.astype(np.float64)
                _draw_line(on, shown.places[rows], values[rows], label, stepped=found.stepped)
        shown.label(on)
        if len(numbers) == 1:
            (name,) = numbers
            on.set_ylabel(name if None not in chosen else f"{name}{numbers[name].told}")
        if len(numbers) * len(chosen) > 1:
            on.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0.3)
        told = f"not drawn: {', '.join(notes)}" if notes else ""
        if not len(self.times.stamps):
            told = "no rows"
        if told:
            on.set_title(told, loc="left", fontsize="small", color=_MUTED)
        drawn: Axes = on
        return drawn

    def _numbers(self, asked: Sequence[str], notes: list[str]) -> dict[str, Numbers]:
        """The columns that are drawn.

        :param notes: what is said of those that are not
        """
        others = {name: kind for name, kind in self.columns.items() if isinstance(kind, str)}
        for name in asked:
            if name not in self.columns:
                raise ConfigError(
                    f"{self.what}: there is no {name!r}, but {_listed(list(self.columns))}"
                )
            if name in others:
                raise ConfigError(f"{self.what}: {name!r} is {others[name]}, and no number")
        found = {
            name: each
            for name, each in self.columns.items()
            if isinstance(each, Numbers) and (not asked or name in asked)
        }
        if not found:
            there = _listed([f"{name} ({kind})" for name, kind in others.items()])
            raise ConfigError(f"{self.what}: lines are made of numbers, and there is {there}")
        if not asked:
            notes += [f"{name} ({kind})" for name, kind in list(others.items())[:_NAMED]]
            if (more := len(others) - _NAMED) > 0:
                notes.append(f"{more:,} more that are no numbers")
            if (more := len(found) - MOST_LINES) > 0:
                notes.append(f"{more:,} more columns")
                found = {name: found[name] for name in list(found)[:MOST_LINES]}
        return found

    def _keys(
        self, asked: Iterable[Any] | None, numbers: Mapping[str, Numbers], notes: list[str]
    ) -> dict[Any, slice | NDArray[np.intp]]:
        """The keys that are drawn, each with its rows; None for all rows.

        :param asked: which were asked for
        :param numbers: the columns that are drawn of each
        :param notes: what is said of those that are not
        """
        if self.keys is None:
            if asked is not None:
                raise ConfigError(f"{self.what}: keys= is given, and it has none")
            return {None: slice(None)}
        places, there = self.keys
        some = np.zeros(len(places), np.bool_)
        for each in numbers.values():
            some |= np.isfinite(each.values)
        of_each: list[int] = np.bincount(places[some], minlength=len(there)).tolist()
        counts = {key: count for key, count in zip(there, of_each) if count}
        if asked is not None:
            wanted = list(dict.fromkeys(asked))
            for key in wanted:
                if key not in counts:
                    raise ConfigError(f"{self.what}: there is no number of {key!r}")
        else:
            most = sorted(counts, key=lambda key: (-counts[key], key))
            wanted = sorted(most[: max(1, MOST_LINES // len(numbers))])
            if (more := len(counts) - len(wanted)) > 0:
                notes.append(f"{more:,} more keys")
        place = {key: at for at, key in enumerate(there)}
        return {key: np.flatnonzero(places == place[key]) for key in wanted}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names)) or "nothing"


def _draw_line(
    axes: Any,
    places: NDArray[np.float64],
    values: NDArray[np.float64],
    label: str,
    *,
    stepped: bool,
) -> None:
    style: dict[str, Any] = {"linewidth": 1.4, "label": label}
    if len(places) > _MOST_POINTS:
        places, values = _envelope(places, values)
    elif len(places) <= _FEW:
        style["marker"] = "."
    if stepped:
        style["drawstyle"] = "steps-post"
    (line,) = axes.plot(places, values, **style)
    if "marker" not in style and len(alone := _alone(values)):
        axes.plot(places[alone], values[alone], ".", color=line.get_color())


class _Shown:
    """Where times are on the axis of a picture: on a calendar, or if that cannot tell them, as
    numbers."""

    def __init__(self, times: TimeAxis) -> None:
        stamps, unit_ns = times.stamps, times.unit_ns
        self._times = times
        self._first = int(stamps[0]) if len(stamps) else 0
        last = int(stamps[-1]) if len(stamps) else 0
        self._dated = unit_ns is not None and (
            self._first * unit_ns >= _FIRST_DAY * _DAY_NS
            and last * unit_ns <= _LAST_DAY * _DAY_NS
            and (last == self._first or (last - self._first) * unit_ns >= _FINEST_NS)
        )
        self.places: NDArray[np.float64]
        """Where they are."""
        if self._dated and unit_ns is not None:
            day = _DAY_NS // unit_ns
            days, rest = np.divmod(stamps, day)
            self.places = days + rest / day
        else:
            self.places = (stamps - (self._first if unit_ns else 0)).astype(np.float64)

    def label(self, axes: Any) -> None:
        times = self._times
        if self._dated:
            dates = need("matplotlib.dates", "plot")
            locator = dates.AutoDateLocator(tz=times.zone, minticks=3, maxticks=8)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=times.zone))
            axes.set_xlabel(str(getattr(times.zone, "key", times.zone)), color=_MUTED)
            if len(self.places) and self.places[0] == self.places[-1]:  # else there are years
                around = 10 * max(times.unit_ns or 0, _SECOND_NS) / _DAY_NS
                axes.set_xlim(self.places[0] - around, self.places[0] + around)
        else:
            axes.set_xlabel(times.origin, color=_MUTED)


def _envelope(
    places: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the greatest value of each part of a long line, one after the other."""
    starts = np.linspace(0, len(values), _PARTS, endpoint=False, dtype=np.intp)
    least, greatest = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    made = np.column_stack([least, greatest]).ravel()
    return np.repeat(places[starts], 2), made


def _alone(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which points no line shows, since there is none before and none after."""
    there = np.isfinite(values)
    around = np.concatenate([[False], there, [False]])
    return np.flatnonzero(there & ~(around[:-2] | around[2:]))


def _checked(axes: Any) -> Any:
    if not callable(getattr(axes, "plot", None)) or not hasattr(axes, "xaxis"):
        raise ConfigError(
            f"ax={axes!r}: it is the axes of a figure of matplotlib, as fig.add_subplot() gives "
            f"them"
        )
    return axes


def _own_axes() -> Any:
    figure = need("matplotlib.figure", "plot").Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(axes_class=_axes_class())
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


@functools.cache
def _axes_class() -> Any:
    """Axes that a notebook shows, though no pyplot knows them."""
    base: Any = need("matplotlib.axes", "plot").Axes

    def png(self: Any) -> bytes:
        made = io.BytesIO()
        self.figure.savefig(made, format="png", dpi=110)
        return made.getvalue()

    return type("ShownAxes", (base,), {"_repr_png_": png, "__module__": __name__})
