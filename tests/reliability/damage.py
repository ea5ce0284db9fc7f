"""Ways to damage a file: flips, cuts, insertions, extreme numbers; inside archives under a right checksum, in JSON."""

import io
import json
import random
import re
import struct
import zipfile

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Up to eight bytes changed."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(damaged))] ^= rng.randint(1, 255)
    return bytes(damaged)


def cut(rng: random.Random, data: bytes) -> bytes:
    """The end, the beginning or a piece is missing."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice([data[:a], data[a:], data[:a] + data[b:]])


def inserted(rng: random.Random, data: bytes) -> bytes:
    """Random bytes, or a piece of the file itself, come between."""
    at, a = rng.randrange(len(data) + 1), rng.randrange(len(data))
    more = rng.choice([rng.randbytes(rng.randint(1, 64)), data[a : a + rng.randint(1, 512)]])
    return data[:at] + more + data[at:]


def extreme(rng: random.Random, data: bytes) -> bytes:
    """A number of 1 to 8 bytes, or one in digits, becomes an extreme one."""
    value = rng.choice(EXTREMES)
    digits = list(re.finditer(rb"\d+", data))
    if digits and rng.random() < 0.5:
        found = rng.choice(digits)
        return data[: found.start()] + rng.choice([b"", b"-"]) + str(value).encode() + data[found.end() :]
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    return data[:at] + struct.pack("<Q", value)[:width] + data[at + width :]


DAMAGES = (flipped, cut, inserted, extreme)


def inside(rng: random.Random, data: bytes) -> bytes:
    """An archive whose one entry is damaged, under a right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    # The small entries are the headers: the pickle, the byte order.
    name = rng.choice([each for each in entries if entries[each]])
    entries[name] = rng.choice(DAMAGES)(rng, entries[name])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in entries.items():
            archive.writestr(each, content)
    return stream.getvalue()


def rewritten(rng: random.Random, data: bytes) -> bytes:
    """JSON in which a value has another type, or is missing."""
    tree = node = json.loads(data)
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        place = rng.choice(places)
        if not isinstance(node[place], dict | list) or not node[place] or rng.random() < 0.3:
            break
        node = node[place]
    if rng.random() < 0.3:
        del node[place]
    else:
        node[place] = rng.choice([None, -1, 10**30, 0.5, "x", "", [], {}, [None], {"a": []}, True])
    return json.dumps(tree).encode()


def damaged(rng: random.Random, data: bytes) -> bytes:
    """A damaged file; half of the time JSON by a value, and an archive by an entry."""
    if data[:1] == b"{" and rng.random() < 0.5:
        return rewritten(rng, data)
    if data[:2] == b"PK" and rng.random() < 0.5:
        return inside(rng, data)
    return rng.choice(DAMAGES)(rng, data)
