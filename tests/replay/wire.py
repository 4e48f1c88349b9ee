"""Just enough of protobuf and CBOR to compare answers: bytes become plain values."""
import struct


def varint(b, i):
    n = shift = 0
    while True:
        c = b[i]
        i += 1
        n |= (c & 0x7f) << shift
        if c < 0x80:
            return n, i
        shift += 7
        if shift > 63:
            raise ValueError("varint")


def pb_message(b):
    """{field number: [values]}; raises ValueError or IndexError for bytes that are no message."""
    out, i = {}, 0
    while i < len(b):
        key, i = varint(b, i)
        field, wire = key >> 3, key & 7
        if field == 0 or field > 20000:
            raise ValueError("field")
        if wire == 0:
            v, i = varint(b, i)
            v = v - (1 << 64) if v >= 1 << 63 else v
        elif wire == 1:
            v, i = struct.unpack_from("<d", b, i)[0], i + 8
        elif wire == 5:
            v, i = struct.unpack_from("<I", b, i)[0], i + 4
        elif wire == 2:
            n, i = varint(b, i)
            if i + n > len(b):
                raise ValueError("length")
            v, i = pb_bytes(b[i:i + n]), i + n
        else:
            raise ValueError("wire")
        out.setdefault(str(field), []).append(v)
    return out


def pb_bytes(b):
    """Text where it is printable, else a message where it parses, else hex."""
    try:
        s = b.decode()
        if all(c.isprintable() or c == "\n" for c in s):
            return s
    except UnicodeDecodeError:
        pass
    try:
        return pb_message(b)
    except (ValueError, IndexError, struct.error):
        return b.hex()


def pb_envelope(b):
    """runtime.Unknown behind the magic number of Kubernetes."""
    if b[:4] != b"k8s\0":
        return {"not-protobuf": b[:64].hex()}
    return pb_message(b[4:])


def cbor(b):
    v, i = _cbor(b, 0)
    return v


def _cbor(b, i):
    major, info = b[i] >> 5, b[i] & 31
    i += 1
    if major == 7 and info >= 20 and info != 24:
        if info < 24:
            return {20: False, 21: True, 22: None, 23: None}[info], i
        n = {25: 2, 26: 4, 27: 8}[info]
        return struct.unpack_from({2: ">e", 4: ">f", 8: ">d"}[n], b, i)[0], i + n
    if info < 24:
        n = info
    elif info < 28:
        size = 1 << (info - 24)
        n = int.from_bytes(b[i:i + size], "big")
        i += size
    elif info == 31:
        items = []
        while b[i] != 0xff:
            v, i = _cbor(b, i)
            items.append(v)
        i += 1
        if major == 4:
            return items, i
        if major == 5:
            return dict(zip(map(str, items[::2]), items[1::2])), i
        return "".join(items), i
    else:
        raise ValueError("cbor")
    if major == 0:
        return n, i
    if major == 1:
        return -1 - n, i
    if major in (2, 3):
        return b[i:i + n].decode("utf-8", "replace"), i + n
    if major == 4:
        out = []
        for _ in range(n):
            v, i = _cbor(b, i)
            out.append(v)
        return out, i
    if major == 5:
        out = {}
        for _ in range(n):
            k, i = _cbor(b, i)
            out[str(k)], i = _cbor(b, i)
        return out, i
    if major == 6:
        return _cbor(b, i)
    raise ValueError("cbor")


def to_cbor(v):
    """A value as CBOR, definite lengths, behind the self-described tag when called by the tool."""
    def head(major, n):
        if n < 24:
            return bytes([major << 5 | n])
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if n < 1 << (8 * size):
                return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    if v is None:
        return b"\xf6"
    if v is True:
        return b"\xf5"
    if v is False:
        return b"\xf4"
    if isinstance(v, int):
        return head(0, v) if v >= 0 else head(1, -1 - v)
    if isinstance(v, float):
        return b"\xfb" + struct.pack(">d", v)
    if isinstance(v, str):
        return head(2, len(v.encode())) + v.encode()
    if isinstance(v, list):
        return head(4, len(v)) + b"".join(map(to_cbor, v))
    return head(5, len(v)) + b"".join(to_cbor(k) + to_cbor(x) for k, x in v.items())
