"""Small archives of every kind, made in memory from a dictionary of names to bytes."""

import io
import struct
import tarfile
import zipfile
import zlib


def make_tar(content, mode="w", **change):
    """A tar file; `change` maps a member's name to attributes of its header to be set."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in change.get(name, {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_targz(content, **change):
    return make_tar(content, "w:gz", **change)


def make_zip(content, **change):
    """A zip file; `change` maps a member's name to attributes of its entry to be set."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in change.get(name, {}).items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return buffer.getvalue()


def make_rar(content, **change):
    """A RAR file of version 4; `change` may set `attributes` (a Unix mode), `flags` and `method` (stored: 0x30)."""
    marker = b"Rar!\x1a\x07\x00"
    blocks = [_rar_block(0x73, 0, bytes(6))]
    for name, data in content.items():
        given = change.get(name, {})
        encoded = name.encode()
        fields = struct.pack(
            "<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x4A21_0000, 20, given.get("method", 0x30),
            len(encoded), given.get("attributes", 0o100644),
        )  # fmt: skip
        blocks.append(_rar_block(0x74, 0x8000 | given.get("flags", 0), fields + encoded) + data)
    return marker + b"".join(blocks) + _rar_block(0x7B, 0x4000, b"")


def make_rar5(content, **change):
    """A RAR file of version 5; `change` may set `attributes` (a Unix mode), an `extra` record and `method`."""
    blocks = [_rar5_block(1, b"\0")]
    for name, data in content.items():
        encoded = name.encode()
        given = change.get(name, {})
        mode, extra = _number(given.get("attributes", 0o100644)), given.get("extra", b"")
        fields = b"\x04" + _number(len(data)) + mode + struct.pack("<I", zlib.crc32(data))
        fields += _number((given.get("method", 0x30) & 0xF) << 7) + b"\x01"
        fields += _number(len(encoded)) + encoded
        blocks.append(_rar5_block(2, fields, _number(len(data)), extra) + data)
    return b"Rar!\x1a\x07\x01\x00" + b"".join(blocks) + _rar5_block(5, b"\0")


def rar5_link(kind, target):
    """The extra record of a link: kind 1 is a symbolic one, 4 a hard one, 5 a copy."""
    record = _number(5) + _number(kind) + b"\0" + _number(len(target)) + target.encode()
    return _number(len(record)) + record


def _rar5_block(kind, body, data_size=b"", extra=b""):
    sizes = (_number(len(extra)) if extra else b"") + data_size
    fields = _number(kind) + _number(bool(extra) + 2 * bool(data_size)) + sizes + body + extra
    rest = _number(len(fields)) + fields
    return struct.pack("<I", zlib.crc32(rest)) + rest


def _number(value):
    """Seven bits a byte, lowest first; the eighth says that more follow."""
    return bytes([value & 0x7F | 0x80]) + _number(value >> 7) if value > 0x7F else bytes([value])


def _rar_block(kind, flags, body):
    rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
    return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest


MAKERS = {"tar.gz": make_targz, "tar": make_tar, "zip": make_zip, "rar": make_rar}
