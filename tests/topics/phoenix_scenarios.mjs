// The scenarios of the client "phoenix" from npm, in Node and in browsers, over WebSocket and long-polling.

export let assert, Socket, Presence, LongPoll, url, longPolling

// The parts that the runner has: the client's classes, assertions, the address, and whether to use long-polling.
export function prepare(parts){
  ({assert, url, longPolling} = parts);
  ({Socket, Presence, LongPoll} = parts.phoenix)
}

const sockets = []

function connect(options = {}){
  const transport = longPolling ? {transport: LongPoll} : {}
  const socket = new Socket(url, {rejoinAfterMs: () => 10, reconnectAfterMs: () => 10, ...transport, ...options})
  sockets.push(socket)
  socket.connect()
  return socket
}

// The first answer to a join or push: [status, response].
function answer(push){
  return new Promise(resolve => {
    for(const status of ["ok", "error", "timeout", "end"]){
      push.receive(status, response => resolve([status, response]))
    }
  })
}

function next(channel, event){
  return new Promise(resolve => {
    const ref = channel.on(event, payload => { channel.off(event, ref); resolve(payload) })
  })
}

// The reply to the next join of a channel that has joined already; receive() calls back at once for the last one.
function rejoined(channel){
  return new Promise(resolve => {
    let registered = false
    channel.joinPush.receive("ok", response => { if(registered){ resolve(response) } })
    registered = true
  })
}

const once = subscribe => new Promise(resolve => subscribe(resolve))
// The client takes no binary message by long-polling: there the payload is a string in base64.
const text = payload => longPolling ? atob(payload) : new TextDecoder().decode(payload)
const bytes = string => new TextEncoder().encode(string).buffer

async function joined(topic, params = {}, socket = connect()){
  const channel = socket.channel(topic, params)
  const [status, response] = await answer(channel.join())
  assert.equal(status, "ok")
  channel.joinReply = response
  return channel
}

