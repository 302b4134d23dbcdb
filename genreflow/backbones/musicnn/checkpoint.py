"""TensorFlow checkpoints ("tensor bundles") read without TensorFlow.

A checkpoint is an index and a data file. The index is a table in LevelDB's format: a footer names the index
block, whose entries name the data blocks; keys are prefix-compressed; values are `BundleEntryProto` messages
that say where in the data file a tensor lies. Every length and offset is checked before it is used. Checksums
are not: the digest of the whole file is the caller's to verify.

The formats: LevelDB's `doc/table_format.md`, TensorFlow's `tensor_bundle.proto`.
"""

import math
import struct
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from genreflow.core.errors import ModelError

FOOTER_BYTES = 48
MAGIC = 0xDB4775248B80FB57
BLOCK_TRAILER_BYTES = 5
"""Compression type (one byte) and checksum behind every block."""
UNCOMPRESSED = 0
MOST_KEY_BYTES = 1 << 10
MOST_INDEX_BYTES = 1 << 20
MOST_VARINT_BYTES = 10
MOST_DIMENSIONS = 8
FLOAT32 = 1
"""`DT_FLOAT` of TensorFlow's `types.proto`."""
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def read_checkpoint(index: bytes, data: bytes, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """Read the float32 tensors `names` of a checkpoint with one data file.

    Args:
        index: content of the `.index` file.
        data: content of the `.data-00000-of-00001` file.

    Raises:
        ModelError: the index is damaged or of another format, or a tensor is missing, not of float32, or lies
            outside of the data file.
    """
    if len(index) > MOST_INDEX_BYTES:
        raise _damaged(f"the index has {len(index):,} bytes, more than {MOST_INDEX_BYTES:,}")
    wanted = {name.encode(): name for name in names}
    tensors = {}
    for key, value in _table(memoryview(index)):
        if key in wanted:
            tensors[wanted[key]] = _tensor(wanted[key], value, data)
    missing = sorted(set(names) - tensors.keys())
    if missing:
        raise ModelError(f"The checkpoint is of another network: it has no tensor {', '.join(missing)}.")
    return tensors


def _damaged(reason: str) -> ModelError:
    return ModelError(f"The checkpoint cannot be read: {reason}. Fetch it again.")


def _table(table: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a LevelDB table."""
    if len(table) < FOOTER_BYTES:
        raise _damaged(f"the index has {len(table)} bytes, fewer than its footer")
    footer = table[-FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise _damaged("the index does not end as a LevelDB table does")
    _, position = _handle(footer, 0)
    index_block, _ = _handle(footer, position)
    end = 0
    for _, value in _block(table, index_block):
        (offset, size), _ = _handle(value, 0)
        if offset < end:  # blocks that overlap would be read any number of times
            raise _damaged("data blocks of the index overlap")
        end = offset + size
        yield from _block(table, (offset, size))


def _block(table: memoryview, handle: tuple[int, int]) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a block: entries, then restart points (uint32 each), then their number."""
    offset, size = handle
    if offset + size + BLOCK_TRAILER_BYTES > len(table) - FOOTER_BYTES or size < 4:
        raise _damaged("a block lies outside of the index")
    if table[offset + size] != UNCOMPRESSED:
        raise _damaged("a block of the index is compressed")
    block = table[offset : offset + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 - 4 * restarts
    if end < 0:
        raise _damaged("a block of the index has more restart points than bytes")
    entries, position, key = block[:end], 0, b""
    while position < end:
        shared, position = _varint(entries, position)
        unshared, position = _varint(entries, position)
        length, position = _varint(entries, position)
        if shared > len(key) or shared + unshared > MOST_KEY_BYTES or position + unshared + length > end:
            raise _damaged("an entry of the index does not fit into its block")
        key = key[:shared] + bytes(entries[position : position + unshared])
        position += unshared
        yield key, entries[position : position + length]
        position += length


def _handle(buffer: memoryview, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position behind them."""
    offset, position = _varint(buffer, position)
    size, position = _varint(buffer, position)
    return (offset, size), position


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the position behind it."""
    value = 0
    for count, byte in enumerate(buffer[position : position + MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise _damaged("a number of the index does not end")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a protobuf message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            length, position = _varint(message, position)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise _damaged("an entry of the index is no protobuf message")
        if position + length > len(message):
            raise _damaged("an entry of the index ends early")
        yield number, message[position : position + length]
        position += length


def _tensor(name: str, entry: memoryview, data: bytes) -> NDArray[np.float32]:
    """The tensor that a `BundleEntryProto` describes."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}  # dtype, shard, offset, size in bytes; protobuf leaves zeros out
    shape: tuple[int, ...] = ()
    for number, value in _fields(entry):
        if number in numbers and isinstance(value, int):
            numbers[number] = value
        elif number == 2 and isinstance(value, memoryview):
            shape = _shape(value)
        elif number in numbers or number in (2, 7):  # 7: a tensor in slices
            raise _damaged(f"the entry of {name} is not that of a whole tensor")
    dtype, shard, offset, size = numbers.values()
    if dtype != FLOAT32 or shard != 0:
        raise _damaged(f"{name} is not a float32 tensor of the one data file")
    if len(shape) > MOST_DIMENSIONS or size != 4 * math.prod(shape):
        raise _damaged(f"{name} has {size:,} bytes, which is not what its shape {shape} needs")
    if offset + size > len(data):
        raise _damaged(f"{name} lies outside of the data file of {len(data):,} bytes")
    values = np.frombuffer(data, dtype="<f4", count=size // 4, offset=offset)
    if not np.isfinite(values).all():
        raise _damaged(f"{name} holds values that are not finite")
    return values.reshape(shape).astype(np.float32)


def _shape(message: memoryview) -> tuple[int, ...]:
    """The sizes of a `TensorShapeProto`."""
    sizes = []
    for number, dimension in _fields(message):
        if number == 2 and isinstance(dimension, memoryview):
            sizes.append(next((size for field, size in _fields(dimension) if field == 1), 0))
    if not all(isinstance(size, int) for size in sizes):
        raise _damaged("a tensor's shape is no list of numbers")
    return tuple(int(size) for size in sizes)
