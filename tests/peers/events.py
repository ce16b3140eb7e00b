"""Events of a simulated device or client: one JSON object per line on standard output."""

import json
import sys
import threading
import time

_lock = threading.Lock()


def emit(event, **fields):
    """Print one event with the wall clock's time in seconds, unless `at` says when it was."""
    line = json.dumps({"event": event, "at": time.time(), **fields})
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
