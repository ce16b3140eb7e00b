"""A client that logs in by MQTT 5 enhanced authentication, with SCRAM-SHA-256 by scramp.

`keys PASSWORD` prints what a server keeps of the password; `connect` proves it to a broker,
twice over one connection, and tells events. Packets are written by hand: paho has no AUTH.
"""

import argparse
import base64
import socket
import struct
import sys

from scramp import ScramClient, ScramMechanism

from events import emit

METHOD = "SCRAM-SHA-256"
CONNECT, CONNACK, DISCONNECT, AUTH = 1, 2, 14, 15
SUCCESS, CONTINUE, AGAIN = 0x00, 0x18, 0x19


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def length(value):
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def properties(data):
    """Authentication method, and data if there are any."""
    block = b"\x15" + text(METHOD) + (b"\x16" + text(data) if data else b"")
    return length(len(block)) + block


class Wire:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def send(self, kind, body):
        self.socket.sendall(bytes([kind << 4]) + length(len(body)) + body)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError("the broker closed the connection")
            data += more
        return data

    def receive(self):
        kind = self.exactly(1)[0] >> 4
        size, shift = 0, 0
        while True:
            byte = self.exactly(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return kind, self.exactly(size)

    def connect(self, first):
        head = text("MQTT") + b"\x05\x02" + struct.pack("!H", 60)
        self.send(CONNECT, head + properties(first) + text("scram"))

    def auth(self, reason, data):
        self.send(AUTH, bytes([reason]) + properties(data))


def answer(kind, body):
    """The reason code and the authentication data of a CONNACK, AUTH or DISCONNECT."""
    at = 1 if kind == CONNACK else 0
    reason = body[at] if len(body) > at else SUCCESS
    block = body[at + 1 :]
    size, shift = 0, 0
    while block:
        byte, block = block[0], block[1:]
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    block, method, data = block[:size], None, b""
    while block:
        name, block = block[0], block[1:]
        if name in (0x15, 0x16, 0x1F, 0x12):
            (count,) = struct.unpack("!H", block[:2])
            value, block = block[2 : 2 + count], block[2 + count :]
            method = value.decode() if name == 0x15 else method
            data = value if name == 0x16 else data
        else:
            block = block[{0x11: 4, 0x21: 2, 0x27: 4, 0x22: 2, 0x13: 2, 0x24: 1, 0x25: 1}[name] :]
    if reason < 0x80 and kind != DISCONNECT and method != METHOD:
        raise ValueError(f"the answer names the method {method}")
    return reason, data


def prove(wire, user, password, begin, done):
    """One exchange; the reason code with which the broker ends it."""
    client = ScramClient([METHOD], user, password)
    begin(client.get_client_first().encode())
    kind, body = wire.receive()
    reason, data = answer(kind, body)
    if (kind, reason) != (AUTH, CONTINUE):
        return reason
    client.set_server_first(data.decode())
    wire.auth(CONTINUE, client.get_client_final().encode())
    kind, body = wire.receive()
    reason, data = answer(kind, body)
    if (kind, reason) == (done, SUCCESS):
        client.set_server_final(data.decode())  # raises unless the server knows the password too
    return reason


def connect(arguments):
    wire = Wire(arguments.port)
    user, password = arguments.user, arguments.password
    code = prove(wire, user, password, wire.connect, CONNACK)
    if code:
        return emit("refused", code=code)
    emit("connected")
    again = arguments.then or password
    code = prove(wire, user, again, lambda first: wire.auth(AGAIN, first), AUTH)
    emit("proved again" if code == SUCCESS else "sent away", code=code)


def keys(arguments):
    salt, stored, server, iterations = ScramMechanism(METHOD).make_auth_info(
        arguments.password, iteration_count=4096
    )
    salt, stored, server = (base64.b64encode(part).decode() for part in (salt, stored, server))
    print(f"{METHOD}${iterations}:{salt}${stored}:{server}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("keys")
    command.add_argument("password")
    command.set_defaults(run=keys)
    command = commands.add_parser("connect")
    command.add_argument("--port", type=int, required=True)
    command.add_argument("--user", required=True)
    command.add_argument("--password", required=True)
    command.add_argument("--then", help="another password, for proving oneself again")
    command.set_defaults(run=connect)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
