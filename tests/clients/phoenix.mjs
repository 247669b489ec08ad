// The client "phoenix" from npm, as it is, against a server of the test: node phoenix.mjs <its module> <port> <case>.

import {readFileSync} from "node:fs"
import {pathToFileURL} from "node:url"
import {Queue, run} from "./steps.mjs"

const [module, port, name] = process.argv.slice(2)
const {Socket, Presence} = await import(pathToFileURL(module))

// The first answer to a push: [status, response].
const answer = push => new Promise(resolve => {
  for(const status of ["ok", "error", "timeout", "end"]){ push.receive(status, response => resolve([status, response])) }
})

function adapted(channel){
  return {
    push: (event, payload, timeout) => answer(channel.push(event, payload, timeout)),
    leave: () => answer(channel.leave()),
    stream(event, payload){
      const push = channel.push(event, payload), all = []
      return new Promise(resolve => {
        const ref = channel.on("phx_reply", ({status, response}, replyTo) => {
          if(replyTo !== push.ref){ return }
          all.push([status, response])
          if(status !== "ok"){ channel.off("phx_reply", ref); resolve(all) }
        })
      })
    },
  }
}

function connect(_, {params, token, heartbeat}){
  const socket = new Socket(`ws://127.0.0.1:${port}/socket`, {
    rejoinAfterMs: () => 10, reconnectAfterMs: () => 10, params, authToken: token,
    ...(heartbeat && {heartbeatIntervalMs: heartbeat}),
  })
  let beats = 0
  const onBeat = [], closes = new Queue()
  socket.onClose(() => closes.put(null))
  socket.onMessage(({topic, event}) => {
    if(topic === "phoenix" && event === "phx_reply"){ beats++; onBeat.forEach(check => check()) }
  })
  socket.connect()
  return {
    close: () => socket.disconnect(),
    away: () => closes.take(),
    beats: count => new Promise(resolve => onBeat.push(() => { if(beats >= count){ resolve() } })),
    channel(topic, params, {timeout, on}){
      let position = null
      const channel = socket.channel(topic, () => position === null ? params : {...params, since: position})
      const onMessage = channel.onMessage
      channel.onMessage = function(event, payload, ...rest){
        if(!/^(phx_|chan_reply_|presence_)/.test(event)){ on.event(event, payload) }
        return onMessage.call(channel, event, payload, ...rest)
      }
      const presence = new Presence(channel)
      presence.onSync(() => on.presence(Object.fromEntries(presence.list((key, {metas}) => [key, metas]))))
      channel.onClose(on.closed)
      const push = channel.join(timeout)
      push.receive("ok", response => { position = response?.position ?? null; on.answer(["ok", response]) })
      for(const status of ["error", "timeout"]){ push.receive(status, response => on.answer([status, response])) }
      return adapted(channel)
    },
  }
}

const {cases} = JSON.parse(readFileSync(new URL("cases.json", import.meta.url)))
await run(cases[name], connect)
console.log("passed")
process.exit(0)
