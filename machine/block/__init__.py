"""Disks: any format over any protocol, as a graph of nodes, with requests as objects.

For those who use disks (devices, servers, commands):

    from dbt.machine.block import READ, Disk, Request, create_image, open_image

    create_image("a.qcow2", "qcow2", 10 << 30, {"cluster_size": "64K"})
    with Disk(open_image("a.qcow2", "qcow2", writable=True)) as disk:
        disk.write(0, b"boot")                                   # waiting
        request = Request(READ, 0, [memory], completion)         # not waiting: see disk.py
        if disk.submit(request): …                               # done at once

Images are named by a path, a URI, options (`driver=…,file.driver=…`) or JSON: spec.py. `describe(node)` is what info
shows; `node.check`, `node.status`, `node.snapshots`… are in node.py; requests and their flags in request.py.

For those who add a format: a module in `formats/` with a subclass of Format and `DRIVER = ItsClass`:

    class QED(Format):
        driver = "qed"
        OPTIONS = (…)                 # for opening, besides the children `file` and `backing`
        CREATE_OPTIONS = (…)
        def __init__(self, opening):  # opening.child("file"), opening.backing(name, format)
        def read / write / status     # must; in the caller's thread, from many threads at once
        def try_read / flush / discard / write_zeroes / resize / close
        def info / structures / check / change_backing / snapshot_…
        probe, create, measure        # class methods

For those who add a protocol: a module in `protocols/` with a subclass of Protocol: its constructor connects, it sets
`size` and `identity`, reads zeroes beyond its end, and has `parse_uri` and `create` as class methods.

Headers and tables of the disk are declared with structure.py, errors are in errors.py, ranges in flight in ranges.py.
"""

from dbt.machine.block.disk import Disk
from dbt.machine.block.errors import (
    AccessRefused,
    BadOption,
    BlockError,
    HostError,
    ImageCorrupt,
    ImageLocked,
    ImageUnsupported,
    RequestRefused,
)
from dbt.machine.block.graph import create_image, describe, open_image, open_node
from dbt.machine.block.node import CheckResult, Extent, Format, Measure, Node, Protocol
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.request import (
    COMPRESSED,
    DISCARD,
    FLUSH,
    FUA,
    MAY_UNMAP,
    NO_FALLBACK,
    READ,
    RESIZE,
    STATUS,
    WRITE,
    WRITE_ZEROES,
    Request,
)
from dbt.machine.block.spec import Spec, parse_spec

__all__ = [
    "COMPRESSED",
    "DISCARD",
    "FLUSH",
    "FUA",
    "MAY_UNMAP",
    "NO_FALLBACK",
    "READ",
    "RESIZE",
    "SIZE",
    "STATUS",
    "WRITE",
    "WRITE_ZEROES",
    "AccessRefused",
    "BadOption",
    "BlockError",
    "CheckResult",
    "Disk",
    "Extent",
    "Format",
    "HostError",
    "ImageCorrupt",
    "ImageLocked",
    "ImageUnsupported",
    "Measure",
    "Node",
    "Option",
    "Protocol",
    "Request",
    "RequestRefused",
    "Spec",
    "create_image",
    "describe",
    "open_image",
    "open_node",
    "parse_spec",
]
