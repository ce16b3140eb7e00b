"""The updater's end of its socket, over slots in a JSON file that a test plays the boot loader with.

The file holds the updater's own status: booted, default, trial, slots, floor, work, trouble. Written with our own reading of
the messages: four bytes of length, most significant first, and so many bytes of JSON, once each way.
"""

import argparse
import json
import os
import socket
import struct

from events import emit


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def store(path, status):
    fresh = path + ".new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(status, file)
    os.rename(fresh, path)


def read(peer, count):
    data = b""
    while len(data) < count:
        piece = peer.recv(count - len(data))
        if not piece:
            raise ConnectionError("the peer went away")
        data += piece
    return data


def on_trial(status):
    return status["trial"] is not None and status["trial"]["slot"] == status["booted"]


def answer(path, ask):
    status = load(path)
    (word, arguments), = ask.items()
    if word == "status":
        return {"status": status}
    if word == "receipt":
        release = status["slots"][status["booted"]]["release"]
        return {"receipt": {"receipt": json.dumps({"statement": json.dumps({"merkle_root": release["root"]})})}}
    if word not in ("commit", "roll-back"):
        return {"done": {}}
    if not on_trial(status):
        return {"refused": {"why": "nothing is on trial", "security": False}}
    slot = status["booted"]
    release = status["slots"][slot]["release"]
    if word == "commit":
        status["slots"][slot] = {"state": "good", "release": release}
        status["default"] = slot
    else:
        status["slots"][slot] = {"state": "bad", "release": release, "reason": arguments["reason"]}
    status["trial"] = None
    store(path, status)
    return {"done": {}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--status", required=True)
    arguments = parser.parse_args()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(arguments.socket)
    listener.listen()
    emit("ready")
    while True:
        peer, _ = listener.accept()
        with peer:
            try:
                length, = struct.unpack(">I", read(peer, 4))
                request = json.loads(read(peer, length))
                assert request["version"] == 1, request
                reply = answer(arguments.status, request["ask"])
                body = json.dumps({"version": 1, "reply": reply}).encode()
                peer.sendall(struct.pack(">I", len(body)) + body)
                if "status" not in request["ask"]:
                    emit("asked", ask=request["ask"])
            except ConnectionError as error:
                emit("lost", why=str(error))


if __name__ == "__main__":
    main()
