"""A second reader of the store format, written from FORMAT.md alone.

It is the oracle for the real one, therefore it shares no code with it and prefers the obvious
over the fast: no numpy, one bit at a time. It checks checksums and sizes, not every rule.
"""

from __future__ import annotations

import json
import math
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import xxhash
import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ITEM_SIZES = {"BOOL": 1, "U8": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8}


def read_store(
    path: Path,
    base_file: Callable[[str], bytes],
    *,
    decodes: Callable[[str, int], bool] = lambda _task, _numel: True,
) -> dict[str, Any]:
    """Everything in a store as JSON: base, base data, tasks with their records and files.

    Records are None for which `decodes` says no, given the task and the number of elements.
    """
    data = path.read_bytes()
    root = _document(data, _root_reference(data))
    base = _document(data, root["base"])
    content: dict[str, Any] = {"base": base, "tasks": {}}
    if root["base_data"] is not None:
        content["base_data"] = _task(data, root["base_data"], base, partial(decodes, ""))
    for name, entry in root["tasks"].items():
        content["tasks"][name] = _task(data, entry, base, partial(decodes, name))
        content["tasks"][name]["files"] = {
            file_name: _file(data, root, key, base_file).hex()
            for file_name, (key, _) in content["tasks"][name]["files"].items()
        }
    return content


def _checksum(*parts: bytes) -> bytes:
    return xxhash.xxh3_128(b"".join(parts)).digest()


def _root_reference(data: bytes) -> list[Any]:
    superblock = data[:40]
    assert superblock[:10] == b"\x89NPS\r\n\x1a\n\x01\x00"
    assert _checksum(superblock[:24]) == superblock[24:]
    assert superblock[16] in (0, 1, 3, 7)
    assert superblock[17:24] == bytes(7)
    newest = None
    for slot in (0, 1):
        raw = data[4096 * (slot + 1) :][:64]
        generation, offset, nbytes, checksum, committed = struct.unpack("<QQQ16sQ", raw[:48])
        assert _checksum(superblock, raw[:48]) == raw[48:]
        assert generation % 2 == slot
        assert committed <= len(data)
        newest = max(newest or (0,), (generation, offset, nbytes, checksum.hex(), committed))
    assert newest is not None
    trailer = data[newest[4] - 64 : newest[4]]
    assert trailer[:8] == b"NPSTRAIL"
    assert trailer[8:16] == struct.pack("<Q", newest[0])
    assert _checksum(superblock, trailer[:48]) == trailer[48:]
    return list(newest[1:4])


def _section(data: bytes, reference: list[Any], origin: int = 0, dictionary: bytes = b"") -> bytes:
    offset, nbytes, checksum = reference[:3]
    assert offset % 64 == 0
    stored = data[origin + offset :][:nbytes]
    assert _checksum(stored).hex() == checksum
    if len(reference) == 3:
        return stored
    content = _frame(stored, dictionary)
    assert len(content) == reference[3]
    return content


def _frame(stored: bytes, dictionary: bytes = b"") -> bytes:
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decompressor = zstandard.ZstdDecompressor(dict_data=raw if dictionary else None)
    return decompressor.decompress(stored, allow_extra_data=False)


def _document(data: bytes, reference: list[Any]) -> Any:
    text = _frame(_section(data, reference)).decode()
    document = json.loads(text)
    assert text == json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return document


def _file(data: bytes, root: Any, key: str, base_file: Callable[[str], bytes]) -> bytes:
    stored = root["files"].get(key)
    if stored is None:
        content = base_file(key)
    else:
        against = stored.get("dictionary")
        dictionary = b"" if against is None else _file(data, root, against, base_file)
        content = _section(data, stored["section"], dictionary=dictionary)
    assert _checksum(content).hex() == key
    return content


def _task(data: bytes, entry: Any, base: Any, decodes: Callable[[int], bool]) -> dict[str, Any]:
    directory = _document(data, entry["directory"])
    origin = entry["first_offset"]
    sections = {
        stream: [bytearray(_section(data, reference, origin)) for reference in references]
        for stream, references in directory["streams"].items()
    }

    def take(stream: str, nbytes: int) -> bytes:
        if not nbytes:
            return b""
        while not sections[stream][0]:
            sections[stream].pop(0)
        chunk = bytes(sections[stream][0][:nbytes])
        del sections[stream][0][:nbytes]
        assert len(chunk) == nbytes
        return chunk

    tensors = []
    for fields in directory["tensors"]:
        name, dtype, shape = None, None, None
        if "base" in fields:
            name, dtype, shape, _ = base["tensors"][fields["base"]]
            name = directory["prefix"] + name
        common = shape
        name, dtype = fields.get("name", name), fields.get("dtype", dtype)
        shape = fields.get("shape", shape)
        common = shape if common is None else common
        extra = [shape[0] - common[0], *common[1:]] if common != shape else None
        tensors.append([name, dtype, shape, fields.get("base")])
        for part, covered in (("record", common), ("extra", extra)):
            record = fields.get(part)
            seed = None
            if part == "record" and "base" in fields and "dither" in directory:
                key = directory["dither"] + "\0" + base["tensors"][fields["base"]][0]
                seed = xxhash.xxh3_64(key.encode(), seed=0).intdigest()
            decoded = record and _record(record, covered, dtype, take, seed, decodes)
            tensors[-1].append(decoded)
    assert not any(rest for parts in sections.values() for rest in parts)
    return {
        "tensors": tensors,
        "absent": directory["absent"],
        "files": directory["files"],
        "meta": directory["meta"],
    }


