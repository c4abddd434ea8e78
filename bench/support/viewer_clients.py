"""Viewers of one stream of server-sent events, in a process of their own: standard library only.

`python bench/support/viewer_clients.py PORT PATH TOKEN COUNT LAST_STEP` prints `ready` once every viewer is following.
When the last step has reached all viewers, or all streams have ended, it prints as JSON the instants (of
time.monotonic) at which each step reached viewers.
"""

import asyncio
import json
import sys
from collections import defaultdict

AT_ONCE = 40  # connections that wait for the curve so far

Arrivals = dict[int, list[float]]


async def follow(
    port: int, path: str, token: str, admitted: asyncio.Semaphore, arrivals: Arrivals, last_step: int
) -> asyncio.Task[None]:
    """Open a stream; answers the task that reads it, once the curve so far has arrived."""
    async with admitted:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        status = await reader.readline()
        assert b" 200 " in status, status
        while not (await reader.readline()).startswith(b"event: curve"):
            pass  # pings come before it
    return asyncio.create_task(read(reader, writer, arrivals, last_step))


async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, arrivals: Arrivals, last_step: int) -> None:
    """Note when each point of the loss arrives, until the last one has or the stream ends."""
    clock, event, steps = asyncio.get_running_loop().time, b"", list[int]()
    while last_step not in steps and (line := await reader.readline()):
        if line.startswith(b"event:"):
            event = line
        elif event.startswith(b"event: points") and line.startswith(b"data:"):
            now, steps = clock(), json.loads(line[5:])["series"]["loss"]["steps"]
            for step in steps:
                arrivals[step].append(now)
    writer.close()


async def main(port: int, path: str, token: str, count: int, last_step: int) -> None:
    """Follow until all viewers have the last step."""
    arrivals: Arrivals = defaultdict(list)
    admitted = asyncio.Semaphore(AT_ONCE)
    tasks = await asyncio.gather(
        *(follow(port, path, token, admitted, arrivals, last_step) for _number in range(count))
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*tasks)
    sys.stdout.write(json.dumps(arrivals))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
