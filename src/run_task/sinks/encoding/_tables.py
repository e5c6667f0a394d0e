"""What Arrow, polars and pandas have, as JSON: tables and columns in the format of Arrow's IPC, in
base64, which keeps their types."""

from __future__ import annotations

import io
from datetime import timedelta, timezone
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.sinks.encoding._standard import base64_bytes, base64_text, zone_name
from run_task.sinks.encoding._tag import (
    Form,
    Inward,
    Tree,
    Types,
    UndecodableError,
    UnencodableError,
)

# Arrow


def _ipc(pa: Any, table: Any) -> str:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return base64_text(stream.getvalue())


def _table(pa: Any, text: str) -> Any:
    with pa.ipc.open_stream(base64_bytes(text)) as reader:
        return reader.read_all()


def _from_arrow(value: Any, _: Inward) -> Tree:
    pa = need("pyarrow", "arrow")
    if isinstance(value, pa.Table):
        return {"kind": "Table", "ipc": _ipc(pa, value)}
    if isinstance(value, pa.RecordBatch):
        return {"kind": "RecordBatch", "ipc": _ipc(pa, pa.Table.from_batches([value]))}
    if isinstance(value, pa.ChunkedArray):
        return {"kind": "ChunkedArray", "ipc": _ipc(pa, pa.table({"": value}))}
    if isinstance(value, pa.Array):
        return {"kind": "Array", "ipc": _ipc(pa, pa.table({"": value}))}
    if isinstance(value, pa.Scalar):
        return {"kind": "Scalar", "ipc": _ipc(pa, pa.table({"": pa.array([value], value.type)}))}
    raise UnencodableError(f"a {type(value).__name__} of Arrow: return a table or a column")


def _to_arrow(stored: Tree, _: Inward, __: Types) -> Any:
    pa = need("pyarrow", "arrow")
    table = _table(pa, stored["ipc"])
    match stored["kind"]:
        case "Table":
            return table
        case "RecordBatch":
            return table.combine_chunks().to_batches()[0] if len(table) else _empty(pa, table)
        case "ChunkedArray":
            return table.column(0)
        case "Array":
            return pa.concat_arrays(table.column(0).chunks) if len(table) else _column(pa, table)
        case "Scalar":
            return table.column(0)[0]
        case kind:
            raise UndecodableError(f"there is no {kind} of Arrow")


def _empty(pa: Any, table: Any) -> Any:
    return pa.RecordBatch.from_pylist([], table.schema)


def _column(pa: Any, table: Any) -> Any:
    return pa.array([], table.schema.field(0).type)


# polars


def _from_polars(value: Any, inward: Inward) -> Tree:
    pl = need("polars", "polars")
    if isinstance(value, pl.DataFrame):
        kind, name, frame = "DataFrame", None, value
    elif isinstance(value, pl.Series):
        kind, name, frame = "Series", inward(value.name), value.to_frame("")
    else:
        raise UnencodableError(
            f"a {type(value).__name__} of polars: return a DataFrame or a Series"
        )
    stream = io.BytesIO()
    frame.write_ipc(stream)
    back = pl.read_ipc(stream.getvalue())
    if back.schema != frame.schema or not back.equals(frame, null_equal=True):
        raise UnencodableError(f"a {kind} of polars that is another one when it is read again")
    return {"kind": kind, "name": name, "ipc": base64_text(stream.getvalue())}


def _to_polars(stored: Tree, inward: Inward, _: Types) -> Any:
    pl = need("polars", "polars")
    frame = pl.read_ipc(base64_bytes(stored["ipc"]))
    if stored["kind"] == "DataFrame":
        return frame
    return frame.to_series(0).rename(inward(stored["name"]))


# pandas


def _from_pandas(value: Any, inward: Inward) -> Tree:
    pd = need("pandas", "pandas")
    if value is pd.NaT or value is pd.NA:
        return {"kind": "NaT" if value is pd.NaT else "NA"}
    if isinstance(value, pd.Timestamp):
        offset = value.utcoffset()
        zone = zone_name(value.tzinfo) or (None if offset is None else offset.total_seconds())
        moment = value.to_datetime64()
        return {"kind": "Timestamp", "utc": str(moment), "unit": value.unit, "zone": zone}
    if isinstance(value, pd.Timedelta):
        count = int(value.to_timedelta64().view("i8"))
        return {"kind": "Timedelta", "count": count, "unit": value.unit}
    if isinstance(value, pd.DataFrame):
        return {"kind": "DataFrame", "ipc": _exact_frame(pd, value)}
    if isinstance(value, pd.Series):
        ipc = _exact_frame(pd, value.to_frame("values"))
        return {"kind": "Series", "name": inward(value.name), "ipc": ipc}
    raise UnencodableError(
        f"a {type(value).__name__} of pandas: return a DataFrame, a Series or a Timestamp"
    )


def _exact_frame(pd: Any, frame: Any) -> str:
    """A DataFrame as IPC.

    :raises UnencodableError: if Arrow cannot hold it, or makes another one of it
    """
    pa = need("pyarrow", "arrow")
    text = _ipc(pa, pa.Table.from_pandas(frame))
    back = _table(pa, text).to_pandas()
    try:
        pd.testing.assert_frame_equal(frame, back, check_exact=True, check_freq=False)
    except AssertionError as error:
        told = " ".join(str(error).split())
        raise UnencodableError(f"a table of pandas that Arrow makes another of: {told}") from error
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind != "O":
            continue
        kinds = [list(map(type, table.iloc[:, place])) for table in (frame, back)]
        if kinds[0] != kinds[1]:
            raise UnencodableError("a table of pandas of whose objects Arrow makes other ones")
    return text


def _to_pandas(stored: Tree, inward: Inward, _: Types) -> Any:
    pd = need("pandas", "pandas")
    match stored["kind"]:
        case "NaT":
            return pd.NaT
        case "NA":
            return pd.NA
        case "Timestamp":
            found = pd.Timestamp(np.datetime64(stored["utc"], stored["unit"]))
            zone = stored["zone"]
            if zone is None:
                return found
            if not isinstance(zone, str):
                zone = timezone(timedelta(seconds=zone))
            return found.tz_localize("UTC").tz_convert(zone)
        case "Timedelta":
            return pd.Timedelta(np.timedelta64(stored["count"], stored["unit"]))
        case "DataFrame":
            return _table(need("pyarrow", "arrow"), stored["ipc"]).to_pandas()
        case "Series":
            frame = _table(need("pyarrow", "arrow"), stored["ipc"]).to_pandas()
            return frame.iloc[:, 0].rename(inward(stored["name"]))
        case kind:
            raise UndecodableError(f"there is no {kind} of pandas")


LIBRARIES: Final = {
    "pyarrow": Form("$arrow", _from_arrow, _to_arrow),
    "polars": Form("$polars", _from_polars, _to_polars),
    "pandas": Form("$pandas", _from_pandas, _to_pandas),
}
"""The form of what comes from a library, by the library's name."""
