"""Which expressions may be computed for many segments at once.

Of most, a segment gets the same bits alone and among others. Where an expression chooses rows,
as by ``filter``, polars adds in an order that depends on what other segments there are, and it does
not say of what else that is so. So those are computed together that consist of operations which are
known: of aggregations of columns, and of what is made of them value by value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from run_task.expressions._faults import polars_faults

if TYPE_CHECKING:
    import polars as pl

_AGGREGATIONS: Final = frozenset({
    "Count", "First", "Implode", "Item", "Last", "Max", "Mean", "Median", "Min", "NUnique", "Std",
    "Sum", "Var",
})  # fmt: skip

_FUNCTIONS: Final = frozenset({
    # value by value
    "Abs", "AsStruct", "Atan2", "Ceil", "Clip", "Coalesce", "Exp", "FillNull", "Floor", "Log",
    "Log1p", "MaxHorizontal", "MeanHorizontal", "MinHorizontal", "Negate", "Pow", "Round",
    "RoundSF", "Sign", "SumHorizontal", "ToPhysical", "Trigonometry",
    # of all values
    "ArgMax", "ArgMin", "Correlation", "Kurtosis", "NullCount", "Quantile", "Skew",
})  # fmt: skip

_BOOLEAN: Final = frozenset({
    "All", "AllHorizontal", "Any", "AnyHorizontal", "HasNulls", "IsBetween", "IsFinite", "IsIn",
    "IsInfinite", "IsNan", "IsNotNan", "IsNotNull", "IsNull", "Not",
})  # fmt: skip

_OF_TEXTS: Final = frozenset({
    "Contains", "EndsWith", "LenBytes", "LenChars", "Lowercase", "StartsWith", "Uppercase",
})  # fmt: skip

_OF_TIMES: Final = frozenset({
    "Date", "Day", "Hour", "Microsecond", "Millisecond", "Minute", "Month", "Nanosecond",
    "OrdinalDay", "Second", "TimeStamp", "TotalSeconds", "Truncate", "WeekDay", "Year",
})  # fmt: skip

_KINDS: Final = {"Boolean": _BOOLEAN, "StringExpr": _OF_TEXTS, "TemporalExpr": _OF_TIMES}


def is_same_among_others(expression: pl.Expr) -> bool:
    """Whether it is known that a segment gets the same bits alone and among others."""
    try:
        tree = json.loads(expression.meta.serialize(format="json"))
        return _is_known(tree)
    except polars_faults():
        return False  # such as one with a function of Python's


def _is_known(node: Any) -> bool:
    """Whether a node of an expression, as polars writes it as JSON, consists of what is known."""
    kind, inside = _named(node)
    match kind:
        case "Column" | "Selector" | "Len":
            return True
        case "Literal":
            return _named(inside)[0] != "Series"
        case "Alias":
            return _is_known(inside[0])
        case "Cast":
            return _is_known(inside["expr"])
        case "BinaryExpr":
            return _is_known(inside["left"]) and _is_known(inside["right"])
        case "Ternary":
            return all(map(_is_known, inside.values()))
        case "Agg":
            which, of = _named(inside)
            if which == "Std" or which == "Var":
                of = of[0]  # behind which stands ddof
            elif "input" in of:
                of = of["input"]  # beside which stand options
            return which in _AGGREGATIONS and _is_known(of)
        case "Function":
            return _is_known_function(inside["function"]) and all(map(_is_known, inside["input"]))
        case _:
            return False


def _is_known_function(function: Any) -> bool:
    name, options = _named(function)
    if name in _KINDS:
        return _named(options)[0] in _KINDS[name]
    return name in _FUNCTIONS


def _named(node: Any) -> tuple[str, Any]:
    """What something is called, and what is said of it."""
    if isinstance(node, str):
        return node, None
    ((name, inside),) = node.items()
    return name, inside
