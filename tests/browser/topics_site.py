"""A site whose page runs the scenarios of the client ``phoenix``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import trio
from django.urls import path

from tests.topics.phoenix_client import SCRIPT
from tests.topics.phoenix_site import Lobby, applications
from trio_channels.routing import ProtocolTypeRouter, URLRouter

from .topics_settings import ALLOWED_HOSTS

PAGE = """<!doctype html>
<title>phoenix</title>
<script type="module">
import * as phoenix from "/phoenix.mjs"
import {prepare, run} from "/scenarios.mjs"

function same(one, other){
  if(typeof one !== "object" || one === null || typeof other !== "object" || other === null){ return one === other }
  const names = Object.keys(one)
  return names.length === Object.keys(other).length && names.every(name => same(one[name], other[name]))
}

function ok(holds, message){ if(!holds){ throw new Error(message) } }

const assert = {
  ok,
  equal: (one, other) => ok(one === other, `expected ${other}; got ${one}`),
  deepEqual: (one, other) => ok(same(one, other), `expected ${JSON.stringify(other)}; got ${JSON.stringify(one)}`),
  fail: message => ok(false, message),
}

window.scenario = async (name, transport, host) => {
  const path = name === "fallback" ? "blocked" : "socket"
  prepare({assert, phoenix, url: `ws://${host}/${path}`, longPolling: transport === "longpoll"})
  await run(name)
  return "passed"
}
window.phoenix = phoenix
document.title = "ready"
</script>
"""


async def page(scope: Any, receive: Any, send: Any) -> None:
    """The page. It begins a scenario, with the topic's gate closed."""
    Lobby.gate = trio.Event()
    await respond(send, b"text/html", PAGE.encode())


def module(file: Path) -> Any:
    content = file.read_bytes()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"text/javascript", content)

    return serve


async def respond(send: Any, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


served = applications(ALLOWED_HOSTS)
pages = [
    path("", page),
    path("phoenix.mjs", module(Path(os.environ["PHOENIX"]))),
    path("scenarios.mjs", module(SCRIPT)),
]
application = ProtocolTypeRouter({**served, "http": URLRouter([*pages, path("", served["http"])])})
