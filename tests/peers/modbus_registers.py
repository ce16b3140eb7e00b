"""A Modbus server by pymodbus as it comes: unit 1, 200 elements in each table.

Input and holding registers hold 1000 + address, discrete inputs and coils are set at odd addresses;
what is written stays. Emits `ready`.
"""

import argparse
import asyncio
import ssl

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from events import emit
from wire import pair

ELEMENTS = 208


def device():
    bits = [address % 2 == 1 for address in range(ELEMENTS)]
    words = [1000 + address for address in range(ELEMENTS)]
    tables = (
        [SimData(0, values=bits, datatype=DataType.BITS)],
        [SimData(0, values=bits, datatype=DataType.BITS)],
        [SimData(0, values=words, datatype=DataType.REGISTERS)],
        [SimData(0, values=words, datatype=DataType.REGISTERS)],
    )
    return SimDevice(id=1, simdata=tables)


async def serve(arguments):
    if arguments.link:
        server = ModbusSerialServer(
            device(), port=pair(arguments.link), baudrate=19200, parity="N"
        )
    elif arguments.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(arguments.tls[0])
        context.load_cert_chain(arguments.tls[1], arguments.tls[2])
        server = ModbusTlsServer(
            device(), address=("127.0.0.1", arguments.tcp), sslctx=context
        )
    else:
        framer = FramerType.RTU if arguments.rtu else FramerType.SOCKET
        server = ModbusTcpServer(
            device(), address=("127.0.0.1", arguments.tcp), framer=framer
        )
    await server.serve_forever(background=True)
    emit("ready")
    await server.serving


def main():
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--link")
    where.add_argument("--tcp", type=int)
    parser.add_argument("--rtu", action="store_true")
    parser.add_argument("--tls", nargs=3, metavar=("CA", "CERTIFICATE", "KEY"))
    asyncio.run(serve(parser.parse_args()))


main()
