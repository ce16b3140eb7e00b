"""A Modbus device by pymodbus, on a serial wire, on TCP or, with `--tls`, as Modbus/TCP Security demands.

A quantity is `NAME=TABLE:ADDRESS:FORMAT:ORDER:START:STEP`: FORMAT is a letter of Python's `struct`,
or `?` for one bit, or a length and `s` for text. Each read that covers it moves it one STEP, so that
every reading is told from every other; STEP 0 keeps what was written. Registers without a quantity
do not exist: reading them is answered with exception 2.

Function codes after `--unknown` are answered with exception 1.

Emits `ready`, `served` with the values of one answer, and `written` with its function for each write.
"""

import argparse
import asyncio
import ssl
import struct
from dataclasses import dataclass

from pymodbus import ModbusDeviceIdentification
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from events import emit
from wire import pair

TABLES = ("coil", "discrete", "holding", "input")
IDENTITY = ModbusDeviceIdentification(
    info_name={"VendorName": "Stand-in", "ProductCode": "MTR-7", "MajorMinorRevision": "1.2"}
)
READS = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
WRITES = {5: "coil", 6: "holding", 15: "coil", 16: "holding", 22: "holding", 23: "holding"}


@dataclass
class Quantity:
    name: str
    table: str
    address: int
    format: str
    order: str
    value: object
    step: float

    @classmethod
    def parse(cls, text):
        name, rest = text.split("=", 1)
        table, address, form, order, start, step = rest.split(":")
        if form.endswith("s"):
            value = start.encode("ascii")
        elif form in "fd":
            value = float(start)
        else:
            value = int(start)
        number = float(step) if form in ("f", "d") else int(step)
        return cls(name, table, int(address), form, order, value, number)

    @property
    def is_bit(self):
        return self.format == "?"

    @property
    def length(self):
        return 1 if self.is_bit else struct.calcsize(">" + self.format) // 2

    def advance(self):
        if self.is_bit:
            self.value = (self.value + self.step) % 2
        elif self.format in ("f", "d"):
            self.value = round(self.value + self.step, 6)
        else:
            self.value += self.step

    def _arrange(self, data):
        if self.order in ("BADC", "DCBA"):
            data = b"".join(data[i + 1 : i + 2] + data[i : i + 1] for i in range(0, len(data), 2))
        if self.order in ("CDAB", "DCBA"):
            words = [data[i : i + 2] for i in range(0, len(data), 2)]
            data = b"".join(reversed(words))
        return data

    def registers(self):
        data = self._arrange(struct.pack(">" + self.format, self.value))
        return list(struct.unpack(f">{self.length}H", data))

    def truth(self, registers):
        data = self._arrange(struct.pack(f">{self.length}H", *registers))
        value = struct.unpack(">" + self.format, data)[0]
        if isinstance(value, bytes):
            return value.rstrip(b"\0 ").decode("ascii")
        return float(f"{value:.7g}") if self.format == "f" else value


class Device:
    def __init__(self, unit, quantities, unknown=()):
        self.quantities = quantities
        self.unknown = unknown
        blocks = tuple(self._block(table) for table in TABLES)
        self.simulated = SimDevice(id=unit, simdata=blocks, action=self.on_request)

    def _block(self, table):
        mine = sorted((q for q in self.quantities if q.table == table), key=lambda q: q.address)
        if table in ("coil", "discrete"):
            top = max((q.address for q in mine), default=0)
            bits = [False] * (top // 16 * 16 + 16)
            for quantity in mine:
                bits[quantity.address] = bool(quantity.value)
            return [SimData(0, values=bits, datatype=DataType.BITS)]
        data = [SimData(q.address, values=q.registers(), datatype=DataType.REGISTERS) for q in mine]
        return data or [SimData(65535, values=[0], datatype=DataType.REGISTERS)]

    async def on_request(self, function, start, address, count, registers, values):
        if function in self.unknown:
            return ExcCodes.ILLEGAL_FUNCTION
        if function in WRITES and values is not None:
            written = [int(value) for value in values]
            table = WRITES[function]
            emit("written", table=table, address=address, values=written, function=function)
        elif function in READS and values is None:
            self._serve(READS[function], start, address, count, registers)
        return None

    def _serve(self, table, start, address, count, registers):
        served = {}
        for quantity in self.quantities:
            if quantity.table != table:
                continue
            if quantity.is_bit:
                # Bits come in whole registers, so the request's own end is not known here.
                if address // 16 <= quantity.address // 16 < address // 16 + count:
                    served[quantity.name] = self._bit(quantity, start, registers)
            elif address <= quantity.address <= address + count - quantity.length:
                served[quantity.name] = self._words(quantity, start, registers)
        emit("served", table=table, address=address, count=count, values=served)

    @staticmethod
    def _bit(quantity, start, registers):
        index, bit = quantity.address // 16 - start, quantity.address % 16
        if quantity.step:
            registers[index] = registers[index] & ~(1 << bit) | quantity.value << bit
            quantity.advance()
        return bool(registers[index] >> bit & 1)

    @staticmethod
    def _words(quantity, start, registers):
        place = slice(quantity.address - start, quantity.address - start + quantity.length)
        if quantity.step:
            registers[place] = quantity.registers()
            quantity.advance()
        return quantity.truth(registers[place])


class OwnUnit(dict):
    """The devices of a line's end: other units are not answered for, not even by an exception."""

    def __missing__(self, unit):
        raise NoSuchIdException(f"unit {unit} is not here")


async def serve(arguments):
    quantities = [Quantity.parse(text) for text in arguments.quantity]
    device = Device(arguments.unit, quantities, arguments.unknown)
    if arguments.link:
        server = ModbusSerialServer(
            device.simulated,
            identity=IDENTITY,
            port=pair(arguments.link),
            baudrate=19200,
            parity="N",
            ignore_missing_devices=True,
        )
        server.context.devices = OwnUnit(server.context.devices)
    elif arguments.tls:
        ca, certificate, key = arguments.tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
        # pymodbus leaves the MBAP header out by default; the specification does not.
        server = ModbusTlsServer(
            device.simulated,
            framer=FramerType.SOCKET,
            address=("127.0.0.1", arguments.tcp),
            sslctx=context,
        )
    else:
        server = ModbusTcpServer(device.simulated, address=("127.0.0.1", arguments.tcp))
    await server.serve_forever(background=True)
    emit("ready")
    await server.serving


def main():
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--link")
    where.add_argument("--tcp", type=int)
    parser.add_argument("--tls", nargs=3, metavar=("CA", "CERTIFICATE", "KEY"))
    parser.add_argument("--unit", type=int, default=1)
    parser.add_argument("--quantity", action="append", default=[])
    parser.add_argument("--unknown", action="append", type=int, default=[])
    asyncio.run(serve(parser.parse_args()))


main()
