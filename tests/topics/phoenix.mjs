// Run a scenario in Node: node phoenix.mjs <the module of "phoenix"> <port> <scenario> <transport>.

import assert from "node:assert/strict"
import {pathToFileURL} from "node:url"
import {prepare, run} from "./phoenix_scenarios.mjs"

const [module, port, scenario, transport] = process.argv.slice(2)
prepare({
  assert,
  phoenix: await import(pathToFileURL(module)),
  url: `ws://127.0.0.1:${port}/${scenario === "fallback" ? "blocked" : "socket"}`,
  longPolling: transport === "longpoll",
})
await run(scenario)
console.log("passed")
process.exit(0)
