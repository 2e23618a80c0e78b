"""Columns of texts by their UTF-8 bytes, many at a time: their order, their bucket, and how JSON writes them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.sorting import run_starts, sort_with_order, without_shared_bits

_MOST_WORDS = 3  # beyond so many, Arrow's way of ranking is faster
_MOST_SHARED = 64  # bytes that are looked for
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


def bucket_of(texts: pa.StringArray, buckets: int) -> np.ndarray:
    """The bucket (n,), int64 from 0, of each text: by a hash of its bytes that is the same on every machine."""
    start, length, data = _bytes_of(texts)
    at_byte = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))
    hashed = length.astype(np.uint64)
    for step in range(0, int(length.max(initial=0)), 8):
        longer = np.flatnonzero(length > step)
        word = at_byte[start[longer] + step] & _FIRST_BYTES[np.minimum(length[longer] - step, 8)]
        mixed = (hashed[longer] ^ word) * _MULTIPLIERS[0]
        hashed[longer] = mixed ^ (mixed >> np.uint64(32))
    # The finalizer of SplitMix64 (Steele et al. 2014).
    hashed = (hashed ^ (hashed >> np.uint64(30))) * _MULTIPLIERS[1]
    hashed = (hashed ^ (hashed >> np.uint64(27))) * _MULTIPLIERS[2]
    return np.asarray((hashed ^ (hashed >> np.uint64(31))) % np.uint64(buckets), np.int64)


def rank(texts: pa.StringArray) -> tuple[np.ndarray, pa.StringArray]:
    """Each text's rank (n,), int64, among the distinct ones, and these in order."""
    words = _words(texts)
    if words is None:
        encoded = texts.dictionary_encode()
        order = pc.array_sort_indices(encoded.dictionary)
        place = np.empty(len(order), np.int64)
        place[order.to_numpy()] = np.arange(len(order))
        return place[encoded.indices.to_numpy()], encoded.dictionary.take(order)
    ranks, firsts = _rank_numbers(words[0])
    for word in words[1:]:
        of_word, distinct = _rank_numbers(word)
        ranks, firsts = _rank_numbers(ranks << len(distinct).bit_length() | of_word)
    return ranks, texts.take(pa.array(firsts))


def json_items(texts: pa.StringArray) -> bytes:
    """Texts as the items of a JSON array, as `json.dumps(…, ensure_ascii=False)` writes them."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    used = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    if not len(texts) or ((used < ord(" ")) | (used == ord('"')) | (used == ord("\\"))).any():
        return json.dumps(texts.to_pylist(), ensure_ascii=False)[1:-1].encode()
    all_in_one = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    return b"".join([b'"', pc.binary_join(all_in_one, '", "')[0].as_buffer(), b'"'])


def _rank_numbers(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each number's rank among the distinct ones, and where one of each is, in order."""
    in_order, order = sort_with_order(numbers)
    starts = run_starts(in_order)
    ranks = np.empty(len(numbers), np.int64)
    ranks[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    return ranks, order[starts]


def _words(texts: pa.StringArray) -> list[np.ndarray] | None:
    """Numbers that order texts as their bytes do, eight bytes each, without those that all texts begin with.

    None if it takes too many of them, or if a text ends with a zero, with which shorter ones are filled up.
    """
    start, length, data = _bytes_of(texts)
    shared = _shared_bytes(start, int(length.min(initial=0)), data)
    count = -(-(int(length.max(initial=0)) - shared) // 8)
    if not 1 <= count <= _MOST_WORDS or not data[start + np.maximum(length, 1) - 1].all():
        return None
    at_byte = np.ndarray(len(data) - 7, ">u8", data, strides=(1,))
    words = []
    for step in range(shared, shared + 8 * count, 8):
        left = np.clip(length - step, 0, 8)
        word = at_byte[np.where(left > 0, start + step, 0)].astype(np.uint64)
        words.append(without_shared_bits(word & ~_FIRST_BYTES[8 - left]))
    return words


def _shared_bytes(start: np.ndarray, shortest: int, data: np.ndarray) -> int:
    """With how many of the same bytes all texts begin, as far as it is worth to know."""
    for place in range(min(shortest, _MOST_SHARED)):
        if (data[start + place] != data[start[0] + place]).any():
            return place
    return min(shortest, _MOST_SHARED)


def _bytes_of(texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each text starts, its length, and the bytes of all with eight more, so that eight can be read anywhere."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return ends[:-1], np.diff(ends), np.append(np.frombuffer(data or b"", np.uint8), np.zeros(8, np.uint8))
