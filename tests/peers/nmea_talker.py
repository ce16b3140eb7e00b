"""A wind sensor that talks NMEA 0183 on a serial line: `$WIMWV` once an interval.

Each sentence bears another speed, so that a lost or repeated one shows. Emits `ready`, then `said`
with the sentence and its values, or `unheard` when nobody has the line open.
"""

import argparse
import time

from events import emit
from wire import End


def sentence(body):
    """Wrap a sentence's body in start, checksum and end (NMEA 0183, 5.3)."""
    checksum = 0
    for byte in body.encode("ascii"):
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--link", required=True)
    parser.add_argument("--interval", type=float, default=0.5)
    arguments = parser.parse_args()
    end = End(arguments.link)
    emit("ready")
    count = 0
    while True:
        time.sleep(arguments.interval)
        angle = (84 + count) % 360
        speed = round(5 + count * 0.1, 1)
        count += 1
        text = sentence(f"WIMWV,{angle:05.1f},R,{speed:.1f},M,A")
        begun = time.time()
        heard = end.send(text.encode("ascii"))
        emit(
            "served" if heard else "unheard",
            at=begun,
            sentence=text.strip(),
            values={"angle": float(angle), "speed": speed},
        )


main()
