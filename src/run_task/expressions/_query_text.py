"""The text of a query as DuckDB takes it, and what a query may be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.expressions._duckdb import database
from run_task.expressions._faults import in_short

_WORD: Final = re.compile(rb"\w+|.", re.DOTALL)


def one_select(text: Any, told: str) -> str:
    """A query, as DuckDB takes it.

    :param text: what the user wrote
    :param told: what it is called in messages
    :raises ConfigError: if it is not one SELECT
    """
    duckdb = need("duckdb", "duckdb")
    if not isinstance(text, str):
        raise ConfigError(f"{told}: a query is a text, such as 'select avg(price) from window'")
    query = _quoted(text)
    try:
        statements: Sequence[Any] = database.connect()[0].extract_statements(query)
    except duckdb.Error as error:
        raise ConfigError(f"{told}: {in_short(error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(str(each.type).rpartition(".")[2] for each in statements)
        raise ConfigError(
            f"{told}: it is {kinds or 'empty'}: give one SELECT, such as "
            f"'select avg(price) from window'"
        )
    if statements[0].named_parameters:
        raise ConfigError(
            f"{told}: it has the parameters {', '.join(sorted(statements[0].named_parameters))}, "
            f"and nothing gives them: write their values into the text"
        )
    return query.rstrip().rstrip(";")


def _quoted(text: str) -> str:
    """The text with the name of the table ``window`` in quotes, since it is a word of SQL. It is
    that word where it stands before ``name AS (``."""
    duckdb = need("duckdb", "duckdb")
    data = text.encode()
    starts: list[int] = []
    words: list[bytes] = []
    keywords: list[bool] = []
    for start, kind in duckdb.tokenize(text):
        if kind != duckdb.token_type.comment:
            starts.append(start)
            words.append(_word_at(data, start))
            keywords.append(kind == duckdb.token_type.keyword)
    made, done = b"", 0
    for at, (start, word, is_keyword) in enumerate(zip(starts, words, keywords)):
        if is_keyword and word == b"window" and words[at + 2 : at + 4] != [b"as", b"("]:
            made += data[done:start] + b'"window"'
            done = start + len(word)
    return (made + data[done:]).decode()


def _word_at(data: bytes, start: int) -> bytes:
    """The word that begins there, in small letters; or the sign that stands there."""
    found = _WORD.match(data, start)
    return b"" if found is None else found[0].lower()
