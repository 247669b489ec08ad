"""The client that the tests of djangochannelsrestframework import."""

from contextlib import asynccontextmanager

from channels.testing import WebsocketCommunicator


class Communicator(WebsocketCommunicator):
    """A communicator that can read all that comes."""

    async def receive_many_json_from(self, timeout=1):
        """All messages, until none comes for a second."""
        messages = []
        while True:
            try:
                messages.append(await self.receive_json_from(timeout=timeout))
            except TimeoutError:
                return messages


@asynccontextmanager
async def connected_communicator(consumer, path="/testws/"):
    """A client of a consumer that has accepted it."""
    communicator = Communicator(consumer, path)
    connected, _ = await communicator.connect()
    assert connected
    yield communicator
    await communicator.disconnect()
