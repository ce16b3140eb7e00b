"""A serial wire made of pseudo terminals, as it behaves when one end comes and goes.

Bytes sent while nobody has the other end open are gone, as on a real line.
"""

import errno
import os
import select
import termios
import threading
import time
import tty

CHUNK = 4096
# How soon an end that nobody has open is looked at again.
UNPLUGGED_POLL_S = 0.01


class End:
    """One end of a wire: the path is for the user, the master for the wire."""

    def __init__(self, link=None):
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self.master, False)
        if link:
            if os.path.islink(link):
                os.unlink(link)
            os.symlink(self.path, link)

    def _is_open(self):
        looked = select.poll()
        looked.register(self.master, 0)
        return not any(event & select.POLLHUP for _, event in looked.poll(0))

    def send(self, data):
        """Send to whoever has this end open; false when nobody took it."""
        if not self._is_open():
            # The kernel would keep the bytes for the next one who opens.
            termios.tcflush(self.master, termios.TCOFLUSH)
            return False
        try:
            return os.write(self.master, data) == len(data)
        except BlockingIOError:
            return False

    def receive(self):
        """Wait for bytes from whoever has this end open; empty when nobody has."""
        try:
            select.select([self.master], [], [])
            return os.read(self.master, CHUNK)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EAGAIN):
                raise
            time.sleep(UNPLUGGED_POLL_S)
            return b""


def _carry(source, destination):
    while True:
        data = source.receive()
        if data:
            destination.send(data)


def pair(link):
    """Lay a wire whose far end appears at `link`; returns the path of the near end."""
    near, far = End(), End(link)
    for source, destination in ((near, far), (far, near)):
        threading.Thread(target=_carry, args=(source, destination), daemon=True).start()
    return near.path
