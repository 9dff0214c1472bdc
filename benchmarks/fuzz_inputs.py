"""Hostile `.safetensors` files from a seed: `hostile(random)` puts one at a path.

Each kind says what it tries in its name.
"""

__all__ = ["hostile"]

import io
import json
import os
import pickle
import struct
import zipfile
from math import prod
from pathlib import Path
from random import Random

EDGES = "[1000, 800, 600, 400, 200, 0]"
DTYPES = ("F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2", "F4", "I64", "I8", "BOOL", "U8",
          "C64", "f32", "", "F32 ", "F128", 7, None)  # fmt: skip
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I8": 1, "U8": 1, "BOOL": 1, "C64": 8}
NAMES = ("pairs.clip_l", "pairs.clip_g", "pairs.clip_h", "clip_l", "clip_g", "emb_params",
         "pairs.1.clip_l", "pairs.2.clip_g", "pairs.-1.clip_l", "pairs.", "", "../../x", "C:\\x",
         "\u202ex", "a\nb", "x" * 300, "__metadata__", "\x00", "\U0001f600")  # fmt: skip
NUMBERS = (0, 1, 2, 3, 5, 50, 768, 1280, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64 - 1, 2**64,
           -1, 1.5, 1e308, float("nan"), float("inf"), True, None, "5", [], {})  # fmt: skip
TEXTS = ("", "V*", "person", "(V*:9)", "\n\n", "\x00", "\u202egpj", "x" * 70_000, "<img src=x>",
         "../../etc/passwd", "%s%n{0}", "embedding:x", "\ud800", "1" * 5000, "[" * 9000,
         "[1000, 0]", "[1000.0, 0]", "[true, 0]", "[1e999, 0]", "[9, NaN, 0]", EDGES)  # fmt: skip


def document(tensors: dict, metadata: object, body: bytes, random: Random) -> bytes:
    """Returns a container with a header as given."""
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + body


def metadata_of_an_identity() -> dict:
    return {"format": "sefi-id", "format_version": "1", "sefi.stage_edges": EDGES}


def valid(random: Random) -> bytes:
    """Returns a file that is as it should be: an identity, or an embedding."""
    if random.random() < 0.3:
        body = random.randbytes(2 * 8 * 2)
        entry = {"dtype": "F16", "shape": [2, 8], "data_offsets": [0, len(body)]}
        return document({random.choice(["emb_params", "clip_l"]): entry}, {}, body, random)
    stages, width, dtype = 5, random.choice([4, 8]), random.choice(["F32", "F16"])
    names = random.choice([("clip_l",), ("clip_l", "clip_g"), ("clip_h",)])
    tensors, body = {}, b""
    for name in names:
        for key, shape in ((f"pairs.{name}", [stages, 2, 1, width]), (name, [1, width])):
            count = shape[0] * shape[-1] * (2 if len(shape) == 4 else 1)
            code = "f" if dtype == "F32" else "e"
            data = struct.pack(f"<{count}{code}", *(random.uniform(-1, 1) for _ in range(count)))
            tensors[key] = {
                "dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)],
            }  # fmt: skip
            body += data
    return document(tensors, metadata_of_an_identity(), body, random)


def mutated(random: Random) -> bytes:
    """Bytes flipped, cut, inserted, doubled."""
    data = bytearray(valid(random))
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if at < len(data):
                data[at] = random.randrange(256)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = random.randbytes(random.randint(1, 16))
            case 3:
                del data[at : at + random.randint(1, 16)]
            case _:
                other = random.randrange(len(data) + 1)
                data[at:at] = data[other : other + random.randint(1, 64)]
        data = data or bytearray(b"\0")
    return bytes(data)


def length(random: Random) -> bytes:
    """A header length that claims anything."""
    data = valid(random)
    claim = random.choice([0, 1, 7, 8, 2**20, 2**20 + 1, 2**30, 2**31, 2**32, 2**62, 2**63,
                           2**64 - 1, len(data), len(data) - 8, len(data) - 7])  # fmt: skip
    return claim.to_bytes(8, "little") + data[8:]


