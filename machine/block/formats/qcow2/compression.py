"""Compressed clusters: raw deflate, or a zstd frame (section "Compressed Clusters Descriptor").

Both run without Python's lock, so that several workers compress at once. What is unpacked is never larger than a
cluster, whatever the data says of itself.
"""

from __future__ import annotations

import threading
import zlib
from typing import Any

from dbt.machine.block.errors import ImageCorrupt

WINDOW = -12  # what others expect: no header, 4 KiB
LARGEST_WINDOW = 1 << 27


class Compressor:
    """For one image: `kind` is zlib or zstd."""

    def __init__(self, kind: str, cluster_size: int) -> None:
        self.kind = kind
        self.cluster_size = cluster_size
        self._own = threading.local()  # zstd's objects are for one thread each

    def pack(self, data: memoryview | bytes) -> bytes | None:
        """`data`, one cluster, compressed; None if that does not make it smaller."""
        if self.kind == "zlib":
            packer = zlib.compressobj(wbits=WINDOW)
            packed = packer.compress(data) + packer.flush()
        else:
            packed = self._zstd("ZstdCompressor").compress(data)
        return packed if len(packed) < self.cluster_size else None

    def _zstd(self, name: str) -> Any:  # noqa: ANN401 - an object of zstandard's
        found = getattr(self._own, name, None)
        if found is None:
            import zstandard

            arguments = {"max_window_size": LARGEST_WINDOW} if name == "ZstdDecompressor" else {}
            found = getattr(zstandard, name)(**arguments)
            setattr(self._own, name, found)
        return found

    def unpack(self, data: bytes | bytearray, file: str, offset: int) -> bytes:
        """One cluster; ImageCorrupt if `data`, from `offset` of `file`, is no cluster."""
        size = self.cluster_size
        try:
            if self.kind == "zlib":
                found = zlib.decompressobj(WINDOW).decompress(data, size)
            else:
                import zstandard

                declared = zstandard.get_frame_parameters(data).content_size
                if declared > size and declared != zstandard.CONTENTSIZE_UNKNOWN:
                    what = f"compressed cluster says it has {declared} bytes"
                    raise ImageCorrupt(file, what, offset=offset)  # noqa: TRY301 - beside its like
                found = self._zstd("ZstdDecompressor").decompress(data, max_output_size=size)
        except ImageCorrupt:
            raise
        except Exception as wrong:  # noqa: BLE001 - zlib.error and ZstdError have no common root
            raise ImageCorrupt(file, f"compressed cluster: {wrong}", offset=offset) from None
        if len(found) != size:
            raise ImageCorrupt(file, f"compressed cluster has {len(found)} bytes of {size}", offset=offset)
        return found
