// The cards: the board as the server has told it (`cards`, `orders`), above it the moves that it has not confirmed yet,
// and the elements that show both together.
//
// A move that is refused needs no undoing: it is taken from above, and the truth is there again.

const LABELS = { idea: "Idea", bug: "Bug", design: "Design" };
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Cards {
  #cards = new Map(); // id: {id, title, label, version}
  #orders = new Map(); // column: ids
  #revision = 0;
  #wishes = new Map(); // id: {column, before}, in the order of the moves
  #elements = new Map();
  #waiting = []; // [revision, resolve]
  #lists = new Map(); // column: <ol>
  #template = document.getElementById("card");

  constructor(root) {
    for (const section of root.querySelectorAll("[data-column]")) {
      this.#lists.set(Number(section.dataset.column), section.querySelector(".cards"));
    }
  }

  get columns() {
    return [...this.#lists.keys()];
  }

  get(id) {
    return this.#cards.get(id);
  }

  element(id) {
    return this.#elements.get(id);
  }

  // The whole board, after a join.
  reset({ revision, cards, orders }) {
    this.#cards.clear();
    this.#orders.clear();
    this.#take(revision, cards, orders);
  }

  // A change. One that the page has had already changes nothing.
  apply({ revision, cards, orders }) {
    if (revision > this.#revision) this.#take(revision, cards, orders);
  }

  #take(revision, cards, orders) {
    this.#revision = revision;
    for (const card of cards) this.#cards.set(card.id, card);
    for (const [column, ids] of Object.entries(orders)) this.#orders.set(Number(column), ids);
    const shown = new Set([...this.#orders.values()].flat());
    for (const id of this.#cards.keys()) if (!shown.has(id)) this.#cards.delete(id);
    this.render();
    this.#waiting = this.#waiting.filter(([wanted, resolve]) => wanted > revision || resolve());
  }

  // A promise: the page shows this revision.
  reached(revision) {
    return new Promise((resolve) => {
      if (revision <= this.#revision) resolve();
      else this.#waiting.push([revision, resolve]);
    });
  }

  // Show a card elsewhere, before another one or at the end (null), until `unwish`.
  wish(id, wish) {
    this.#wishes.delete(id); // the latest move comes last
    this.#wishes.set(id, wish);
    this.render();
  }

  // With a wish: only if it is still this one.
  unwish(id, wish = this.#wishes.get(id)) {
    if (this.#wishes.get(id) === wish) this.#wishes.delete(id);
    this.render();
  }

  // The columns as they are shown.
  orders() {
    const known = (column) => (this.#orders.get(column) ?? []).filter((id) => this.#cards.has(id));
    const orders = new Map(this.columns.map((column) => [column, known(column)]));
    for (const [id, { column, before }] of this.#wishes) {
      if (!this.#cards.has(id) || !orders.has(column)) continue;
      for (const [key, ids] of orders) orders.set(key, ids.filter((other) => other !== id));
      const ids = orders.get(column);
      const place = ids.indexOf(before);
      ids.splice(place < 0 ? ids.length : place, 0, id);
    }
    return orders;
  }

  // Where a card is shown: its column, and the card behind it.
  placeOf(id) {
    for (const [column, ids] of this.orders()) {
      const index = ids.indexOf(id);
      if (index >= 0) return { column, index, before: ids[index + 1] ?? null };
    }
    return null;
  }

  render() {
    const focused = document.activeElement?.closest(".card");
    const former = new Map([...this.#elements].map(([id, element]) => [id, element.getBoundingClientRect()]));
    for (const [id, element] of this.#elements) {
      if (this.#cards.has(id)) continue;
      element.remove();
      this.#elements.delete(id);
    }
    for (const [column, ids] of this.orders()) {
      const list = this.#lists.get(column);
      if (!list) continue;
      ids.forEach((id, index) => {
        const element = this.#shown(this.#cards.get(id));
        if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
      });
      list.closest(".column").querySelector(".count").textContent = ids.length;
    }
    if (focused?.isConnected && !focused.contains(document.activeElement)) focused.querySelector(".grip").focus();
    if (!still.matches) this.#glide(former);
  }

  #shown(card) {
    let element = this.#elements.get(card.id);
    if (!element) {
      element = this.#template.content.firstElementChild.cloneNode(true);
      element.dataset.card = card.id;
      this.#elements.set(card.id, element);
    }
    element.querySelector(".title").textContent = card.title;
    element.querySelector(".label").textContent = LABELS[card.label] ?? "";
    element.querySelector(".grip").setAttribute("aria-label", `Move “${card.title}”`);
    element.dataset.label = card.label;
    element.classList.toggle("waits", this.#wishes.has(card.id));
    return element;
  }

  // From the former places to the new ones.
  #glide(former) {
    for (const [id, element] of this.#elements) {
      const before = former.get(id);
      const after = element.getBoundingClientRect();
      if (!before || (before.x === after.x && before.y === after.y)) continue;
      const from = `translate(${before.x - after.x}px, ${before.y - after.y}px)`;
      element.animate([{ transform: from }, { transform: "none" }], { duration: 180, easing: "ease-out" });
    }
  }
}