def described(random: Random) -> bytes:
    """Dtypes, shapes and offsets that lie."""
    tensors, size = {}, 0
    for _ in range(random.randint(0, 4)):
        dtype = random.choice(DTYPES)
        shape = random.choice(
            [[5, 2, 1, 8], [1, 8], [8], [], [random.choice(NUMBERS) for _ in range(4)], "x", None]
        )
        plain = isinstance(shape, list) and all(type(n) is int and 0 <= n < 9 for n in shape)
        whole = BYTES.get(dtype, 4) * prod(shape) if plain else 64
        offsets = random.choice(
            [[size, size + whole]] * 4
            + [[size + whole, size], [0, 2**30], [random.choice(NUMBERS)] * 2, [0], None, [0, 1, 2]]
        )
        entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for key in random.sample(sorted(entry), random.choice([0, 0, 0, 1])):
            del entry[key]
        tensors[random.choice(NAMES)] = random.choice([entry] * 6 + [None, [], "x", 3])
        size += whole
    return document(tensors, metadata_of_an_identity(), bytes(size), random)


def metadata(random: Random) -> bytes:
    """Metadata of wrong kinds, from the future, deep, long."""
    fields = metadata_of_an_identity()
    for _ in range(random.randint(1, 3)):
        key = random.choice([*fields, "sefi.class_word", "modelspec.trigger_phrase", "sefi.stages"])
        fields[key] = random.choice(TEXTS) if random.random() < 0.8 else random.choice(NUMBERS)
    if random.random() < 0.2:
        fields["format_version"] = random.choice(["2", "01", "999999999", "9" * 4000, "-1", "٣"])
    body = struct.pack("<80f", *[0.5] * 80)
    entry = {"dtype": "F32", "shape": [5, 2, 1, 8], "data_offsets": [0, 320]}
    whole = random.choice([fields] * 8 + [None, [], "x", 1])
    return document({"pairs.clip_l": entry}, whole, body, random)


def values(random: Random) -> bytes:
    """Numbers that are not finite, or hardly."""
    special = [float("nan"), float("inf"), float("-inf"), 3.4e38, 1e-45, -0.0]
    numbers = [random.choice(special) if random.random() < 0.05 else 0.1 for _ in range(80)]
    entry = {"dtype": "F32", "shape": [5, 2, 1, 8], "data_offsets": [0, 320]}
    name = random.choice(["pairs.clip_l", "emb_params"])
    shape = [10, 8] if name == "emb_params" else [5, 2, 1, 8]
    fields = {} if name == "emb_params" else metadata_of_an_identity()
    return document(
        {name: {**entry, "shape": shape}}, fields, struct.pack("<80f", *numbers), random
    )


