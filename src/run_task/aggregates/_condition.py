"""Which rows an aggregate is of: a condition on columns, written as Python writes it."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.aggregates._columns import check_column, is_numeric
from run_task.aggregates._rows import SegmentedRows
from run_task.data.series._column_types import Array
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.tasks._column_kinds import holds, is_encoded
from run_task.tasks._declared import ColumnTypes

Mask: TypeAlias = NDArray[np.bool_]
Test: TypeAlias = Callable[[SegmentedRows], Mask]

_OPERATORS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

_MIRRORED: Final[Mapping[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
"""What holds of two values in the other order."""

_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`([^`]+)`")
"""Texts, and names of columns that are no names of Python's."""

_CURE: Final = (
    "a condition compares columns with constants or with each other, such as 'size > 0', "
    "'0 < price <= 100 and side == \"buy\"', \"symbol in ('A', 'B')\" or 'price is not None'"
)

_OF_SQL: Final = re.compile(r"(?<![=<>!])=(?!=)|<>|\b(AND|OR|NOT|IN|IS|NULL|null)\b")
"""What a condition has in SQL, and not here."""

_SPELLING: Final = (
    "it is written as in Python, with ==, !=, and 'and', 'or', 'not', 'in', 'is None' in small "
    "letters; "
)

_DEEPEST: Final = 100
"""How deep a condition may be nested: Python calls that far, and more, also from within others."""

_WORDS: Final = {"numbers": (bool, int, float), "texts": (str,), "bytes": (bytes,)}


@dataclass(frozen=True)
class Condition:
    """A condition on the columns of a row.

    :param text: comparisons of columns with constants or with each other, ``in`` and ``not in`` a
        tuple of constants, ``is None`` and ``is not None``, joined by ``and``, ``or`` and ``not``;
        a column of bools may stand alone. A name that is none of Python's stands in backticks.
    :raises ConfigError: if it is anything else
    """

    text: str
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tree = _parsed(self.text)
        object.__setattr__(self, "_tree", tree)
        _Builder(f"where={self.text!r}", None).test(tree)

    def planned(self, columns: ColumnTypes, task: str) -> Test:
        """What tells for each of many rows whether it holds.

        :param columns: what each column holds
        :param task: what it is a condition of, for messages
        :raises ConfigError: if there is no such column, or it cannot be so compared
        """
        told = f"{task}, where={self.text!r}"
        return _Builder(told, columns).test(self._tree)

    def __reduce__(self) -> tuple[Any, ...]:
        return Condition, (self.text,)


