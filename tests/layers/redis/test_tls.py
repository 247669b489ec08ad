"""TLS: trust in certificates, checks of host names, client certificates; with a CA of the tests' own.

The server is the tests' own proxy in front of a redis-server, and a redis-server itself if it was built with TLS.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from trio_channels.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.connection import ConnectionLost, open_connection
from trio_channels.layers.redis.hosts import Host, parse_host

from ...ports import free_port
from ...redis_server import CLUSTER_BUS, RedisServer, speaks_tls
from ...redis_setups import ClusterSetup, SentinelSetup
from .proxy import open_proxy
from .world import make_layers, traffic, until

pytestmark = pytest.mark.slow

PASSWORD = "hunter2"


class Certificates:
    """A CA, and the certificates that it has signed, as files.

    Attributes:
        ca: the CA's certificate.
        client: a client's certificate and key, in one file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = trustme.CA()
        self.ca = self._write("ca.pem", self.authority.cert_pem)
        client = self.authority.issue_cert("a-client@example.org")
        self.client_blob = client.private_key_and_cert_chain_pem
        self.client = self._write("client.pem", self.client_blob)
        self.client_certificate = self._write("client-certificate.pem", client.cert_chain_pems[0])
        locked = load_pem_private_key(client.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
        )
        self.locked_key = self._write("locked-key.pem", trustme.Blob(locked))

    def _write(self, name: str, blob: trustme.Blob) -> str:
        path = self._folder / name
        blob.write_to_path(str(path))
        return str(path)

    def server(self, *names: str) -> tuple[str, str]:
        """The paths of a certificate for these names and of its key."""
        issued = self.authority.issue_cert(*names)
        certificate = self._write("server.pem", issued.cert_chain_pems[0])
        return certificate, self._write("server-key.pem", issued.private_key_pem)


Serve = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def serve_by_proxy(
    certificates: Certificates, plain: RedisServer, *names: str, wants_certificate: bool = False
) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(*certificates.server(*names))
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    async with open_proxy(plain.port, context) as proxy:
        yield proxy.port


@asynccontextmanager
async def serve_by_redis(
    certificates: Certificates, _plain: RedisServer, *names: str, wants_certificate: bool = False
) -> AsyncIterator[int]:
    port = free_port()
    certificate, key = certificates.server(*names)
    server = RedisServer(
        *("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key),
        *("--tls-ca-cert-file", certificates.ca, "--tls-auth-clients", "yes" if wants_certificate else "no"),
    )
    try:
        server.start()
        yield port
    finally:
        server.close()


SERVERS = {"proxy": serve_by_proxy} | ({"redis": serve_by_redis} if speaks_tls() else {})


@pytest.fixture(
    params=["proxy", *(pytest.param(name, marks=pytest.mark.faults) for name in SERVERS if name != "proxy")]
)
def serve(request: pytest.FixtureRequest, certificates: Certificates, redis_server: RedisServer) -> Serve:
    """Starts a server that speaks TLS, with a certificate for these names; its block gets the port."""

    def start(*names: str, **options: Any) -> AbstractAsyncContextManager[int]:
        return SERVERS[request.param](certificates, redis_server, *names, **options)

    return start


async def check_that_it_works(host: Any) -> None:
    [layer] = make_layers(host)
    async with layer, traffic([layer]) as world:
        await world.publish(5)
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}


async def ping(host: Any, patience: float = 10) -> Any:
    """Connect and ping: with TLS 1.3, a refused client learns of the refusal from the first answer only."""
    connection = await open_connection(host if isinstance(host, Host) else parse_host(host), patience)
    try:
        [reply] = await connection.exchange(("PING",))
    finally:
        await connection.aclose()
    return reply.decode()


async def refusal_of(host: Any, patience: float = 10) -> str:
    """The error of a connection that fails."""
    with pytest.raises(ConnectionLost) as caught:
        await ping(host, patience)
    return str(caught.value)


# -- the server's certificate -----------------------------------------------------------------------------------------


async def test_server_of_the_right_name_with_a_trusted_certificate(serve: Serve, certificates: Certificates) -> None:
    async with serve("localhost", "127.0.0.1") as port:
        await check_that_it_works(f"rediss://localhost:{port}?ssl_ca_certs={certificates.ca}")
        await check_that_it_works({"host": "127.0.0.1", "port": port, "ssl": True, "ssl_ca_certs": certificates.ca})


async def test_another_host_name_is_refused_unless_not_checked(serve: Serve, certificates: Certificates) -> None:
    async with serve("redis.example.org") as port:
        uri = f"rediss://localhost:{port}?ssl_ca_certs={certificates.ca}"
        [layer] = make_layers(uri, timeout=1)
        with pytest.raises(ChannelLayerUnavailable, match="certificate is not valid for 'localhost'"):
            async with layer:
                pytest.fail("opened")
        assert await ping(f"{uri}&ssl_check_hostname=false") == "PONG"


