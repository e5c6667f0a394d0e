"""What the sources have in common whose files have typed columns, as Arrow has them."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar

from run_task._extras import need
from run_task.columnar import _arrow_columns as arrow
from run_task.columnar import _columns as cols
from run_task.columnar._timestamps import is_readable
from run_task.errors import ConfigError
from run_task.sources._chunk import Chunk
from run_task.sources.files._compression import compression_of
from run_task.sources.files._file import RecordedFile


class ColumnarFile(RecordedFile):
    """A file whose columns have types of Arrow's."""

    _can_be_live = False
    _spelling = None

    _format: ClassVar[str]
    """What it is a file of, for messages."""

    @abstractmethod
    def _schema(self) -> Any:
        """The schema of Arrow's of its columns.

        :raises Exception: any of Arrow's, if it cannot be read
        """

    @abstractmethod
    def _record_batches(self, names: Sequence[str]) -> Generator[Any]:
        """Its rows, as record batches of Arrow's.

        :param names: of which columns
        :raises Exception: any of Arrow's, if it cannot be read on
        """

    def _look(self) -> dict[str, cols.Kind]:
        try:
            schema = self._schema()
            names = list(schema.names)
        except FileNotFoundError:
            raise
        except Exception as error:
            reason = f"it is no {self._format} file, or a broken one: {error}"
            if (codec := compression_of(self._place.head())) is not None:
                reason = f"it is a {codec} archive: unpack it; what is in it is compressed itself"
            raise ConfigError(f"{self._where}: cannot be read: {reason}") from error
        there = dict(zip(names, schema.types))
        chosen = self._choose(there)
        counts = Counter(names)
        for name in (self._timestamp, *chosen):
            if counts[name] > 1:
                raise ConfigError(
                    f"{self._where}: there are {counts[name]} columns {name!r}, and which is meant "
                    f"cannot be told: give them names of their own, or leave them out by columns="
                )
        if not is_readable(there[self._timestamp]):
            raise ConfigError(
                f"{self._where}: column {self._timestamp!r} is {there[self._timestamp]}, which is "
                f"no timestamp"
            )
        return {name: self._kind(name, found) for name, found in chosen.items()}

    def _kind(self, name: str, found: Any) -> cols.Kind:
        """The type that a column is read as.

        :param found: the type that it has
        :raises ConfigError: if it can be read as none, or not as the one that was declared
        """
        wanted = self._wanted.get(name)
        what = f"{self._where}: column {name!r} is {found}"
        kind = arrow.kind_of_type(found)
        if kind is None and arrow.is_bytes(arrow.plain_type(found)):
            if wanted is None:
                raise ConfigError(
                    f"{what}, which need be no text: where it is one in UTF-8, say so by "
                    f"columns={{{name!r}: str}}; else leave it out by columns="
                )
            kind = str
        if kind is None:
            is_nested = need("pyarrow", "arrow").types.is_nested(found)
            nested = ", but nested" if is_nested else ""
            raise ConfigError(
                f"{what}, which is neither a number nor a text{nested}: leave it out by columns="
            )
        kind = wanted or kind
        is_timestamp = name == self._timestamp and kind is int
        if not is_timestamp and not arrow.can_be(found, kind):
            raise ConfigError(f"{what}, which cannot be read as {kind.__name__}")
        return kind

    def _chunks(self) -> Iterator[Chunk]:
        row = 1
        names = list(dict.fromkeys((self._timestamp, *self._kinds)))
        with contextlib.closing(self._record_batches(names)) as batches:
            while True:
                try:
                    batch = next(batches, None)
                    if batch is None:
                        return
                    arrays = {
                        name: arrow.checked(array)
                        for name, array in zip(batch.schema.names, batch.columns)
                    }
                except FileNotFoundError:
                    raise
                except Exception as error:  # Arrow raises many kinds of what is broken
                    raise self._error(row, None, f"cannot be read on: {error}") from error
                for start in range(0, batch.num_rows, self._batch_rows):
                    some = {
                        name: array[start : start + self._batch_rows]
                        for name, array in arrays.items()
                    }
                    first = row + start
                    yield self._chunk(some, range(first, first + len(some[self._timestamp])))
                row += batch.num_rows
