"""A file server that speaks 9P2000.L, Linux's dialect of 9P: a folder of the host for a guest, confined to that folder.

    share = Share("/srv/guest", readonly=True)
    session = Session(share)
    reply = session.call(request)         # one message; the virtio device works on the guest's buffers instead

wire.py: messages, declared once; host.py: what the kernel is asked, never by a path from outside; places.py: names and
descriptors of what fids are at; fids.py: fids; session.py: messages in and out; operations.py: what they do.

No name of a guest is ever followed by the kernel as a path. A step is one name below a descriptor of a directory, which
follows no link; `..` is found in what was walked, not in the file system; and what is opened, changed or linked is the
very inode that was walked to, reached through its descriptor.
"""

from dbt.machine.ninep.host import Share
from dbt.machine.ninep.session import Exchange, Session

__all__ = ["Exchange", "Session", "Share"]
