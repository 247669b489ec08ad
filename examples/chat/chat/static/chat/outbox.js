// The messages of one room that are not known to be stored. They wait through an outage, and through a reload of the page.
//
// Each has an id of its own, by which the server stores it once, however often it comes.

const AGAIN = 3_000; // milliseconds until a message that was refused for now is sent again

export class Outbox {
  #topic;
  #log;
  #refused;
  #key;
  #texts; // by push_id, in the order in which they were written

  constructor(topic, log, refused) {
    this.#topic = topic;
    this.#log = log;
    this.#refused = refused;
    this.#key = `chat ${topic.name}`;
    this.#texts = new Map(JSON.parse(sessionStorage.getItem(this.#key) ?? "[]"));
    // Pushes wait for the join, which is begun before the next task.
    queueMicrotask(() => this.#texts.forEach((text, id) => this.#push(id, text)));
  }

  send(text) {
    const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.#texts.set(id, text);
    this.#store();
    this.#push(id, text);
  }

  /** The message has come back from the server. */
  arrived(id) {
    if (!this.#texts.delete(id)) return;
    this.#store();
    this.#log.removeWaiting(id);
  }

  async #push(id, text) {
    this.#log.addWaiting(id, text);
    try {
      await this.#topic.push("message.new", { text, push_id: id }, { once: true });
    } catch (error) {
      if (!this.#texts.has(id)) return; // it came back before
      const why = error.code === "lost" ? "The server cannot take this message." : error.response?.message;
      if (why) {
        this.arrived(id);
        this.#refused(text, why);
      } else if (error.code !== "closed") setTimeout(() => this.#texts.has(id) && this.#push(id, text), AGAIN);
    }
  }

  #store() {
    sessionStorage.setItem(this.#key, JSON.stringify([...this.#texts]));
  }
}
