// Small helpers of all pages. Text of other people only becomes text nodes (textContent), so that HTML in it stays text.

export const element = (id) => document.getElementById(id);

export function fromTemplate(id) {
  return element(id).content.firstElementChild.cloneNode(true);
}

/** Show a person in an item with an avatar, a name and a tick. */
export function fillIn(item, { id, name, member }) {
  paint(item.querySelector(".avatar"), { id, name });
  item.querySelector(".name").textContent = name;
  if (!member) item.querySelector(".tick").remove();
}

export function paint(avatar, { id, name }) {
  avatar.textContent = initials(name);
  avatar.title = name;
  avatar.style.setProperty("--hue", hue(id));
}

function initials(name) {
  const words = name.split(/[\s._@+-]+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...name].slice(0, 1);
  return letters.join("").toUpperCase();
}

function hue(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return Math.round((hash * 137.508) % 360); // the golden angle: neighbours look different
}

/** Such as "3 minutes ago". */
export function ago(when) {
  const seconds = Math.max(0, (Date.now() - new Date(when)) / 1000);
  const units = [["day", 86_400], ["hour", 3_600], ["minute", 60]];
  const [unit, length] = units.find(([, length]) => seconds >= length) ?? ["second", 1];
  if (unit === "second") return "just now";
  return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / length), unit);
}
