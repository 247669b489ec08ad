// The field in which a message is written.

import { element } from "./html.js";

const input = element("text");

/** `send(text)` gets each message, and `typed(isTyping)` each change. */
export function startComposer({ send, typed }) {
  element("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim().toWellFormed(); // half a character cannot be sent
    if (!text) return;
    showError("");
    send(text);
    input.value = "";
    changed();
    input.focus();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    element("composer").requestSubmit();
  });
  input.addEventListener("input", () => {
    changed();
    typed(input.value.trim() !== "");
  });
  if (matchMedia("(pointer: fine)").matches) input.focus(); // on a phone it would bring up the keyboard
}

export function showError(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

function changed() {
  input.style.height = "auto"; // grow with the text, up to the style sheet's limit
  input.style.height = `${input.scrollHeight}px`;
  const left = input.maxLength < 0 ? Infinity : input.maxLength - input.value.length;
  element("left").textContent = left <= 200 ? `${left} left` : "";
}
