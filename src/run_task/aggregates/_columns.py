"""Whether there is a column for an aggregate, and whether it holds what it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from run_task.errors import ConfigError
from run_task.tasks._column_kinds import holds, unknown
from run_task.tasks._declared import ColumnTypes


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether a column holds numbers or bools."""
    return dtype.kind in "biuf"


def check_column(columns: ColumnTypes, name: str, told: str) -> None:
    """That there is such a column.

    :param columns: what each column holds
    :param name: the column that is asked for
    :param told: what asks for it, for messages
    :raises ConfigError: if there is none; the message names the one that is probably meant
    """
    if name in columns:
        return
    raise ConfigError(f"{told}: {unknown(name, columns)}")


def check_numbers(columns: ColumnTypes, name: str, told: str) -> None:
    """That there is such a column, and that it holds numbers or bools.

    :raises ConfigError: if not
    """
    check_column(columns, name, told)
    if not is_numeric(columns[name]):
        numbers = [each for each, dtype in columns.items() if is_numeric(dtype)]
        those = f"those are {', '.join(map(repr, numbers))}" if numbers else "there is none"
        raise ConfigError(
            f"{told}: column {name!r} holds {holds(columns[name])}, and this takes a column of "
            f"numbers: {those}; of any column there are count, first, last and n_unique"
        )