async def test_untrusted_certificate_is_refused_unless_not_checked(serve: Serve) -> None:
    async with serve("localhost") as port:
        assert "certificate verify failed" in await refusal_of(f"rediss://localhost:{port}")
        assert await ping(f"rediss://localhost:{port}?ssl_cert_reqs=none") == "PONG"


async def test_server_that_does_not_speak_tls_is_a_clear_error(redis_server: RedisServer) -> None:
    error = await refusal_of(f"rediss://127.0.0.1:{redis_server.port}?ssl_cert_reqs=none", 0.3)
    assert f"Redis at 127.0.0.1:{redis_server.port} did not answer" in error  # Redis waits for the end of a line


# -- the client's certificate -----------------------------------------------------------------------------------------


async def test_server_that_wants_a_certificate_gets_one(serve: Serve, certificates: Certificates) -> None:
    async with serve("localhost", wants_certificate=True) as port:
        uri = f"rediss://localhost:{port}?ssl_ca_certs={certificates.ca}"
        assert f"localhost:{port}" in await refusal_of(uri)
        await check_that_it_works(f"{uri}&ssl_certfile={certificates.client}")
        locked = {"ssl_certfile": certificates.client_certificate, "ssl_keyfile": certificates.locked_key}
        assert await ping({"address": uri, "ssl_password": PASSWORD, **locked}) == "PONG"


@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_key_password_is_refused_without_a_prompt(certificates: Certificates, password: str | None) -> None:
    entry = {
        "address": "rediss://localhost",
        "ssl_certfile": certificates.client_certificate,
        "ssl_keyfile": certificates.locked_key,
        "ssl_password": password,
    }
    with pytest.raises(InvalidChannelLayerError, match=certificates.locked_key):
        RedisStreamsChannelLayer(hosts=[entry])


async def test_renewed_certificate_is_used_for_the_next_connection(
    serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    stranger = trustme.CA().issue_cert("a-client@example.org").private_key_and_cert_chain_pem
    current = tmp_path / "current.pem"
    stranger.write_to_path(str(current))
    async with serve("localhost", wants_certificate=True) as port:
        host = parse_host(f"rediss://localhost:{port}?ssl_ca_certs={certificates.ca}&ssl_certfile={current}")
        await refusal_of(host)
        certificates.client_blob.write_to_path(str(current))
        assert await ping(host) == "PONG"


# -- faults -----------------------------------------------------------------------------------------------------------


def tls_of(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates.server("localhost", "127.0.0.1"))
    return context


async def test_connection_that_is_cut_again_and_again_costs_nothing(
    certificates: Certificates, redis_server: RedisServer
) -> None:
    async with open_proxy(redis_server.port, tls_of(certificates)) as proxy:
        uri = f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificates.ca}"
        first, second = make_layers(uri, uri)
        async with first, second, traffic([first, second], groups=("one", "two")) as world:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.publish, 100)
                for number in range(5):
                    await until(lambda number=number: world.delivered > 400 * number)
                    proxy.cut()
            proxy.lose_reply_to(b"stamped.message")
            await world.publish(3)
            await world.settle()
            assert proxy.lost_replies == 1
            assert world.checker.faults() == []
            assert world.gaps == {}


async def test_black_hole_raises_in_time(certificates: Certificates, redis_server: RedisServer) -> None:
    async with open_proxy(redis_server.port, tls_of(certificates)) as proxy:
        [layer] = make_layers(f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificates.ca}", timeout=1)
        async with layer:
            proxy.stall()
            with trio.fail_after(20), pytest.raises(ChannelLayerUnavailable, match=r"within 1 seconds"):
                await layer.group_send("room", {"type": "x"})


# -- with sentinels and clusters --------------------------------------------------------------------------------------


async def test_sentinels_speak_tls_where_they_are_told_to(
    certificates: Certificates, redis_server: RedisServer
) -> None:
    with SentinelSetup() as setup:
        async with open_proxy(setup.sentinels[0].port, tls_of(certificates)) as proxy:
            await check_that_it_works(
                {
                    "sentinels": [("localhost", proxy.port)],
                    "master_name": setup.host["master_name"],
                    "sentinel_kwargs": {"ssl": True, "ssl_ca_certs": certificates.ca},
                }
            )


if "redis" in SERVERS:

    @pytest.mark.faults
    async def test_nodes_of_a_cluster_speak_tls(certificates: Certificates, redis_server: RedisServer) -> None:
        port = free_port(CLUSTER_BUS)
        certificate, key = certificates.server("127.0.0.1")
        options = (
            *("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key),
            *("--tls-ca-cert-file", certificates.ca, "--tls-auth-clients", "no", "--tls-cluster", "yes"),
        )
        with ClusterSetup(*options, masters=1):
            uri = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates.ca}"
            [layer] = make_layers({"cluster": [uri]})
            async with layer:
                [address] = {shard.reader._address for shard in layer._session().shards}
                assert address == ("127.0.0.1", port)
