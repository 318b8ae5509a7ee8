"""`dragoman nbd`: export an image by NBD, to the kernel's nbd-client, qemu and others."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from dbt.machine.block.nbd.server import CLIENTS, PORT, Server, listen_tcp, listen_unix, server_context
from dbt.machine.block.tool import images

from dbt.errors import DragomanError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

ABOUT = """\
It says where it listens, then serves until SIGINT or SIGTERM (with --once: until the last client has gone); by then
everything is flushed. The image is exported for reading and writing, in which case its format must be named, or with
-r for reading. Several clients at once see the same disk. Without TLS everybody who reaches the port may write:
the default address is this machine's own.

  dragoman nbd -f qcow2 -k /run/disk.sock disk.qcow2
  dragoman nbd -f qcow2 -b 0.0.0.0 --tls-cert server.pem --tls-key server.key --tls-ca clients.pem disk.qcow2

exit status: 0 served and flushed; 1 it failed; 2 the command line is wrong.
"""


def build() -> argparse.ArgumentParser:
    """The parser."""
    parser = argparse.ArgumentParser(
        prog="dragoman nbd", description="Export a disk image by NBD.", epilog=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("-f", "--format", metavar="FORMAT", help="format of the image")
    parser.add_argument("-r", "--read-only", action="store_true", help="let nobody write")
    parser.add_argument("--allow-backing", action="store_true", help="open backing files outside of its folder, too")
    parser.add_argument("-k", "--socket", metavar="PATH", help="listen on a Unix socket")
    parser.add_argument("-b", "--address", metavar="HOST", help="listen on TCP, at this address (127.0.0.1)")
    parser.add_argument("-p", "--port", type=int, metavar="PORT", help=f"and this port ({PORT}; 0: any that is free)")
    parser.add_argument("-x", "--export", default="", metavar="NAME", help="name of the export; empty means it, too")
    parser.add_argument("-D", "--description", default="", metavar="TEXT", help="what clients are told of it")
    parser.add_argument("-e", "--clients", type=images.count, default=CLIENTS, metavar="N", help=f"at once ({CLIENTS})")
    parser.add_argument("--once", action="store_true", help="end when the last client has gone")
    parser.add_argument("--tls-cert", metavar="FILE", help="TLS only, with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="the certificate's key, if it is not in the same file")
    parser.add_argument("--tls-ca", metavar="FILE", help="clients must have a certificate of this authority")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell of clients on standard error")
    parser.add_argument("image", metavar="IMAGE")
    return parser


def main(words: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    from dbt.run import report

    try:
        options = build().parse_args(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    try:
        return serve(options)
    except DragomanError as error:
        return report(error)


def serve(options: argparse.Namespace) -> int:
    """Serve until told to end."""
    if options.socket and (options.address or options.port is not None):
        raise UsageError("nbd: a Unix socket or TCP?", "Give -k, or -b and -p.")
    if (options.tls_key or options.tls_ca) and not options.tls_cert:
        raise UsageError("nbd: TLS needs a certificate", "Give --tls-cert.")
    if len(options.export.encode()) > 4096 or len(options.description.encode()) > 4096:
        raise UsageError("nbd: names and descriptions have 4096 bytes at most")
    tls = server_context(options.tls_cert, options.tls_key, options.tls_ca) if options.tls_cert else None
    opened = images.open_source if options.read_only else images.open_target
    disk = images.queue(opened(options, options.image, options.format), workers=8)
    try:
        port = PORT if options.port is None else options.port
        listener = listen_unix(options.socket) if options.socket else listen_tcp(options.address or "127.0.0.1", port)
        server = Server(
            disk, listener, name=options.export, description=options.description, tls=tls, clients=options.clients,
            once=options.once, log=_log if options.verbose else lambda _: None,
        )  # fmt: skip
        try:
            _until_told(server, _uri(options, listener.getsockname()))
        finally:
            if options.socket:
                os.unlink(options.socket)
    finally:
        disk.close()
    return 0


def _until_told(server: Server, uri: str) -> None:
    def end(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in signals]
    try:
        sys.stdout.write(f"{uri}\n")
        sys.stdout.flush()
        server.serve()
    except KeyboardInterrupt:
        server.stop()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _log(text: str) -> None:
    sys.stderr.write(f"dragoman: {text}\n")


def _uri(options: argparse.Namespace, address: str | tuple[str, int]) -> str:
    from urllib.parse import quote

    secure = "nbds" if options.tls_cert else "nbd"
    export = quote(options.export, safe="")
    if isinstance(address, str):
        return f"{secure}+unix:///{export}?socket={quote(address)}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{secure}://{host}:{address[1]}/{export}"
