"""Arrow columns from Python and to numpy, by their buffers.

`pyarrow.array` and `Array.to_numpy` import pandas where it is installed: 40 MB and half a second that nothing here
uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def number_column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Give a column without gaps.

    Args:
        values: shape (n,); instants as microseconds since 1970.
        kind: int32, int64, float64 or timestamp("us").
    """
    content = np.ascontiguousarray(values, dtype=_dtype_of(kind))
    return pa.Array.from_buffers(kind, content.size, [None, pa.py_buffer(content)])


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Give a column of numbers or of text (``kind`` is string); None is NULL."""
    there = np.fromiter((value is not None for value in values), dtype=bool, count=len(values))
    valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    if kind == pa.string():
        texts = [b"" if value is None else value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.Array.from_buffers(kind, len(texts), [valid, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])
    content = np.array([0 if value is None else value for value in values], dtype=_dtype_of(kind))
    return pa.Array.from_buffers(kind, content.size, [valid, pa.py_buffer(content)])


def numbers_of(column: pa.Array) -> NDArray[Any]:
    """Give the numbers of a column without gaps, not copied: they live as long as it does.

    Raises:
        ValueError: there is a NULL in it.
    """
    if column.null_count:
        raise ValueError(f"expected a number in every row, got {column.null_count} NULL")
    dtype = _dtype_of(column.type)
    return np.frombuffer(column.buffers()[1], dtype, count=len(column), offset=column.offset * dtype.itemsize)


def _dtype_of(kind: pa.DataType) -> np.dtype[Any]:
    dtypes = {pa.int32(): "<i4", pa.int64(): "<i8", pa.float64(): "<f8", pa.timestamp("us"): "<i8"}
    return np.dtype(dtypes[kind])
