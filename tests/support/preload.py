"""What a program that forks a run again and again imports once, and not in each run.

Much of it is imported by the first call that needs it, and costs more than the run: pandas by the
first array of Arrow, the driver of a database by the first connection.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec

_OF = {
    "parquet": ("pyarrow.parquet", "pyarrow.dataset", "pandas"),
    "arrow": ("pyarrow.csv", "pyarrow.ipc", "pandas"),
    "sqlite": ("sqlalchemy.dialects.sqlite", "sqlite3.dbapi2"),
    "postgres": ("sqlalchemy.dialects.postgresql", "psycopg"),
    "mariadb": ("sqlalchemy.dialects.mysql", "pymysql"),
    "duckdb": ("duckdb_engine", "duckdb"),
}


def preload(*kinds: str) -> None:
    """Import what sinks of some kinds need.

    :param kinds: the kinds, each by its name or one that ends with it, as ``wide-parquet``; others
        need nothing
    """
    for kind in kinds:
        for name in _OF.get(kind.rpartition("-")[2], ()):
            if find_spec(name.partition(".")[0]) is not None:
                importlib.import_module(name)
