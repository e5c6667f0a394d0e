"""The sources of a pipeline: what was declared of each, and what has become of its rows."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from run_task.errors import ConfigError
from run_task.observe._format import brief, named
from run_task.pipeline._branches import RoutedSource
from run_task.pipeline._fates import Fates, SourcePolicy
from run_task.pipeline._route import Route
from run_task.pipeline._settings_told import of_source
from run_task.runner._stats import SourceStats, both
from run_task.sources._protocol import about
from run_task.time._interval import TimeUnit


class Sources:
    """The sources of a pipeline. They are changed by one thread at a time, and read by any: what is
    read is never changed, but replaced."""

    def __init__(self) -> None:
        self.ways: Sequence[tuple[Any, Route, TimeUnit | None]] = ()
        """Each source with the route of its rows and the unit that it was given; one with several
        targets once with each."""
        self._declared = 0  # how many were
        self._names: dict[int, str] = {}  # by the number of their routes
        self._removed: Sequence[tuple[Route, str]] = ()  # ways of those that were, and their names
        self._policies: Mapping[int, SourcePolicy] = {}  # by the id of the route
        # What became of the rows, by the id of the route: in the last replay, and in the live run.
        self._replayed: Mapping[int, Fates] = {}
        self._received: Mapping[int, Fates] = {}
        self._taken: set[int] = set()  # the ids of those that were read, and are once

    def __len__(self) -> int:
        """How many ways there are."""
        return len(self.ways)

    # What was declared

    @property
    def routed(self) -> Sequence[tuple[Any, Route]]:
        """Each with the route of its rows."""
        return [(source, route) for source, route, _ in self.ways]

    @property
    def titles(self) -> Sequence[str]:
        """What to call each where people read it: by its given name, or else in its own words."""
        return tuple(self.given_name(route) or named(source) for source, route, _ in self.ways)

    @property
    def settings(self) -> Sequence[Sequence[str]]:
        """What was said of each, in words."""
        return tuple(of_source(source, self.policy(route)) for source, route, _ in self.ways)

    @property
    def names(self) -> Collection[str]:
        """What they are called."""
        return self._names.values()

    @property
    def next_number(self) -> int:
        """The number of the next one's routes."""
        return self._declared + 1

    def number_of(self, name: str) -> int | None:
        """The number of the routes of one; None: none is called so."""
        return next((number for number, one in self._names.items() if one == name), None)

    def called(self, number: int) -> str:
        """What one is called, by the number of its routes."""
        return self._names.get(number, unnamed(number))

    def given_name(self, route: Route) -> str | None:
        """The name that was given to one, by its route; None: none was."""
        policy = self._policies.get(id(route))
        given = self.called(route.number) != unnamed(route.number)
        return policy.name if policy is not None and given else None

    def policy(self, route: Route) -> SourcePolicy:
        """What was said of one, by its route."""
        return self._policies[id(route)]

    @contextmanager
    def adding(
        self,
        where: str,
        source: Any,
        unit: TimeUnit | None,
        routes: Sequence[Route],
        called: str,
        policy: SourcePolicy,
    ) -> Generator[None]:
        """It is there from the beginning of the block on, unless the block raises.

        :param where: the source, for messages
        :param unit: the unit that it was given
        :param routes: one for each target, all with :attr:`next_number`
        :param called: its name
        :param policy: what was said of it
        :raises ConfigError: if the name of one of several targets is taken
        """
        names = [called] if len(routes) == 1 else [f"{called}[{i}]" for i in range(len(routes))]
        policies = [policy.named(where, each, self.policy_names) for each in names]
        ways, before = self.ways, self._policies
        self.ways = (*ways, *((source, route, unit) for route in routes))
        new = {id(route): each for route, each in zip(routes, policies, strict=True)}
        self._policies = {**before, **new}
        try:
            yield
        except BaseException:
            self.ways, self._policies = ways, before
            raise
        self._declared = routes[0].number
        self._names[self._declared] = called

    @property
    def policy_names(self) -> Collection[str]:
        """The names by which rows are counted."""
        return {policy.name for policy in self._policies.values()}

    def routes_of(self, number: int) -> Sequence[Route]:
        """The routes of one."""
        return [route for _, route, _ in self.ways if route.number == number]

    def remove(self, number: int) -> None:
        """Remove one. Its counts stay."""
        routes = self.routes_of(number)
        self._removed = (*self._removed, *((route, self.policy(route).name) for route in routes))
        self.ways = tuple(one for one in self.ways if one[1].number != number)
        gone = {id(route) for route in routes}
        self._policies = {key: one for key, one in self._policies.items() if key not in gone}
        del self._names[number]

    # What is read

    def take(self, sources: Iterable[RoutedSource]) -> None:
        """Note that sources are going to be read: each once, also into several data.

        :raises ConfigError: if one was read before, and can be read only once
        """
        for source in {route.number: source for source, _, route in sources}.values():
            info = about(source)
            rows = source if info.recording is None else info.recording
            if not info.once:
                continue
            if id(rows) in self._taken:
                raise ConfigError(
                    f"source {brief(source)}: it has been read before, and an iterator gives its "
                    f"rows once: give what can be iterated over again, such as a list or a file"
                )
            self._taken.add(id(rows))

    def new_fates(self, sources: Sequence[RoutedSource], *, live: bool) -> Sequence[Fates]:
        """What counts what becomes of the rows of each way."""
        made = [
            Fates(self.policy(route), source, unit_ns, live=live)
            for source, unit_ns, route in sources
        ]
        return _beside(made, [route for _, _, route in sources])

    def fates_again(
        self, sources: Sequence[RoutedSource], declared: Sequence[Route]
    ) -> Sequence[Fates]:
        """Counts of their own for rows that are read again: what became of them was told before.

        :param declared: the ways as they were declared
        """
        made = [
            Fates(replace(self.policy(route), dead_letters=None), source, unit_ns, live=False)
            for (source, unit_ns, _), route in zip(sources, declared, strict=True)
        ]
        return _beside(made, declared)

    def are_replayed(self, sources: Sequence[RoutedSource], fates: Sequence[Fates]) -> None:
        """Their rows are counted so in the last replay."""
        self._replayed = _by_route(sources, fates)

    def are_received(self, sources: Sequence[RoutedSource], fates: Sequence[Fates]) -> None:
        """Their rows are counted so in the live run, beside those of others."""
        self._received = {**self._received, **_by_route(sources, fates)}

    def stats(self) -> tuple[Mapping[str, SourceStats], Sequence[int]]:
        """What has become of the rows, by name: live, or, if they were not run yet, in the last
        replay; and how many rows of each way have entered live."""
        live, fates = self._received, {**self._replayed, **self._received}
        counted: dict[str, SourceStats] = {}
        entered: list[int] = []
        ways, policies = self.ways, self._policies
        for _, route, _ in ways:
            policy = policies.get(id(route))
            if policy is None:
                continue  # it is just being added or removed
            known = fates.get(id(route))
            counts = SourceStats() if known is None else known.stats()
            counted[policy.name] = counts
            entered.append(counts.stored if id(route) in live else 0)
        for route, name in self._removed:
            if (known := fates.get(id(route))) is not None:
                more, there = known.stats(), counted.get(name)
                counted[name] = more if there is None else both(more, there)
        return counted, tuple(entered)


def unnamed(number: int) -> str:
    """What a source is called that was given no name."""
    return f"source-{number}"


def _beside(made: Sequence[Fates], routes: Sequence[Route]) -> Sequence[Fates]:
    """The same, each told of those of its source's other ways."""
    for fates, route in zip(made, routes, strict=True):
        fates.beside = [
            other
            for other, its in zip(made, routes, strict=True)
            if its.number == route.number and other is not fates
        ]
    return made


def _by_route(sources: Sequence[RoutedSource], fates: Sequence[Fates]) -> Mapping[int, Fates]:
    return dict(zip((id(route) for _, _, route in sources), fates, strict=True))