def bomb(random: Random) -> bytes:
    """A header that is large or deep once it is read."""
    room = random.choice([1 << 12, 1 << 16, (1 << 20) - 64, 1 << 20])
    unit, wrap = random.choice(
        [("[],", "[{}0]"), ("{},", "[{}0]"), ('{"":0},', "[{}0]"), ("1.5,", "[{}0]"),
         ('"ab",', "[{}0]"), ("[", "{}"), ('{"a":', "{}"), ("9", "{}"), ('"\\u0000",', "[{}0]")]
    )  # fmt: skip
    text = unit * (room // len(unit))
    if random.random() < 0.5:
        text = wrap.replace("{}", text)
    if random.random() < 0.5:
        text = '{"__metadata__":' + text + "}"
    header = text.encode()[:room]
    return len(header).to_bytes(8, "little") + header


def many(random: Random) -> bytes:
    """Thousands of fields, some of them twice."""
    count = random.choice([100, 1000, 9000])
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    keys = [str(random.randrange(count) if random.random() < 0.5 else i) for i in range(count)]
    fields = ",".join(f'"{key}":{empty}' for key in keys)
    header = b"{" + fields.encode() + b"}"
    return len(header).to_bytes(8, "little") + header


def full(random: Random) -> bytes:
    """An identity as large as may be, whose very last number is not finite."""
    stages = (8 << 20) // (2 * 2 * 768) - 4
    body = bytes(stages * 2 * 768 * 2 - 2) + struct.pack("<e", float("nan"))
    shape = random.choice([[stages, 2, 1, 768], [stages, 2, 768]])
    entry = {"dtype": "F16", "shape": shape, "data_offsets": [0, len(body)]}
    fields = metadata_of_an_identity()
    if random.random() < 0.5:
        fields["sefi.stage_edges"] = json.dumps(list(range(stages, -1, -1)))
    return document({"pairs.clip_l": entry}, fields, body, random)


def twice(random: Random) -> bytes:
    """Two fields of one name, which readers may take differently."""
    data = valid(random)
    size = int.from_bytes(data[:8], "little")
    fields = data[8 : 8 + size].strip()[1:-1].decode()
    extra = random.choice([
        '"__metadata__":{"format":"sefi-id"}', '"__metadata__":{}', '"pairs.clip_l":null',
        '"clip_l":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}',
    ])  # fmt: skip
    header = "{" + random.choice([f"{extra},{fields}", f"{fields},{extra}"]) + "}"
    return len(header).to_bytes(8, "little") + header.encode() + data[8 + size :]


def encoded(random: Random) -> bytes:
    """Other text encodings, byte-order marks, broken UTF-8."""
    data = valid(random)
    size = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + size].decode()
    header = random.choice([
        text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + text.encode(),
        text.encode().replace(b"clip", b"\xff\xfe"),
        text.encode().replace(b"clip", b"\xed\xa0\x80"),
        text.replace("{", "{ /* */ ", 1).encode(), b"\0" + text.encode(),
    ])  # fmt: skip
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("/tmp/sefi-fuzz-was-here",)


def other(random: Random) -> bytes:
    """Files of other kinds under this name, some of which run code where they are unpickled."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Evil()))
    return random.choice([
        pickle.dumps(Evil()), archive.getvalue(), b"\x89PNG\r\n\x1a\n" + random.randbytes(200),
        b"\x7fELF" + random.randbytes(200), b"<html><script>alert(1)</script>", b"", b"\0",
        b"\0" * 8, b"\0" * 4096, b"#!/bin/sh\nrm -rf /\n", random.randbytes(random.randint(1, 400)),
    ])  # fmt: skip


KINDS = (mutated, length, described, metadata, values, twice, encoded, other)
LARGE = (bomb, bomb, bomb, many, many, full)


def hostile(random: Random, folder: Path) -> tuple[str, Path]:
    """Writes one file under a name that may be hostile, too; returns what it tries, and where."""
    path = folder / f"{random.choice(['a', 'ä' * 40, 'a b', 'x' * 240, '<b>', 'C:', '..'])}.sft"
    chance = random.random()
    if chance < 0.01:
        return "claims", sparse(path, random.choice([9 << 20, 1 << 30, 1 << 40]))
    if chance < 0.02:
        path.symlink_to(random.choice([path, folder / "nothing", folder, Path("/dev/zero")]))
        return "symlink", path
    if chance < 0.025:
        os.mkfifo(path)
        return "pipe", path
    kind = random.choice(LARGE if chance > 0.96 else KINDS)
    path.write_bytes(kind(random))
    return kind.__name__, path


def sparse(path: Path, size: int) -> Path:
    """Makes a file of a size that takes no room, with a header that claims most of it."""
    entry = {"dtype": "F32", "shape": [size // 8], "data_offsets": [0, size // 8 * 4]}
    data = document({"clip_l": entry}, {}, b"", Random(0))
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path