def _record(
    record: Any,
    shape: list[int],
    dtype: str,
    take: Callable[[str, int], bytes],
    seed: int | None,
    decodes: Callable[[int], bool],
) -> Any:
    numel = math.prod(shape)
    taken = [(stream, codec, take(stream, nbytes)) for stream, codec, nbytes in record["chunks"]]
    if not decodes(numel):
        return None
    chunks = {}
    for stream, codec, stored in taken:
        content = stored if codec == "raw" else _frame(stored)
        if codec == "planes":
            size = ITEM_SIZES[record.get("dtype", dtype)]
            count = len(content) // size
            content = bytes(content[i % size * count + i // size] for i in range(len(content)))
        chunks[stream] = content
    result = {"kind": record["kind"], "numel": numel}
    if "n_kept" in record:
        if "ranks" in chunks:
            assert seed is not None
            positions = _ranked(chunks, numel, seed)
            result["seed"] = seed
        else:
            positions = _bitmap(chunks) if "bitmap" in chunks else list(_rice(chunks))
        assert len(positions) == record["n_kept"]
        result["positions"] = positions
    if record["kind"] == "sparse_levels":
        low, high = record["levels"]
        levels = _levels(chunks.get("magnitudes", b""), record["n_kept"], low, high)
        signs = list(_bits(chunks["signs"]))
        result["levels"] = [-x if signs[i] else x for i, x in enumerate(levels)]
    if record["kind"] == "dense_levels":
        low, high = record["levels"]
        result["levels"] = _levels(chunks["levels"], numel, low, high)
        if "n_outliers" in record:
            outliers = list(zip(_rice(chunks), chunks["outliers"], strict=True))
            assert len(outliers) == record["n_outliers"]
            for position, beyond in outliers:
                assert result["levels"][position] in {low, high}
                result["levels"][position] += (
                    beyond if result["levels"][position] == high else -beyond
                )
    for stream in ("scales", "values", "bits", "factors"):
        if stream in chunks:
            result[stream] = chunks[stream].hex()
    if record["kind"] == "factors":
        rows = shape[0] if shape else 1
        count = {"rows": rows, "columns": numel // max(rows, 1)}.get(record["form"])
        count = record.get("rank", 0) * (rows + numel // max(rows, 1)) if count is None else count
        size = ITEM_SIZES[record.get("dtype", dtype)]
        assert len(chunks["factors"]) == count * size
        scales = chunks.get("scales", struct.pack("<f", 1))
        result |= {"rows": rows, "form": record["form"], "rank": record.get("rank", 0)}
        (result["scale"],) = struct.unpack("<f", scales)
        result.pop("scales", None)
    if "dtype" in record or record["kind"] not in ("sparse_levels", "dense_levels"):
        result["dtype"] = record.get("dtype", dtype)
    return result


def _bits(data: bytes) -> Iterator[int]:
    for byte in data:
        for bit in range(8):
            yield byte >> bit & 1


def _bitmap(chunks: dict[str, bytes]) -> list[int]:
    return [position for position, bit in enumerate(_bits(chunks["bitmap"])) if bit]


def _rice(chunks: dict[str, bytes]) -> Iterator[int]:
    at = 0
    for block in range(len(chunks["blocks"]) // 5):
        count, k, nbytes = struct.unpack("<HBH", chunks["blocks"][block * 5 :][:5])
        bits = _bits(chunks["gaps"][at : at + nbytes])
        at += nbytes
        low = [sum(next(bits) << bit for bit in range(k)) for _ in range(count)]
        position = block * 65536 - 1
        for code in low:
            while not next(bits):
                code += 1 << k
            position += code + 1
            yield position


def _ranked(chunks: dict[str, bytes], numel: int, seed: int) -> list[int]:
    elements = sorted(
        (block, rank, block * 65536 + offset)
        for block in range(-(-numel // 65536))
        for offset, rank in enumerate(_ranks(seed, block, min(65536, numel - block * 65536)))
    )
    edges = [0, *(m << i for i in range(12) for m in (16, 24)), 65536]
    bits = list(_bits(chunks["ranks"]))
    unary, low = iter(bits), iter(reversed(bits))
    n_read = bucket = 0
    kept = []
    for header in chunks["segments"]:
        last = bucket + (header >> 5) + 1
        inside = [e for e in elements if edges[bucket] <= e[1] < edges[last]]
        bucket = last
        marks_kept = header & 31 < 24
        k = (header & 31) % 24
        marked = set()
        place = -1
        while place < len(inside):
            quotient = 0
            while not next(unary):
                quotient += 1
            place += (quotient << k) + sum(next(low) << bit for bit in reversed(range(k))) + 1
            n_read += quotient + 1 + k
            marked.add(place)
        assert place == len(inside)
        kept += [e[2] for place, e in enumerate(inside) if (place in marked) == marks_kept]
    assert 0 <= len(bits) - n_read < 8
    return sorted(kept)


def _ranks(seed: int, block: int, n: int) -> Iterator[int]:
    words = []
    for i in (2 * block, 2 * block + 1):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        words.append([z >> shift & 0xFFFF for shift in (0, 16, 32, 48)])
    for x in range(n):
        for term, factor in zip(*words, strict=True):
            x ^= term
            x ^= x >> 7
            x = x * (factor | 1) % 65536
        yield x ^ x >> 7


def _levels(data: bytes, count: int, low: int, high: int) -> list[int]:
    n_levels = high - low + 1
    if n_levels == 1:
        return [low] * count
    digits = max(d for d in range(1, 9) if n_levels**d <= 256)
    levels = []
    for byte in data:
        for _ in range(digits):
            levels.append(byte % n_levels + low)
            byte //= n_levels
    return levels[:count]
