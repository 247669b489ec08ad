// Moving cards by pointer (mouse, pen, finger) and by keyboard. Both show the move at once, as a wish of `cards`, and call
// `drop` at its end.

const THRESHOLD = 5; // pixels before a press becomes a drag
const EDGE = 56; // pixels from the edge of the screen, where the board scrolls along
const SPEED = 14; // pixels for each frame

export class Dragging {
  #root;
  #cards;
  #calls; // {mayMove(), hold(id or null), drop(id, place), waiting(id), say(text)}
  #held = null; // {id, start, ghost}: a card in the air
  #scrolling = 0;

  constructor(root, cards, calls) {
    this.#root = root;
    this.#cards = cards;
    this.#calls = calls;
    root.addEventListener("pointerdown", (event) => this.#press(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    root.addEventListener("pointerup", () => this.#release());
    root.addEventListener("pointercancel", () => this.cancel());
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focusout", () => queueMicrotask(() => this.#leave()));
    addEventListener("keydown", (event) => event.key === "Escape" && this.cancel());
  }

  // Put the card in the air back.
  cancel() {
    if (!this.#held) return;
    const { id } = this.#held;
    this.#end();
    const earlier = this.#calls.waiting(id); // a move that is not confirmed yet
    if (earlier) this.#cards.wish(id, earlier);
    else this.#cards.unwish(id);
    this.#calls.say("Put back.");
  }

  // After a change: the card in the air may be gone.
  check() {
    if (this.#held && !this.#cards.get(this.#held.id)) this.cancel();
  }

  #hold(id, more) {
    this.#held = { id, start: this.#cards.placeOf(id), ...more };
    this.#cards.element(id).classList.add("held");
    this.#root.classList.add("dragging");
    this.#calls.hold(id);
  }

  #end() {
    const { id, ghost } = this.#held;
    this.#held = null;
    ghost?.remove();
    this.#scrolling = 0;
    this.#cards.element(id)?.classList.remove("held");
    this.#root.classList.remove("dragging");
    this.#calls.hold(null);
  }

  #drop() {
    const { id, start } = this.#held;
    const place = this.#cards.placeOf(id);
    if (!place || (place.column === start.column && place.before === start.before)) {
      this.cancel();
      return;
    }
    this.#end();
    this.#calls.drop(id, { column: place.column, before: place.before });
  }

  // -- by pointer -----------------------------------------------------------------------------------------------------

  #pressed = null;

  #press(event) {
    const card = event.target.closest?.(".card");
    // A finger on a card scrolls; on its grip it drags.
    if (!card || event.button !== 0 || (event.pointerType === "touch" && !event.target.closest(".grip"))) return;
    if (this.#held || !this.#calls.mayMove()) return;
    this.#pressed = { id: Number(card.dataset.card), x: event.clientX, y: event.clientY };
  }

  #move(event) {
    if (this.#pressed) {
      const { id, x, y } = this.#pressed;
      if (Math.hypot(event.clientX - x, event.clientY - y) < THRESHOLD) return;
      this.#pressed = null;
      if (this.#cards.get(id)) this.#lift(id, x, y, event.pointerId);
    }
    if (!this.#held?.ghost) return;
    this.#held.at = { x: event.clientX, y: event.clientY };
    this.#follow();
    this.#scroll();
  }

  #lift(id, x, y, pointer) {
    const element = this.#cards.element(id);
    const { left, top, width } = element.getBoundingClientRect();
    const ghost = element.cloneNode(true);
    ghost.classList.add("ghost");
    ghost.style.width = `${width}px`;
    ghost.setAttribute("aria-hidden", "true");
    document.body.append(ghost);
    this.#hold(id, { ghost, offset: { x: x - left, y: y - top } });
    this.#root.setPointerCapture(pointer); // the card's own element is about to move
  }

  #follow() {
    const { id, ghost, offset, at } = this.#held;
    ghost.style.transform = `translate(${at.x - offset.x}px, ${at.y - offset.y}px) rotate(1.5deg)`;
    const place = this.#placeAt(id, at.x, at.y);
    const now = this.#cards.placeOf(id);
    if (place && now && (place.column !== now.column || place.before !== now.before)) this.#cards.wish(id, place);
  }

  #placeAt(id, x, y) {
    const distance = (section) => {
      const { left, right } = section.getBoundingClientRect();
      return Math.max(left - x, x - right, 0);
    };
    const sections = [...this.#root.querySelectorAll("[data-column]")];
    const section = sections.reduce((nearest, other) => (distance(other) < distance(nearest) ? other : nearest));
    const others = [...section.querySelectorAll(".cards > .card")].filter((card) => Number(card.dataset.card) !== id);
    const behind = others.find((card) => {
      const { top, height } = card.getBoundingClientRect();
      return y < top + height / 2;
    });
    return { column: Number(section.dataset.column), before: behind ? Number(behind.dataset.card) : null };
  }

  #scroll() {
    const { x } = this.#held.at;
    const before = this.#scrolling;
    this.#scrolling = x < EDGE ? -SPEED : x > innerWidth - EDGE ? SPEED : 0;
    if (this.#scrolling && !before) requestAnimationFrame(() => this.#scrollOn());
  }

  #scrollOn() {
    if (!this.#scrolling || !this.#held) return;
    this.#root.querySelector(".columns").scrollLeft += this.#scrolling;
    this.#follow();
    requestAnimationFrame(() => this.#scrollOn());
  }

  #release() {
    this.#pressed = null;
    if (this.#held?.ghost) this.#drop();
  }

  // -- by keyboard ----------------------------------------------------------------------------------------------------

  #key(event) {
    const grip = event.target.closest?.(".grip");
    if (!grip || this.#held?.ghost) return;
    const id = Number(grip.closest(".card").dataset.card);
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      if (this.#held) this.#dropByKey();
      else if (this.#calls.mayMove()) this.#pickUp(id);
    } else if (this.#held && event.key.startsWith("Arrow")) {
      event.preventDefault();
      this.#step(event.key.slice("Arrow".length));
    }
  }

  #pickUp(id) {
    this.#hold(id);
    this.#calls.say(`“${this.#cards.get(id).title}” is picked up. ${this.#where(id)}`);
  }

  #dropByKey() {
    const { id } = this.#held;
    this.#calls.say(`Dropped. ${this.#where(id)}`);
    this.#drop();
  }

  #step(direction) {
    const { id } = this.#held;
    const { column, index } = this.#cards.placeOf(id);
    const columns = this.#cards.columns;
    const sideways = { Left: -1, Right: 1 }[direction] ?? 0;
    const target = columns[columns.indexOf(column) + sideways];
    if (target === undefined) return;
    const others = this.#cards.orders().get(target).filter((other) => other !== id);
    const wanted = index + ({ Up: -1, Down: 1 }[direction] ?? 0);
    this.#cards.wish(id, { column: target, before: others[Math.max(0, wanted)] ?? null });
    this.#cards.element(id).scrollIntoView({ block: "nearest", inline: "nearest" });
    this.#calls.say(this.#where(id));
  }

  #where(id) {
    const { column, index } = this.#cards.placeOf(id);
    const section = this.#root.querySelector(`[data-column="${column}"]`);
    return `${section.querySelector(".name").textContent}, place ${index + 1} of ${section.querySelector(".count").textContent}.`;
  }

  // The focus has gone elsewhere while a card was picked up by keyboard.
  #leave() {
    if (!this.#held || this.#held.ghost) return;
    if (!this.#cards.element(this.#held.id)?.contains(document.activeElement)) this.cancel();
  }
}
