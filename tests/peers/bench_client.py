"""pymodbus' own client as a program would use it: bench_client.py PORT UNIT:ADDRESS:COUNT...

Reads the holding registers named, one request after the other, again and again until it is ended.
"""

import asyncio
import sys

from pymodbus.client import AsyncModbusTcpClient


async def main():
    client = AsyncModbusTcpClient("127.0.0.1", port=int(sys.argv[1]))
    if not await client.connect():
        sys.exit("no connection")
    reads = [tuple(map(int, text.split(":"))) for text in sys.argv[2:]]
    while True:
        for unit, address, count in reads:
            answer = await client.read_holding_registers(address, count=count, device_id=unit)
            if answer.isError() or len(answer.registers) != count:
                sys.exit(f"unit {unit}, {address}: {answer}")


asyncio.run(main())