export const scenarios = {
  async join(){
    assert.deepEqual((await joined("room:lobby", {x: 1})).joinReply, {room: "lobby"})
  },

  async refusal(){
    const socket = connect()
    const channel = socket.channel("room:lobby", {refuse: "full"})
    assert.deepEqual(await answer(channel.join()), ["error", {reason: "full"}])
    channel.leave()
    const unknown = socket.channel("rom:lobby")
    assert.deepEqual(await answer(unknown.join()), ["error", {reason: "unmatched topic"}])
    unknown.leave()
  },

  async repliesInOrder(){
    const channel = await joined("room:lobby")
    const order = []
    await Promise.all(Array.from({length: 60}, (_, n) => new Promise(resolve => {
      channel.push("echo", {n}).receive("ok", ({n}) => { order.push(n); resolve() })
    })))
    assert.deepEqual(order, Array.from({length: 60}, (_, n) => n))
  },

  async pushesBeforeTheJoin(){
    const channel = connect().channel("room:lobby")
    channel.join()
    assert.deepEqual(await answer(channel.push("echo", {n: 1})), ["ok", {n: 1}])
  },

  async errorReplies(){
    const channel = await joined("room:lobby")
    assert.deepEqual(await answer(channel.push("refuse")), ["error", {reason: "not now"}])
    assert.deepEqual(await answer(channel.push("no.such")), ["error", {reason: "unmatched event"}])
    const [status, response] = await answer(channel.push("message.new", {text: 1}))
    assert.deepEqual([status, response.reason, response.at], ["error", "invalid payload", "$.text"])
  },

  async timeOut(){
    const channel = await joined("room:lobby")
    assert.equal((await answer(channel.push("wait", {}, 50)))[0], "timeout")
    const other = await joined("room:other", {}, channel.socket)
    assert.deepEqual(await answer(other.push("echo", {n: 1})), ["ok", {n: 1}])
    other.push("open", {})
    assert.deepEqual(await answer(channel.push("echo", {n: 2})), ["ok", {n: 2}])
  },

  async joinTimeOut(){
    const socket = connect()
    const other = await joined("room:other", {}, socket)
    const channel = socket.channel("slow:lobby")
    const push = channel.join(50)
    assert.equal((await answer(push))[0], "timeout")
    other.push("open", {})
    await once(resolve => push.receive("ok", resolve))
    assert.equal(channel.state, "joined")
  },

  async crashAndRejoin(){
    const channel = await joined("room:lobby")
    const other = await joined("room:other", {}, channel.socket)
    const failed = once(resolve => channel.onError(resolve))
    const again = rejoined(channel)
    channel.push("crash")
    await failed
    await again
    assert.deepEqual(await answer(channel.push("echo", {n: 1})), ["ok", {n: 1}])
    assert.equal(other.state, "joined")
  },

  async leave(){
    const channel = await joined("room:lobby")
    const closed = once(resolve => channel.onClose(resolve))
    assert.equal((await answer(channel.leave()))[0], "ok")
    await closed
    assert.equal(channel.state, "closed")
    await joined("room:lobby", {}, channel.socket)
  },

  async closeByTheServer(){
    const channel = await joined("room:lobby")
    const closed = once(resolve => channel.onClose(resolve))
    channel.push("stop")
    await closed
    assert.equal(channel.state, "closed")
  },

  async secondChannelReplacesTheFirst(){
    const first = await joined("room:lobby")
    const closed = once(resolve => first.onClose(resolve))
    const second = await joined("room:lobby", {}, first.socket)
    await closed
    assert.deepEqual([first.state, second.state], ["closed", "joined"])
    assert.deepEqual(await answer(second.push("echo", {n: 1})), ["ok", {n: 1}])
  },

  async heartbeats(){
    const socket = connect({heartbeatIntervalMs: 20})
    let beats = 0
    await once(resolve => socket.onMessage(({topic, event}) => {
      if(topic === "phoenix" && event === "phx_reply" && ++beats === 5){ resolve() }
    }))
    assert.equal(socket.isConnected(), true)
    await once(resolve => socket.ping(resolve))
  },

  async broadcasts(){
    const [one, two] = [await joined("room:lobby"), await joined("room:lobby")]
    const got = Promise.all([next(one, "message.new"), next(two, "message.new")])
    assert.deepEqual(await answer(one.push("message.new", {text: "hé"})), ["ok", {text: "hé", length: 2}])
    assert.deepEqual(await got, [{text: "hé"}, {text: "hé"}])
    one.on("others", () => assert.fail("broadcast_from came back"))
    const others = next(two, "others")
    await answer(one.push("others", {n: 1}))
    assert.deepEqual(await others, {n: 1})
    await answer(one.push("echo"))
  },

  async binary(){
    const [one, two] = [await joined("room:lobby"), await joined("room:lobby")]
    const [status, response] = await answer(one.push("bytes", bytes("abc")))
    assert.deepEqual([status, text(response)], ["ok", "cba"])
    const pushed = next(one, "pushed")
    await answer(one.push("push", bytes("to me")))
    assert.equal(text(await pushed), "to me")
    const told = next(two, "binary")
    one.push("tell.binary", bytes("to all"))
    assert.equal(text(await told), "to all")
  },

  async streams(){
    const channel = await joined("room:lobby")
    const all = []
    const ended = once(resolve => channel.on("phx_reply", payload => {
      all.push(payload)
      if(payload.status === "end"){ resolve() }
    }))
    assert.deepEqual(await answer(channel.push("count", 2)), ["ok", {n: 0}])
    await ended
    assert.deepEqual(all.map(({status, response}) => [status, response.n]), [["ok", 0], ["ok", 1], ["end", undefined]])
  },

  async presence(){
    const ada = connect().channel("here:lobby", {key: "ada", meta: {at: "home"}})
    const presence = new Presence(ada)
    const joins = [], leaves = []
    presence.onJoin((key, current, joined) => joins.push([key, joined.metas.length]))
    presence.onLeave((key, current, left) => leaves.push([key, current.metas.length, left.metas.length]))
    const synced = until => once(resolve => presence.onSync(() => { if(until()){ resolve() } }))
    const keys = () => presence.list(key => key).sort().join()
    const first = synced(() => keys() === "ada")
    await answer(ada.join())
    await first
    assert.deepEqual(presence.list((key, {metas}) => metas[0].at), ["home"])

    const both = synced(() => keys() === "ada,bob")
    const bob = await joined("here:lobby", {key: "bob"})
    await both
    const twice = synced(() => presence.state.bob.metas.length === 2)
    const tab = await joined("here:lobby", {key: "bob"})
    await twice
    const lessOne = synced(() => presence.state.bob.metas.length === 1)
    tab.leave()
    await lessOne
    const alone = synced(() => keys() === "ada")
    bob.socket.disconnect()
    await alone
    assert.deepEqual(joins.map(([key]) => key), ["ada", "bob", "bob"])
    assert.deepEqual(leaves, [["bob", 1, 1], ["bob", 0, 1]])
  },

  async resume(){
    let position = null
    const channel = connect().channel("kept:lobby", () => ({since: position}))
    const [status, response] = await answer(channel.join())
    assert.deepEqual([status, response.recovered], ["ok", false])
    position = response.position
    const got = []
    const all = once(resolve => channel.on("told", ({n}) => { if(got.push(n) === 3){ resolve() } }))
    const again = rejoined(channel)
    const other = await joined("kept:lobby")
    channel.socket.conn.close()
    for(const n of [1, 2, 3]){ await answer(other.push("tell", {n})) }
    assert.deepEqual(await again, {recovered: true, position})
    await all
    assert.deepEqual(got, [1, 2, 3])
  },

  async reconnect(){
    const channel = await joined("room:lobby")
    const again = rejoined(channel)
    channel.push("close.socket")
    await again
    assert.deepEqual(await answer(channel.push("echo", {n: 1})), ["ok", {n: 1}])
  },

  async authToken(){
    const channel = await joined("room:lobby", {}, connect({authToken: "secret", params: {user: "ada"}}))
    assert.deepEqual(await answer(channel.push("who")), ["ok", {token: "secret", user: "ada"}])
  },

  async otherVersion(){
    const socket = connect({vsn: "1.0.0", reconnectAfterMs: () => 60_000})
    await once(resolve => socket.onError(resolve))
    assert.equal(socket.isConnected(), false)
  },

  async fallback(){
    const socket = connect({transport: undefined, longPollFallbackMs: 200, sessionStorage: undefined})
    const channel = await joined("room:lobby", {}, socket)
    assert.equal(socket.transport, LongPoll)
    assert.deepEqual(await answer(channel.push("echo", {n: 1})), ["ok", {n: 1}])
  },

  async floodingAndSlowTopics(){
    const flood = await joined("room:flood")
    const calm = await joined("room:calm", {}, flood.socket)
    const slow = flood.socket.channel("slow:lobby")
    const join = slow.join()
    const floods = Array.from({length: 1000}, () => answer(flood.push("wait")))
    for(const n of [1, 2, 3]){ assert.deepEqual(await answer(calm.push("echo", {n})), ["ok", {n}]) }
    assert.equal(slow.state, "joining")
    calm.push("open")
    const refused = (await Promise.all(floods)).filter(([status]) => status === "error")
    assert.ok(refused.length >= 1000 - 65 && refused.length < 1000, `${refused.length} pushes were refused`)
    assert.deepEqual(refused[0], ["error", {reason: "too many pushes are waiting"}])
    assert.equal((await answer(join))[0], "ok")
  },

  async thousandTopics(){
    const socket = connect()
    const channels = await Promise.all(Array.from({length: 1000}, (_, n) => joined(`room:${n}`, {}, socket)))
    const replies = await Promise.all(channels.map((channel, n) => answer(channel.push("echo", {n}))))
    assert.deepEqual(replies.map(([status, {n}]) => [status, n]), channels.map((_, n) => ["ok", n]))
  },
}

export async function run(scenario){
  await scenarios[scenario]()
  sockets.forEach(socket => socket.disconnect())
}