def _parsed(text: Any) -> ast.expr:
    if not isinstance(text, str):
        raise ConfigError(f"where={text!r}: it is a text: {_CURE}")
    odd: dict[str, str] = {}
    begin = "_odd"
    while begin in text:  # no column is taken for another
        begin += "_"

    def named(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name = f"{begin}{len(odd)}"
        odd[name] = match[1]
        return name

    try:
        tree = ast.parse(_QUOTED.sub(named, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        told = error.msg if isinstance(error, SyntaxError) else str(error)
        hint = _SPELLING if _OF_SQL.search(text) else ""
        raise ConfigError(f"where={text!r}: it cannot be read ({told}): {hint}{_CURE}") from None
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        for node in level:
            if isinstance(node, ast.Name):
                node.id = odd.get(node.id, node.id)
        level = [inner for node in level for inner in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise ConfigError(f"where={brief(text)}: it is nested more than {_DEEPEST} deep: {_CURE}")


class _Side(NamedTuple):
    """One side of a comparison."""

    column: str | None
    """The column; None: it is a constant."""

    constant: Any
    kind: str | None
    """What it is; None: of a column of which nothing is known yet."""


class _Builder:
    """Makes what tells whether a condition holds.

    :param told: what it is a condition of, for messages
    :param columns: what each column holds; None: it is only seen whether it is a condition
    """

    def __init__(self, told: str, columns: ColumnTypes | None) -> None:
        self._told = told
        self._columns = columns

    def test(self, node: ast.expr) -> Test:
        match node:
            case ast.BoolOp(op=op, values=values):
                tests = [self.test(value) for value in values]
                join: Any = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return lambda rows: join.reduce([each(rows) for each in tests])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.test(operand)
                return lambda rows: ~inner(rows)
            case ast.Name(id=name):
                dtype = self._dtype(name)
                if dtype is not None and dtype.kind != "b":
                    raise ConfigError(
                        f"{self._told}: column {name!r} holds {holds(dtype)}, none of which is "
                        f"true or false: compare it with something"
                    )
                return lambda rows: rows.values(name)
            case ast.Compare(left=left, ops=ops, comparators=others):
                tests = [
                    self._comparison(node, op, one, other)
                    for op, one, other in zip(ops, [left, *others], others)
                ]
                if len(tests) == 1:
                    return tests[0]
                return lambda rows: np.logical_and.reduce([each(rows) for each in tests])
            case _:
                raise self._refusal(node)

    def _refusal(self, node: ast.AST, why: str = "") -> ConfigError:
        return ConfigError(f"{self._told}: {ast.unparse(node)!r} is no condition: {why or _CURE}")

    def _dtype(self, column: str) -> np.dtype[Any] | None:
        if self._columns is None:
            return None
        check_column(self._columns, column, self._told)
        return self._columns[column]

    def _comparison(self, whole: ast.expr, op: ast.cmpop, one: ast.expr, other: ast.expr) -> Test:
        if isinstance(op, ast.Is | ast.IsNot):
            return self._missing(whole, one, other, isinstance(op, ast.Is))
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(whole, one, other, isinstance(op, ast.In))
        kind = type(op)
        left, right = self._side(whole, one), self._side(whole, other)
        if left.column is None:
            left, right, kind = right, left, _MIRRORED.get(kind, kind)
        if left.column is None:
            raise self._refusal(whole, "there is no column in it")
        self._check_kinds(whole, left, right)
        compare = _OPERATORS[kind]
        name, dtype = left.column, self._dtype(left.column)
        if right.column is None:
            return _against(name, dtype, compare, _whole(right.constant))
        second = right.column, self._dtype(right.column)
        return lambda rows: compare(_decoded(rows, name, dtype), _decoded(rows, *second))

    def _missing(self, whole: ast.expr, one: ast.expr, other: ast.expr, wanted: bool) -> Test:
        if not isinstance(one, ast.Name) or not _is_none(other):
            raise self._refusal(whole, "'is' is for a column and None, as in 'price is not None'")
        name, dtype = one.id, self._dtype(one.id)
        if dtype is None or dtype.kind not in "fM":
            # A series has no None in any other column.
            return lambda rows: np.full(int(rows.counts.sum()), not wanted)
        missing: Any = np.isnan if dtype.kind == "f" else np.isnat
        if wanted:
            return lambda rows: missing(rows.values(name))
        return lambda rows: ~missing(rows.values(name))

    def _membership(self, whole: ast.expr, one: ast.expr, other: ast.expr, wanted: bool) -> Test:
        why = "'in' is for a column and a tuple of constants, as in \"symbol in ('A', 'B')\""
        if not isinstance(one, ast.Name) or not isinstance(other, ast.Tuple | ast.List | ast.Set):
            raise self._refusal(whole, why)
        left = self._side(whole, one)
        tests: list[Test] = []
        for element in other.elts:
            right = self._side(whole, element)
            if right.column is not None:
                raise self._refusal(whole, why)
            self._check_kinds(whole, left, right)
            dtype = self._dtype(one.id)
            tests.append(_against(one.id, dtype, operator.eq, _whole(right.constant)))
        if not tests:
            raise self._refusal(whole, "the tuple is empty")

        def among(rows: SegmentedRows) -> Mask:
            found: Mask = np.logical_or.reduce([test(rows) for test in tests])
            return found if wanted else ~found

        return among

    def _side(self, whole: ast.expr, node: ast.expr) -> _Side:
        if isinstance(node, ast.Name):
            dtype = self._dtype(node.id)
            return _Side(node.id, None, None if dtype is None else _kind(dtype))
        try:
            constant = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise self._refusal(whole) from None
        for kind, types in _WORDS.items():
            if isinstance(constant, types):
                return _Side(None, constant, kind)
        why = "what is missing is asked for by 'is None'" if constant is None else ""
        raise self._refusal(whole, why)

    def _check_kinds(self, whole: ast.expr, left: _Side, right: _Side) -> None:
        if None not in (left.kind, right.kind) and left.kind != right.kind:
            raise ConfigError(
                f"{self._told}: {ast.unparse(whole)!r} compares column {left.column!r}, which "
                f"holds {left.kind}, with {right.kind}"
            )


def _kind(dtype: np.dtype[Any]) -> str:
    return "numbers" if is_numeric(dtype) else holds(dtype)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _whole(constant: Any) -> Any:
    """A constant as an int if it is one, which NumPy compares with ints exactly."""
    if isinstance(constant, float) and constant.is_integer():
        return int(constant)
    return constant


def _against(
    name: str, dtype: np.dtype[Any] | None, compare: Callable[[Any, Any], Any], constant: Any
) -> Test:
    """A comparison of a column with a constant."""
    if dtype is not None and is_encoded(dtype):
        # Each text once, and not each row.
        return lambda rows: compare(_texts(rows, name), constant).astype(np.bool_)[
            rows.values(name)
        ]
    if dtype is not None and dtype.kind == "f":
        try:
            number = float(constant)
        except OverflowError:
            number = math.copysign(math.inf, constant)
        # Also a column of float32, which NumPy would compare with the nearest float32.
        return lambda rows: compare(rows.floats(name), number)
    if dtype is not None and dtype.kind == "b":
        # Which NumPy compares with ints of 64 bits only.
        return lambda rows: compare(rows.values(name).view(np.int8), constant)
    return lambda rows: compare(rows.values(name), constant)


def _texts(rows: SegmentedRows, name: str) -> Array:
    texts: Array = np.asarray(rows.texts(name), np.object_)
    return texts


def _decoded(rows: SegmentedRows, name: str, dtype: np.dtype[Any] | None) -> Array:
    values = rows.values(name)
    if dtype is None or not is_encoded(dtype):
        return values
    decoded: Array = _texts(rows, name)[values]
    return decoded
