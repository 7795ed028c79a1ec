"""Bulk between DuckDB, PostgreSQL and numpy: COPY in both directions, no Python object for a value.

In: DuckDB writes CSV, a bounded piece at a time, which goes to the server as it is. A float32's shortest decimal form
reads back as the same bits. Out: COPY's binary format of rows that have no NULL, and so all the same length, is an
array as it comes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import psycopg

from glowplug.features.offline_draft import name, quote
from glowplug.features.packing import Float32s, Int64s

PIECE_ROWS = 50_000
_PIECE_BYTES = 1 << 20
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER_BYTES = len(_SIGNATURE) + 8
# PostgreSQL counts microseconds from 2000-01-01.
_EPOCH_US = 946_684_800_000_000
_TIMESTAMPS = "%Y-%m-%d %H:%M:%S.%f+00"

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
_Records: TypeAlias = npt.NDArray[np.void]


def copy_in(
    source: duckdb.DuckDBPyConnection,
    select: str,
    table: str,
    quoted: Sequence[str],
    target: Connection,
    into: str,
) -> None:
    """`select` of `table`, in the order of its rows, into `into` (a table and its columns, as SQL).

    `select` may not hold a WHERE; its columns named in `quoted` are text, where "" is not NULL.
    """
    (count,) = source.execute(f"SELECT count(*) FROM {table}").fetchall()[0]
    force = f", FORCE_QUOTE ({', '.join(name(each) for each in quoted)})" if quoted else ""
    options = f"FORMAT csv, HEADER false, TIMESTAMPFORMAT {quote(_TIMESTAMPS)}{force}"
    with (
        tempfile.TemporaryDirectory(prefix="glowplug-copy-") as folder,
        target.cursor() as cursor,
        cursor.copy(f"COPY {into} FROM STDIN (FORMAT csv)".encode()) as copy,
    ):
        piece = Path(folder) / "rows.csv"
        for start in range(0, count, PIECE_ROWS):
            rows = f"{select} FROM {table} WHERE rowid >= {start} AND rowid < {start + PIECE_ROWS} ORDER BY rowid"
            source.execute(f"COPY ({rows}) TO {quote(str(piece))} ({options})")
            with piece.open("rb") as file:
                while data := file.read(_PIECE_BYTES):
                    copy.write(data)


def copy_out(source: Connection, query: str, features: int) -> Iterator[tuple[Int64s, Int64s, Float32s]]:
    """Rows of `query` in pieces: int64 [n], Unix µs int64 [n], float32 [n, features].

    The query yields one bigint, one timestamptz and `features` float4, none of them NULL.
    """
    record = np.dtype(
        [
            ("count", ">i2"),
            ("number_bytes", ">i4"),
            ("number", ">i8"),
            ("moment_bytes", ">i4"),
            ("moment", ">i8"),
            ("values", [("bytes", ">i4"), ("value", ">f4")], (features,)),
        ]
    )
    with source.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)".encode()) as copy:
        for data in _whole_records(copy, record.itemsize):
            records: _Records = np.frombuffer(data, dtype=record)
            yield (
                records["number"].astype(np.int64),
                records["moment"].astype(np.int64) + _EPOCH_US,
                records["values"]["value"].astype(np.float32),
            )


def packed(moment: str, values: Sequence[str]) -> str:
    """SQL of one bytea of a timestamptz and float4 values, none of them NULL: for `unpacked`."""
    return f"timestamptz_send({moment}) || array_send(ARRAY[{', '.join(values)}]::float4[])"


def unpacked(rows: Sequence[bytes], features: int) -> tuple[Int64s, Float32s]:
    """Unix µs int64 [n] and float32 [n, features]."""
    record = np.dtype(
        [
            ("moment", ">i8"),
            # An array's dimensions, flags, element type; the length and lower bound of its one dimension.
            ("array", ">i4", (5,)),
            ("values", [("bytes", ">i4"), ("value", ">f4")], (features,)),
        ]
    )
    records: _Records = np.frombuffer(b"".join(rows), dtype=record)
    return records["moment"].astype(np.int64) + _EPOCH_US, records["values"]["value"].astype(np.float32)


def _whole_records(copy: psycopg.Copy, size: int) -> Iterator[bytes]:
    """The stream without its header and trailer, cut between records."""
    pieces: list[bytes] = []
    held = 0
    header = _HEADER_BYTES
    for chunk in copy:
        pieces.append(bytes(chunk))
        held += len(pieces[-1])
        if held < _PIECE_BYTES + header:
            continue
        data = b"".join(pieces)[header:]
        header = 0
        whole = len(data) // size * size
        yield data[:whole]
        pieces, held = [data[whole:]], len(data) - whole
    data = b"".join(pieces)[header:]
    yield data[: len(data) // size * size]
