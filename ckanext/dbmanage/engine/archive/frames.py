"""A segment of a dump, packed by zstd: as it is, or as what differs from another.

The second is what `zstd --patch-from` writes and reads.
"""

import heapq
import zlib

import zstandard

from ..errors import Damaged

#: bytes of a segment at most
SEGMENT = 4 << 20
#: a frame of more is none of ours: what cannot be compressed grows by a few bytes
MOST_PACKED = SEGMENT + (1 << 16)
_LEVEL = 3
#: lines that tell how like two segments are
_LINES = 64
#: the smallest and the largest window that zstd lets any reader have
_SMALLEST, _LARGEST = 17, 24


def pack(plain: bytes) -> bytes:
    """The frame of a segment by itself."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(plain)


def pack_against(plain: bytes, whole: bytes) -> bytes:
    """The frame of what differs from `whole`, another segment."""
    window = max(_SMALLEST, (len(plain) + len(whole) - 1).bit_length())
    # of a raw dictionary zstd keeps the last `8 << hash_log` bytes alone
    hashes = max(_SMALLEST, window - 2)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL,
        source_size=len(plain),
        dict_size=len(whole),
        window_log=window,
        hash_log=hashes,
        chain_log=hashes,
        write_checksum=True,
    )
    packer = zstandard.ZstdCompressor(
        dict_data=_dictionary(whole), compression_params=parameters
    )
    return packer.compress(plain)


def unpack_frame(frame: bytes, name: str, whole: bytes | None = None) -> bytes:
    """The segment in a frame, which may be hostile. Raises Damaged.

    `whole` is the segment that the frame was packed against.
    """
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size > SEGMENT:
            raise Damaged(name, [f"object {name} is larger than a segment"])
        reader = zstandard.ZstdDecompressor(
            dict_data=None if whole is None else _dictionary(whole),
            max_window_size=1 << _LARGEST,
        )
        return reader.decompress(frame, max_output_size=SEGMENT)
    except zstandard.ZstdError as error:
        raise Damaged(name, [f"object {name} cannot be unpacked: {error}"]) from error


def features(plain: bytes) -> frozenset[int]:
    """What two segments share when they share lines, wherever those stand."""
    sums = set(map(zlib.crc32, plain.split(b"\n")))
    return frozenset(heapq.nsmallest(_LINES, sums))


def _dictionary(whole: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(
        whole, dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
