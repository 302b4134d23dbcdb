"""TensorFlow checkpoints read without TensorFlow: those of a test are read back, hostile ones refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow.backbones.musicnn.checkpoint import MAGIC, read_checkpoint
from genreflow.core.errors import ModelError

TENSORS = {
    "batch_normalization/beta": np.arange(4, dtype=np.float32),
    "batch_normalization/beta/Adam": np.zeros(4, dtype=np.float32),
    "batch_normalization/gamma": np.full(4, 0.5, dtype=np.float32),
    "conv2d/kernel": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "scalar": np.array(7, dtype=np.float32),
}
NAMES = ("batch_normalization/beta", "batch_normalization/gamma", "conv2d/kernel", "scalar")


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(shape: tuple[int, ...], offset: int, size: int, dtype: int = 1) -> bytes:
    """A `BundleEntryProto`, zeros left out, with a checksum that nobody reads."""
    dimensions = b"".join(message(2, number(1, length)) for length in shape)
    out = number(1, dtype) + message(2, dimensions)
    out += number(4, offset) if offset else b""
    return out + number(5, size) + varint(6 << 3 | 5) + b"abcd"


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block, keys prefix-compressed, with one restart point."""
    out, before = b"", b""
    for key, value in entries:
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1)


def table(entries: list[tuple[bytes, bytes]], block_entries: int = 2, compression: int = 0) -> bytes:
    """A LevelDB table of data blocks, an empty metaindex, an index and a footer."""
    out, handles = b"", []

    def add(content: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        out += content + bytes([compression]) + b"crc!"
        return handle

    for first in range(0, len(entries), block_entries):
        part = entries[first : first + block_entries]
        handles.append((part[-1][0], add(block(part))))
    footer = add(block([])) + add(block(handles))
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def checkpoint(tensors: dict[str, np.ndarray] = TENSORS) -> tuple[bytes, bytes]:
    """Index and data of a checkpoint."""
    entries, data = [(b"", number(1, 1))], b""
    for name in sorted(tensors):
        values = tensors[name]
        entries.append((name.encode(), entry(values.shape, len(data), values.nbytes)))
        data += values.astype("<f4").tobytes()
    return table(entries), data


def one_entry(value: bytes, data: bytes = bytes(64)) -> tuple[bytes, bytes]:
    return table([(b"x", value)]), data


def refusal(index: bytes, data: bytes, names: tuple[str, ...] = ("x",)) -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(index, data, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("block_entries", [1, 2, 100])
def test_the_named_tensors_are_read_from_any_number_of_blocks(block_entries: int) -> None:
    _, data = checkpoint()
    entries = [(b"", number(1, 1))]
    offset = 0
    for name in sorted(TENSORS):
        values = TENSORS[name]
        entries.append((name.encode(), entry(values.shape, offset, values.nbytes)))
        offset += values.nbytes
    read = read_checkpoint(table(entries, block_entries), data, NAMES)
    assert set(read) == set(NAMES)
    for name in NAMES:
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], TENSORS[name])


def test_a_tensor_that_is_missing_is_named() -> None:
    assert "no tensor dense/kernel, z" in refusal(*checkpoint(), ("dense/kernel", "z"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (entry((4,), 0, 16, dtype=2), "not a float32 tensor"),
        (number(3, 1) + entry((4,), 0, 16), "not a float32 tensor of the one data file"),
        (entry((4,), 0, 20), "not what its shape (4,) needs"),
        (entry((1 << 62, 1 << 62), 0, 16), "not what its shape"),
        (entry((1,) * 9, 0, 4), "not what its shape"),
        (entry((4,), 52, 16), "outside of the data file"),
        (entry((4,), 1 << 63, 16), "outside of the data file"),
        (entry((4,), 0, 16) + message(7, b""), "not that of a whole tensor"),
        (entry((4,), 0, 16) + message(4, b"z"), "not that of a whole tensor"),
        (message(2, message(2, message(1, b"z"))), "no list of numbers"),
        (entry((4,), 0, 16)[:-2], "ends early"),
        (entry((4,), 0, 16) + b"\x80", "does not end"),
        (b"\x0b", "no protobuf message"),
        (b"\xff" * 12, "does not end"),
    ],
)
def test_an_index_entry_with_false_values_is_rejected(value: bytes, words: str) -> None:
    assert words in refusal(*one_entry(value))


def test_values_that_are_not_finite_are_refused() -> None:
    assert "not finite" in refusal(*one_entry(entry((1,), 0, 4), struct.pack("<f", float("nan"))))


def test_an_index_of_another_kind_is_refused() -> None:
    index, data = checkpoint()
    assert "fewer than its footer" in refusal(b"", data)
    assert "does not end as a LevelDB table" in refusal(bytes(len(index)), data)
    assert "more than" in refusal(bytes(2 << 20), data)
    assert "compressed" in refusal(table([(b"x", entry((4,), 0, 16))], compression=1), data)


def test_blocks_that_overlap_are_refused() -> None:
    content = block([(b"x", entry((4,), 0, 16))])
    handle = varint(0) + varint(len(content))
    out = content + b"\0crc!"
    index = block([(b"x", handle), (b"y", handle)])
    footer = handle + varint(len(out)) + varint(len(index))
    out += index + b"\0crc!" + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    assert "overlap" in refusal(out, bytes(64), ("nothing",))


def test_an_index_that_is_cut_short_anywhere_is_refused() -> None:
    index, data = checkpoint()
    for end in range(len(index)):
        refusal(index[:end], data, NAMES)


@settings(max_examples=300)
@given(st.data())
def test_no_changed_byte_gives_anything_but_tensors_or_an_error_message(choose: st.DataObject) -> None:
    index, data = checkpoint()
    changed = bytearray(index)
    for _ in range(choose.draw(st.integers(1, 4))):
        changed[choose.draw(st.integers(0, len(index) - 1))] = choose.draw(st.integers(0, 255))
    try:
        read = read_checkpoint(bytes(changed), data, NAMES)
    except ModelError:
        return
    assert all(values.nbytes <= len(data) for values in read.values())


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_no_table_of_random_bytes_gives_anything_but_an_error_message(content: bytes) -> None:
    end = struct.pack("<Q", MAGIC)
    with pytest.raises(ModelError):
        read_checkpoint(content.ljust(40, b"\0") + end, bytes(64), NAMES)
