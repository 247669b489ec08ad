// The steps of the table, for any client in JavaScript: README.md says what they mean. Nothing here is Node's alone.
//
// A client is a function connect(name, {params, token, heartbeat}) that returns a socket:
//
//   socket.channel(topic, params, {timeout, on}) joins, and returns a channel. It calls
//       on.answer([status, response])     at each answer to a join
//       on.event(event, payload)          at each event of the application
//       on.presence({key: [meta, ...]})   at each change
//       on.closed()                       when the channel has ended for good
//   socket.beats(count), socket.away(), socket.ended(): promises; the last one's value is the close code
//   socket.close()
//   channel.push(event, payload, timeout): a promise of [status, response]
//   channel.stream(event, payload): a promise of the list of all answers
//   channel.leave(): a promise of [status, response]
//
// Payloads are values of JSON, or ArrayBuffers.

export class Queue {
  constructor(){ this.items = []; this.takers = [] }

  put(item){
    if(this.takers.length){ this.takers.shift()(item) } else { this.items.push(item) }
  }

  take(){
    return this.items.length ? Promise.resolve(this.items.shift()) : new Promise(resolve => this.takers.push(resolve))
  }
}

// Presence: the newest state, and those that wait for one.
class Newest {
  constructor(){ this.value = null; this.waiting = [] }

  put(value){
    this.value = value
    this.waiting = this.waiting.filter(([fits, resolve]) => !fits(value) || resolve())
  }

  until(fits){
    return this.value !== null && fits(this.value) ? Promise.resolve() : new Promise(resolve => this.waiting.push([fits, resolve]))
  }
}

const hex = buffer => [...new Uint8Array(buffer)].map(byte => byte.toString(16).padStart(2, "0")).join("")

function decoded(value){
  if(value === null || typeof value !== "object" || !("$bytes" in value)){ return value }
  return Uint8Array.from(value.$bytes.match(/../g) ?? [], pair => parseInt(pair, 16)).buffer
}

const encoded = value => value instanceof ArrayBuffer ? {$bytes: hex(value)} : value

// JSON with sorted keys, so that texts can be compared.
const text = value => JSON.stringify(value, (_, inner) =>
  inner !== null && typeof inner === "object" && !Array.isArray(inner)
    ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => a < b ? -1 : 1)) : inner)

// The value, with "*" where "*" is expected.
function masked(value, expected){
  if(expected === "*"){ return "*" }
  if(value === null || typeof value !== "object" || expected === null || typeof expected !== "object"){ return value }
  if(Array.isArray(value)){ return value.map((inner, n) => masked(inner, expected[n])) }
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, masked(inner, expected[key])]))
}

function same(value, expected, place){
  const got = text(masked(value, expected)), wanted = text(expected)
  if(got !== wanted){ throw new Error(`${place}: expected ${wanted}, got ${got}`) }
}

function sameAnswer(answer, expected, place){
  same(expected.length === 1 ? [answer[0]] : [answer[0], encoded(answer[1])], expected, place)
}

class Run {
  constructor(connect, sockets){
    this.sockets = Object.fromEntries(Object.entries(sockets).map(([name, options]) => [name, connect(name, options)]))
    this.channels = {}
  }

  channel({channel = "a"}){ return this.channels[channel] }
  socket({socket = "one"}){ return this.sockets[socket] }

  open(socket, topic, params, timeout){
    const seen = {answers: new Queue(), events: new Queue(), presence: new Newest(), ends: new Queue()}
    seen.channel = socket.channel(topic, params, {timeout, on: {
      answer: answer => seen.answers.put(answer),
      event: (event, payload) => seen.events.put([event, encoded(payload)]),
      presence: state => seen.presence.put(state),
      closed: () => seen.ends.put(null),
    }})
    return seen
  }

  async join(step, place){
    const seen = this.open(this.socket(step), step.topic, step.params ?? {}, step.timeout)
    this.channels[step.channel ?? "a"] = seen
    sameAnswer(await seen.answers.take(), step.answer, place)
  }

  async rejoined(step, place){ sameAnswer(await this.channel(step).answers.take(), step.answer, place) }

  async push(step, place){
    const answer = this.channel(step).channel.push(step.event, decoded(step.payload ?? {}), step.timeout)
    if(step.answer !== null){ sameAnswer(await answer, step.answer, place) }
  }

  async burst(step, place){
    const {channel} = this.channel(step), order = []
    const numbers = Array.from({length: step.count}, (_, n) => n)
    await Promise.all(numbers.map(async n => {
      const [status, response] = await channel.push(step.event, {n})
      order.push([status, response.n])
    }))
    same(order, numbers.map(n => ["ok", n]), place)
  }

  async stream(step, place){
    same(await this.channel(step).channel.stream(step.event, step.payload), step.answers, place)
  }

  async event(step, place){ same(await this.channel(step).events.take(), [step.event, step.payload], place) }

  async presence(step){
    const sorted = state => text(Object.fromEntries(Object.entries(state).map(([key, metas]) => [
      key, metas.map(({phx_ref, ...meta}) => text(meta)).sort(),
    ])))
    await this.channel(step).presence.until(state => sorted(state) === sorted(step.state))
  }

  async leave(step, place){ sameAnswer(await this.channel(step).channel.leave(), step.answer, place) }
  async closed(step){ await this.channel(step).ends.take() }
  async beats(step){ await this.socket(step).beats(step.count) }
  async away(step){ await this.socket(step).away() }
  async disconnect(step){ await this.socket(step).close() }
  async ended(step, place){ same(await this.socket(step).ended(), step.code, place) }

  async many(step, place){
    const numbers = Array.from({length: step.count}, (_, n) => n)
    const all = numbers.map(n => this.open(this.socket(step), `${step.topic}${n}`, {}))
    for(const seen of all){ sameAnswer(await seen.answers.take(), ["ok", {}], place) }
    const answers = await Promise.all(all.map(({channel}, n) => channel.push("echo", {n})))
    same(answers, numbers.map(n => ["ok", {n}]), place)
  }
}

// Run one case; throws an error that names the step.
export async function run({sockets = {one: {}}, steps}, connect){
  const run = new Run(connect, sockets)
  try {
    for(const [number, step] of steps.entries()){ await run[step.do](step, `step ${number + 1}, ${step.do}`) }
    for(const [name, {events}] of Object.entries(run.channels)){ same(events.items, [], `events left on channel ${name}`) }
  } finally {
    Object.values(run.sockets).forEach(socket => socket.close())
  }
}
