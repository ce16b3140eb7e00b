"""A weighing scale on a serial line that answers `W` and takes `L <limit>`, line by line.

Each weight is another, so that a lost or repeated one shows. Every `--late`th answer to `W` comes
`--delay` seconds late. Emits `ready`, then `served` with the weight, and `written` with the limit
as it was sent.
"""

import argparse
import time

from events import emit
from wire import End


class Scale:
    def __init__(self, arguments):
        self.end = End(arguments.link)
        self.late = arguments.late
        self.delay = arguments.delay
        self.asked = 0

    def answer(self, line):
        """Do what the line says."""
        if line == b"W":
            self.weigh()
        elif line.startswith(b"L "):
            emit("written", value=line[2:].decode("ascii"))
            self.end.send(b"OK\r\n")
        else:
            emit("unknown", line=line.decode("latin-1"))
            self.end.send(b"ES\r\n")

    def weigh(self):
        self.asked += 1
        weight = f"{10 + self.asked / 100:.2f}"
        if self.late and self.asked % self.late == 0:
            time.sleep(self.delay)
        emit("served", weight=float(weight), asked=self.asked)
        self.end.send(f"S {weight:>8} kg\r\n".encode("ascii"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--link", required=True)
    parser.add_argument("--late", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    scale = Scale(parser.parse_args())
    emit("ready")
    pending = b""
    while True:
        pending += scale.end.receive()
        *lines, pending = pending.split(b"\r\n")
        for line in lines:
            scale.answer(line)


main()
