import asyncio

waiting = asyncio.Queue()
limit = asyncio.Semaphore(2)


async def size():
    async with limit:
        return waiting.qsize()


async def read(path):
    return await asyncio.to_thread(path.read_text, encoding="utf-8")
