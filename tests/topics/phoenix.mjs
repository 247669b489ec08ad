// The client "phoenix" from npm, as it is, against a server of the test: node phoenix.mjs <its module> <port> <scenario>.
// What it has beside the cases of tests/clients.

import assert from "node:assert/strict"
import {pathToFileURL} from "node:url"

const [module, port, scenario] = process.argv.slice(2)
const {Socket, Presence} = await import(pathToFileURL(module))

const sockets = []

function connect(options = {}){
  const socket = new Socket(`ws://127.0.0.1:${port}/socket`, {rejoinAfterMs: () => 10, reconnectAfterMs: () => 10, ...options})
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

const once = subscribe => new Promise(resolve => subscribe(resolve))

async function joined(topic, params = {}, socket = connect()){
  const channel = socket.channel(topic, params)
  const [status] = await answer(channel.join())
  assert.equal(status, "ok")
  return channel
}

const scenarios = {
  async pushesBeforeTheJoin(){
    const channel = connect().channel("room:lobby")
    channel.join()
    assert.deepEqual(await answer(channel.push("echo", {n: 1})), ["ok", {n: 1}])
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

  async onError(){
    const channel = await joined("room:lobby")
    const failed = once(resolve => channel.onError(resolve))
    channel.push("crash")
    await failed
  },

  async secondChannelReplacesTheFirst(){
    const first = await joined("room:lobby")
    const closed = once(resolve => first.onClose(resolve))
    const second = await joined("room:lobby", {}, first.socket)
    await closed
    assert.deepEqual([first.state, second.state], ["closed", "joined"])
    assert.deepEqual(await answer(second.push("echo", {n: 1})), ["ok", {n: 1}])
  },

  async ping(){
    const socket = (await joined("room:lobby")).socket
    assert.equal(typeof await once(resolve => socket.ping(resolve)), "number")
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

  async otherVersion(){
    const socket = connect({vsn: "1.0.0", reconnectAfterMs: () => 60_000})
    await once(resolve => socket.onError(resolve))
    assert.equal(socket.isConnected(), false)
  },
}

await scenarios[scenario]()
sockets.forEach(socket => socket.disconnect())
console.log("passed")
process.exit(0)
