// The page's one socket, and the list of all rooms, with their people and the numbers of unread messages.

import { Presence, Socket } from "../trio_channels/topics.js";

export const socket = new Socket("/socket");

/**
 * All rooms, as `{name, last, when, unread, people}`. `last` is the id of the last message; `unread` is null if the person
 * has never read the room.
 */
export class Rooms {
  /** This page's person, as soon as the server has told it. */
  me = null;
  #rooms = new Map();
  #topic = socket.topic("rooms");
  #presence = new Presence(this.#topic);
  #changed;
  #isRead;

  /** `changed()` is called after each change; `isRead(name)` says whether the reader is looking at a room. */
  constructor(changed, isRead = () => false) {
    this.#changed = changed;
    this.#isRead = isRead;
    this.#topic.onJoin(({ you, rooms }) => {
      this.me = you;
      // The server does not know of a room that was read while it was empty, nor yet of one that was read just now.
      const unread = (room) => (isRead(room.name) ? 0 : room.unread ?? this.#get(room.name).unread);
      const told = rooms.map((room) => [room.name, { ...room, unread: unread(room) }]);
      this.#rooms = new Map([...this.#rooms, ...told]);
      changed();
    });
    this.#topic.on("activity", (news) => this.#heard(news));
    this.#presence.onChange(changed);
    this.#topic.join().catch(console.error);
  }

  /** Those with most people first, then those with the latest messages. */
  list() {
    const people = new Map(this.#presence.list().map(({ key, metas }) => [key, byId(metas)]));
    const names = new Set([...people.keys(), ...this.#rooms.keys()]);
    const all = [...names].map((name) => ({
      ...this.#get(name),
      people: people.get(name) ?? [],
    }));
    return all.sort((a, b) => b.people.length - a.people.length || b.last - a.last);
  }

  read(name) {
    const room = this.#get(name);
    this.#rooms.set(name, { ...room, unread: 0 });
    if (room.unread) this.#changed();
  }

  #heard({ room: name, id, when, author }) {
    const { last, unread } = this.#get(name);
    if (id <= last) return; // counted, in the reply to the join
    const isNews = unread !== null && author !== this.me.id && !this.#isRead(name);
    this.#rooms.set(name, { name, last: id, when, unread: isNews ? unread + 1 : unread });
    this.#changed();
  }

  #get(name) {
    return this.#rooms.get(name) ?? { name, last: 0, when: null, unread: null };
  }
}

/** The people of a presence; one with two tabs is there once. */
export function byId(metas) {
  return [...new Map(metas.map((meta) => [meta.id, meta])).values()];
}
