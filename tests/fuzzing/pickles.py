"""Mutations of what `torch.save` writes: members of the zip, opcodes of the pickle, code that it would run."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import zipfile

from tests.fuzzing.bytewise import bytewise

MAGIC = b"\x80\x02"
# A pickle that unpickles to something else than weights, or asks for more than there is.
PAYLOADS = (
    b"cos\nsystem\n(X\x0b\x00\x00\x00touch ownedtR.",
    b"cposix\nsystem\n(X\x0b\x00\x00\x00touch ownedtR.",
    b"cbuiltins\nexec\n(X\x18\x00\x00\x00open('../owned', 'w')    tR.",
    b"cbuiltins\nbytearray\n(I4000000000\ntR.",
    b"ccollections\nOrderedDict\n)R.",
    b"ctorch\nSize\n(]I4\naatR.",
    b"ctorch\nload\n(X\x01\x00\x00\x00atR.",
    b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
    b"ctorch._utils\n_rebuild_parameter\n(NNNtR.",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n(I1000000000\nI1000000000\nt(I1\nI1\ntI00\ntR.",
    b"c_codecs\nencode\n(X\x04\x00\x00\x00aaaaX\x06\x00\x00\x00latin1tR.",
    b"](" + b"](" * 5000 + b"a" * 5000 + b".",
    b"].",
    b"}.",
    b"N.",
    b"I1\n.",
    b"\x8a\xff" + b"\x7f" * 255 + b".",
    b"L" + b"9" * 5000 + b"L\n.",
    b"}X\x05\x00\x00\x00modelN}X\x05\x00\x00\x00modelNss.",
    b"}X\x01\x00\x00\x00aX\x01\x00\x00\x00bs.",
    b"}q\x00(X\x01\x00\x00\x00ah\x00u.",  # a dict that holds itself
    b"}q\x00X\x0a\x00\x00\x00state_dicth\x00s.",
    b"}q\x00X\x05\x00\x00\x00modelh\x00s.",
)


def mutate_torch_file(data: bytes, rng: random.Random) -> bytes:
    """A zip as torch.save writes it, or its older form, which is several pickles in a row."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return mutate_pickle(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(info.filename, source.read(info)) for info in source.infolist()]
    place = next(n for n, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    if rng.random() < 0.3:
        place = rng.randrange(len(members))
    name, content = members[place]
    kind = rng.randrange(8)
    if kind == 0:
        members.pop(place)
    elif kind == 1:
        members[place] = (rng.choice(("../owned", "/owned", "archive/../owned", "", "a" * 5000, "data.pkl")), content)
    elif kind == 2:
        members.append((name, content))
    else:
        members[place] = (name, (mutate_pickle if name.endswith(".pkl") else bytewise)(content, rng))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))) as out:
        for name, content in members:
            out.writestr(zipfile.ZipInfo(name or "a"), content)
    return buffer.getvalue()


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return MAGIC + rng.choice(PAYLOADS)
    try:
        operations = list(pickletools.genops(data))
    except Exception:  # the older form goes on after its first pickle
        return bytewise(data, rng)
    place = rng.randrange(1, len(operations))
    start, stop = operations[place - 1][2], operations[place][2]
    assert start is not None
    assert stop is not None
    kind = rng.randrange(4)
    if kind == 0:
        return data[:start] + data[stop:]
    if kind == 1:
        return data[:start] + rng.choice(PAYLOADS)[:-1] + data[start:]
    if kind == 2:
        return data[:start] + data[start:stop] * rng.choice((2, 100)) + data[stop:]
    return data[:start] + replacement(operations[place - 1][1], rng) + data[stop:]


def replacement(argument: object, rng: random.Random) -> bytes:
    """The opcode of another value of the same type, or of another type."""
    if isinstance(argument, int) and rng.random() < 0.8:
        number = rng.choice((0, 1, -1, 2**31 - 1, 2**40, 2**62, -(2**63), argument + 1, argument * 1000))
        return pickle.dumps(number, 2)[2:-1]
    if isinstance(argument, str) and rng.random() < 0.8:
        text = rng.choice(("", "a\0b", "../owned", "cuda", "meta", "mps:99", "cpu", argument + "a", "9" * 5000))
        return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()
    return rng.choice((b"N", b"]", b"}", b")", b"\x88", b"0", b"2", b"(", b"t", b"R", b"b", b"Q", b"e", b"\x85"))
