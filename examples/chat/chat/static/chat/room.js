// One room: its topic, its messages, and the messages that wait to be sent. The display is in log.js.

import { Presence } from "../trio_channels/topics.js";
import { Log } from "./log.js";
import { Outbox } from "./outbox.js";
import { byId, socket } from "./socket.js";

const TYPING_ENDS = 4_000; // milliseconds after the last key
const AGAIN = 3_000; // milliseconds until a request that was refused for now is repeated

export class Room {
  /** This page's person, as soon as the server has told it. */
  me = null;
  /** "connecting", "connected", "reconnecting", or "closed": for good. */
  state = "connecting";
  /** How the last outage ended, for people: empty if there was none. */
  resumed = "";
  log = new Log();
  #topic;
  #presence;
  #outbox;
  #isComplete = false; // the messages before the join are there, or the channel layer sends them
  #stopTyping = null;
  #changed;

  /**
   * `changed()` is called after each change of the state or the people; `news(text)` gets the text for a screen reader;
   * `refused(text, why)` gets a message that the server does not take.
   */
  constructor(name, { changed, news, refused }) {
    this.name = name;
    this.#changed = changed;
    this.#topic = socket.topic(`room:${name}`);
    this.#presence = new Presence(this.#topic);
    this.#outbox = new Outbox(this.#topic, this.log, refused);
    this.#topic.on("message", (message) => this.#show(message));
    this.#presence.onJoin((id, [{ name }], others) => {
      if (others.length === 0 && id !== this.me?.id && this.#isComplete) news(`${name} has come`);
    });
    this.#presence.onLeave((id, [{ name }], others) => others.length === 0 && news(`${name} has left`));
    this.#presence.onChange(changed);
    this.#topic.onJoin((reply, again) => this.#joined(reply, again));
    socket.onState((state) => state !== "connected" && this.#interrupted());
    this.#topic.onError(() => this.#interrupted());
    this.#topic.onClose(() => this.#become("closed"));
    this.#topic.join().catch(console.error);
  }

  get people() {
    return byId(this.#presence.list().flatMap(({ metas }) => metas));
  }

  /** The names of the others who are typing. */
  get typing() {
    const metas = this.#presence.list().flatMap(({ metas }) => metas);
    return byId(metas.filter(({ id, typing }) => typing && id !== this.me?.id)).map(({ name }) => name);
  }

  send(text) {
    this.typed(false);
    this.#outbox.send(text);
  }

  /** The person has pressed a key, or has ended with that. */
  typed(isTyping) {
    if (isTyping && this.#stopTyping === null && !this.#topic.tell("typing", { typing: true })) return;
    if (!isTyping && this.#stopTyping !== null) this.#topic.tell("typing", { typing: false });
    clearTimeout(this.#stopTyping);
    this.#stopTyping = isTyping ? setTimeout(() => this.typed(false), TYPING_ENDS) : null;
  }

  /** The person has seen everything. */
  read() {
    if (this.log.newest) this.#topic.tell("read", { id: this.log.newest });
  }

  #interrupted() {
    if (this.state === "connected") this.#become("reconnecting");
  }

  async #joined({ you, recovered }, again) {
    this.me = this.log.me = you;
    clearTimeout(this.#stopTyping);
    this.#stopTyping = null;
    // By its position the server has all that was missed, and sends it now. It has not on the first visit, after too
    // long an absence, and when the memory of the channel layer was lost: then the database has it.
    if (!recovered) this.#isComplete = false;
    if (again) this.resumed = recovered ? "Resumed by position." : "Resumed from the database.";
    if (!this.#isComplete) await this.#load();
    else this.#become("connected");
  }

  async #load() {
    const before = this.log.ids();
    try {
      const { messages } = await this.#topic.push("history");
      this.log.replace(messages, before);
    } catch (error) {
      // After "lost" it is joined again, and after "closed" never.
      if (error.code === "refused" || error.code === "timeout") setTimeout(() => this.#load(), AGAIN);
      return;
    }
    this.#isComplete = true;
    for (const { push_id } of this.log.messages()) this.#outbox.arrived(push_id);
    this.#become("connected");
  }

  #become(state) {
    this.state = state;
    this.#changed();
  }

  #show(message) {
    this.#outbox.arrived(message.push_id);
    if (this.log.add(message)) this.#changed();
  }
}
