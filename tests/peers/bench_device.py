"""A Modbus TCP device for measurements, by pymodbus: bench_device.py PORT.

Units 1 to 10 with 2000 holding registers each; each request adds one to the unit's register 0. Each
line on standard input is answered with what was served since the start:
{"requests": N, "registers": N}. Ends with its standard input.
"""

import asyncio
import json
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNITS = range(1, 11)
REGISTERS = 2000


class Served:
    def __init__(self):
        self.requests = 0
        self.registers = 0

    async def on_request(self, function, start, address, count, registers, values):
        self.requests += 1
        self.registers += count
        if start <= 0 < start + len(registers):
            registers[0 - start] = (registers[0 - start] + 1) % 65536

    def device(self, unit):
        data = [SimData(0, values=[unit] * REGISTERS, datatype=DataType.REGISTERS)]
        return SimDevice(id=unit, simdata=data, action=self.on_request)


async def main():
    served = Served()
    devices = [served.device(unit) for unit in UNITS]
    server = ModbusTcpServer(devices, address=("127.0.0.1", int(sys.argv[1])))
    await server.serve_forever(background=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        answer = {"requests": served.requests, "registers": served.registers}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
