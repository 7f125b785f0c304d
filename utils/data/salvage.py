"""PNG and TIFF files without their metadata, where texts, tags or a profile keep Pillow from the pixels.

JPEG and WebP need none of this: Pillow reads their metadata only when asked.
"""

import struct
import zlib
from collections.abc import Collection, Iterator

PNG, TIFF_LITTLE, TIFF_BIG = b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*"
SALVAGED = PNG, TIFF_LITTLE, TIFF_BIG
"""How files of these formats begin."""

# What is kept at each try: colours and orientation first, then the pixels and what is transparent, then less.
_PNG_KEPT = ((b"tRNS", b"iCCP", b"eXIf"), (b"tRNS",), ())
_TIFF_ORIENTATION, _TIFF_PROFILE = 274, 34675
# From size to layout, compression, palette, tiles and samples, and the tables of JPEG inside TIFF.
_TIFF_PIXELS = (
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293),
    *(317, 320, 322, 323, 324, 325, 332, 338, 339, 347, 530, 531, 532),
)
_TIFF_KEPT = ((*_TIFF_PIXELS, _TIFF_ORIENTATION, _TIFF_PROFILE), _TIFF_PIXELS)


def without_metadata(data: bytes) -> Iterator[bytes]:
    """The same picture with less and less beside its pixels; nothing for other formats than PNG and TIFF."""
    if data.startswith(PNG):
        for kept in _PNG_KEPT:
            yield PNG + b"".join(_png_chunks(data, kept))
    elif data.startswith(SALVAGED):
        for tags in _TIFF_KEPT:
            if rewritten := _with_tags(data, tags):
                yield rewritten


def _png_chunks(data: bytes, kept: Collection[bytes]) -> Iterator[bytes]:
    """The critical chunks as they are, and of the others those of `kept` that are whole by their checksum."""
    offset = len(PNG)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        chunk = data[offset : offset + 12 + length]
        offset += 12 + length
        critical = not kind[0] & 0x20  # a capital first letter, as the PNG specification has it
        if critical or (kind in kept and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))):
            yield chunk


def _with_tags(data: bytes, kept: Collection[int]) -> bytes | None:
    """A TIFF whose first directory has `kept` alone, written in its place; None where there is none."""
    order = "<" if data.startswith(TIFF_LITTLE) else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [struct.unpack_from(f"{order}H10s", data, start + 2 + 12 * n) for n in range(count)]
    except struct.error:
        return None
    chosen = [struct.pack(f"{order}H10s", *entry) for entry in entries if entry[0] in kept]
    directory = struct.pack(f"{order}H", len(chosen)) + b"".join(chosen) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]
