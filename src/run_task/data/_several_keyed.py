"""Several inputs by key: of each keyed one the part of a key, and the whole of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from run_task.data.series._grouped import KeyPart
from run_task.data.series._keyed_view import KeyedView


class SeveralKeyedView(KeyedView):
    """The views of a window, by key: the keys are those of all keyed inputs together.

    Times are in the unit of the first keyed input.

    :param views: the view of each input, as the tasks of the window would have it without keys
    :param positions: the positions of those that have the key
    :param by: the column of the key, in all of these
    :param part: which of the keys; None: all
    """

    __slots__ = ("_inputs", "_of_inputs", "_positions")

    def __init__(
        self,
        views: Sequence[Any],
        positions: Sequence[int],
        by: str,
        part: KeyPart | None = None,
    ) -> None:
        super().__init__(views[positions[0]], by, part)
        self._inputs = views
        self._positions = positions
        self._of_inputs = [KeyedView(views[position], by, part) for position in positions]

    @property
    def has_rows(self) -> bool:
        return any(view.has_rows for view in self._of_inputs)

    @property
    def inputs(self) -> Sequence[Any]:
        return self._inputs

    def include(self, keys: Iterable[Any]) -> None:
        """Let keys be among them, though they may have no row in the window.

        :param keys: of the same kind as the column
        """
        super().include(keys)
        for view in self._of_inputs:
            view.include(())

    def _known(self) -> tuple[Sequence[Any], Sequence[int | None] | None]:
        if self._keys is None:
            union = self._quiet.union(*(view.keys for view in self._of_inputs))
            for view in self._of_inputs:
                view.include(union)
            self._keys = self._of_inputs[0].keys, None
        return self._keys

    def part(self, number: int, count: int) -> SeveralKeyedView:
        """The same of some of the keys: those of one part of all buckets.

        :param number: which of the parts
        :param count: how many parts there are
        """
        part = KeyPart(number, count)
        view = SeveralKeyedView(self._inputs, self._positions, self.by, part)
        view.include(key for key in self._quiet if part.has(key))
        return view

    def last_times(self) -> Iterable[tuple[Any, int]]:
        """The keys that have rows in the window, each with the timestamp of its last."""
        last: dict[Any, int] = {}
        own_ns = self.schema.unit.nanos
        for view in self._of_inputs:
            its_ns = view.schema.unit.nanos
            for key, time in view.last_times():
                own = time if its_ns == own_ns else time * its_ns // own_ns
                last[key] = max(own, last.get(key, own))
        return last.items()

    def next_times(self, last: Mapping[Any, int]) -> Mapping[Any, int]:
        """When keys had their next row in the window, of any of the inputs.

        :param last: by key, after which timestamp
        :return: by key, the timestamp of the first row after that; without those that have none
        """
        found: dict[Any, int] = {}
        own_ns = self.schema.unit.nanos
        for view in self._of_inputs:
            its_ns = view.schema.unit.nanos
            after = last
            if its_ns != own_ns:  # what is later in the other unit, is later once rounded
                after = {key: ((time + 1) * own_ns - 1) // its_ns for key, time in last.items()}
            for key, time in view.next_times(after).items():
                own = time if its_ns == own_ns else time * its_ns // own_ns
                found[key] = min(own, found.get(key, own))
        return found

    def view_at(self, place: int) -> tuple[Any, ...]:
        """What tasks see of the key at a place: a tuple, of each keyed input the view of the key,
        and of the others the whole."""
        views = list(self._inputs)
        for position, view in zip(self._positions, self._of_inputs):
            views[position] = view.view_at(place)
        return tuple(views)

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_keys, (
            tuple(self._inputs),
            self._positions,
            self.by,
            self._quiet,
            self._part,
        )


def _with_keys(
    views: Sequence[Any],
    positions: Sequence[int],
    by: str,
    quiet: Iterable[Any],
    part: KeyPart | None,
) -> SeveralKeyedView:
    made = SeveralKeyedView(views, positions, by, part)
    made.include(quiet)
    return made
