"""The ThingsBoard gateway's SQLite storage by itself, driven as its main loop does, with nothing sent.

    thingsboard_store.py FOLDER append SECONDS BYTES
    thingsboard_store.py FOLDER drain MESSAGES BYTES

Prints one JSON object. A message counts as kept when another connection to the file sees it.
"""

import json
import logging
import sqlite3
import sys
import threading
import time

from thingsboard_gateway.storage.sqlite.sqlite_event_storage import SQLiteEventStorage

# Messages that it has taken and not yet written, at most: its queue has no bound.
WINDOW = 50_000
LOOK_S = 0.02


def number(path, key):
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith(key):
                return int(line.split()[1])
    raise SystemExit(f"{path} has no {key}")


def memory_kb():
    return number("/proc/self/status", "VmRSS:")


class Store:
    def __init__(self, folder):
        logger = logging.getLogger("storage")
        logger.addHandler(logging.NullHandler())
        logger.trace = lambda *_arguments, **_named: None
        self.storage = SQLiteEventStorage({"data_file_path": folder + "/"}, logger, threading.Event())
        self.reader = sqlite3.connect(folder + "/data.db", timeout=10)

    def kept(self):
        return self.reader.execute("SELECT count(*) FROM messages").fetchone()[0]

    def put(self, text):
        if not self.storage.put(text):
            raise SystemExit("the storage refuses a message")
        while self.storage.write_queue.qsize() > WINDOW:
            time.sleep(LOOK_S)


def append(store, seconds, size):
    text, sent = "x" * size, 0
    begun, written = time.monotonic(), number("/proc/self/io", "write_bytes:")
    while time.monotonic() - begun < seconds:
        for _ in range(100):
            store.put(text)
        sent += 100
    kept, took = store.kept(), time.monotonic() - begun
    while store.kept() < sent:
        time.sleep(LOOK_S)
    written = number("/proc/self/io", "write_bytes:") - written
    return {
        "rate": kept / took,
        "written_ratio": written / (sent * size),
        "memory_kb": memory_kb(),
    }


def drain(store, messages, size):
    for _ in range(messages):
        store.put("x" * size)
    while store.kept() < messages:
        time.sleep(LOOK_S)
    memory, taken, begun = [], 0, time.monotonic()
    while taken < messages:
        pack = store.storage.get_event_pack()
        store.storage.event_pack_processing_done()
        taken += len(pack)
        memory.append(memory_kb())
    return {
        "rate": taken / (time.monotonic() - begun),
        "start_kb": memory[0],
        "middle_kb": memory[len(memory) // 2],
        "end_kb": memory[-1],
    }


_, folder, work, amount, size = sys.argv
result = {"append": append, "drain": drain}[work](Store(folder), int(amount), int(size))
print(json.dumps(result), flush=True)
