"""JSON objects that have the same keys, by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias, cast

from run_task._extras import need

FEW: Final = 16
"""Of fewer objects a type of their own is not worth its while."""

_MOST_KEYS: Final = 256
"""How many keys an object may have that a type is made for."""

_FIELDS: Final = tuple(f"f{number}" for number in range(_MOST_KEYS))

FieldValues: TypeAlias = Callable[[Sequence[Any]], list[Any]]

# What stands in the code as a name is read in a third of the time that attrgetter takes.
_FIRST_FIELDS: Final[Sequence[FieldValues]] = (
    lambda rows: [row.f0 for row in rows],
    lambda rows: [row.f1 for row in rows],
    lambda rows: [row.f2 for row in rows],
    lambda rows: [row.f3 for row in rows],
    lambda rows: [row.f4 for row in rows],
    lambda rows: [row.f5 for row in rows],
    lambda rows: [row.f6 for row in rows],
    lambda rows: [row.f7 for row in rows],
)


class JsonColumns:
    """Decodes JSON objects that have the same keys.

    A type is made for the keys of the first of them: to fill its fields takes half as long as to
    make a dict of each, and objects with other keys are refused at once. Values are what a dict
    would have.

    :param extra: the extra with which its user comes
    """

    def __init__(self, extra: str) -> None:
        self._msgspec = need("msgspec", extra)
        self._json = need("msgspec.json", extra)
        self._plain: Callable[[bytes], Any] = self._json.Decoder().decode
        self._keys: tuple[str, ...] | None = None  # of the type that was made last
        self._decode: Callable[[bytes], Any] = self._plain
        self._values: Mapping[str, FieldValues] = {}

    def columns(self, given: Sequence[bytes]) -> dict[str, list[Any]] | None:
        """The values of each key, in the order of the objects; None: they are not all objects with
        the same keys, or there can be no type for these.

        :param given: the objects
        :raises msgspec.MsgspecError: if one is malformed, or has other keys
        """
        first: Any = self._plain(given[0])
        if type(first) is not dict:
            return None
        keys = tuple(cast("dict[str, Any]", first))
        if keys != self._keys and not self._make(keys):
            return None
        found = list(map(self._decode, given))
        return {key: values(found) for key, values in self._values.items()}

    def _make(self, keys: tuple[str, ...]) -> bool:
        if len(keys) > _MOST_KEYS:
            return False
        named = dict(zip(_FIELDS, keys))
        try:
            kind: Any = self._msgspec.defstruct(
                "JsonRow",
                [(field, Any) for field in named],
                rename=named,
                forbid_unknown_fields=True,
                gc=False,
            )
        except ValueError:  # some characters cannot be in the name of a field
            return False
        self._decode = self._json.Decoder(kind).decode
        others = map(_values_of, _FIELDS[len(_FIRST_FIELDS) :])
        self._values = dict(zip(keys, (*_FIRST_FIELDS, *others)))
        self._keys = keys
        return True


def _values_of(field: str) -> FieldValues:
    value = attrgetter(field)
    return lambda rows: list(map(value, rows))
