import { Presence, Socket } from "topics";

export const socket = new Socket("/socket");

export function enter(name, view) {
  const room = socket.topic(`room:${name}`, { name: "ada" });
  const people = new Presence(room);

  room.on("message.new", ({ text }) => view.show(text));
  people.onChange((list) => view.showPeople(list.map(({ key }) => key)));
  room.onJoin(({ title, recovered }, again) => {
    view.setTitle(title);
    if (again && !recovered) view.reload(); // something may be missing
  });
  room.onClose((error) => view.tell(error.message)); // refused, or left
  room.join().catch(() => {}); // onClose tells it

  return {
    leave: () => room.leave(),
    typing: () => room.tell("typing", { name: "ada" }), // only if it can be sent now
    async say(text) {
      try {
        const { length } = await room.push("message.new", { text });
        return length;
      } catch (error) {
        view.tell(error.code === "lost" ? "Your message may not have arrived" : error.message);
        return null;
      }
    },
  };
}
