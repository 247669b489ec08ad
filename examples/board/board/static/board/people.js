// The people at the board: who is there, where they point, and the cards that they hold.

import { Presence } from "topics";

const INTERVAL = 60; // milliseconds between two messages about the own cursor

const hue = (key) => (Number(key) * 137) % 360;

export class People {
  #topic;
  #cards;
  #me;
  #presence;
  #cursors = new Map(); // key: element
  #holding = new Map(); // key: card
  #own = {};
  #timer = null;
  #held = null;

  constructor(topic, root, cards, me) {
    this.#topic = topic;
    this.#cards = cards;
    this.#me = me;
    this.#presence = new Presence(topic);
    this.#presence.onChange((list) => this.#show(list));
    this.#presence.onLeave((key, _metas, others) => others.length || this.#forget(key));
    topic.on("cursor", (cursor) => this.#point(cursor));
    topic.onError(() => [...this.#cursors.keys()].forEach((key) => this.#forget(key)));
    root.addEventListener("pointermove", (event) => this.#moved(root, event));
    root.addEventListener("pointerleave", () => this.#tell({}));
  }

  // The card that the own hand has; null: none.
  hold(card) {
    this.#held = card;
    this.#tell(this.#own);
  }

  #moved(root, event) {
    const section = [...root.querySelectorAll("[data-column]")].find((one) => {
      const { left, right } = one.getBoundingClientRect();
      return left <= event.clientX && event.clientX <= right;
    });
    if (!section) return this.#tell({});
    const area = section.querySelector(".area");
    const { left, top, width } = area.getBoundingClientRect();
    const x = Math.min(1, Math.max(0, (event.clientX - left) / width));
    const y = Math.min(100_000, Math.max(0, event.clientY - top + area.scrollTop));
    return this.#tell({ column: Number(section.dataset.column), x, y });
  }

  #tell(place) {
    this.#own = place;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#topic.tell("cursor", { ...this.#own, card: this.#held });
    }, INTERVAL);
  }

  #show(list) {
    const items = list.map(({ key, metas: [{ name, may_write: writes }] }) => {
      const item = document.createElement("li");
      item.style.setProperty("--hue", hue(key));
      item.textContent = name.slice(0, 1);
      item.title = (key === this.#me ? `${name} (you)` : name) + (writes ? "" : ", reads");
      item.dataset.person = key;
      item.classList.toggle("reads", !writes);
      const text = document.createElement("span");
      text.className = "visually-hidden";
      text.textContent = item.title.slice(1);
      item.append(text);
      return item;
    });
    document.getElementById("people").replaceChildren(...items);
  }

  #point({ who, column, x, y, card }) {
    if (who === this.#me) return; // another tab of the same person
    this.#mark(who, card);
    const area = document.querySelector(`[data-column="${Number(column)}"] .area`);
    const name = this.#presence.get(who)[0]?.name;
    if (!area || !name) {
      this.#cursors.get(who)?.remove();
      this.#cursors.delete(who);
      return;
    }
    let cursor = this.#cursors.get(who);
    if (!cursor) {
      cursor = document.createElement("div");
      cursor.className = "cursor";
      cursor.setAttribute("aria-hidden", "true");
      cursor.style.setProperty("--hue", hue(who));
      cursor.append(document.createElement("span"));
      this.#cursors.set(who, cursor);
    }
    cursor.firstElementChild.textContent = name;
    if (cursor.parentElement !== area) area.append(cursor);
    cursor.style.left = `${x * 100}%`;
    cursor.style.top = `${y}px`;
  }

  #mark(who, card) {
    const former = this.#holding.get(who);
    if (former === (card ?? undefined)) return;
    this.#cards.element(former)?.removeAttribute("data-holder");
    this.#holding.delete(who);
    const element = this.#cards.element(card);
    if (!element) return;
    element.dataset.holder = this.#presence.get(who)[0]?.name ?? "";
    element.style.setProperty("--hue", hue(who));
    this.#holding.set(who, card);
  }

  #forget(key) {
    this.#mark(key, null);
    this.#cursors.get(key)?.remove();
    this.#cursors.delete(key);
  }
}
