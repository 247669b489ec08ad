/** The type of topics-sse.js, for the option `fallback` of a Socket. */

export default class EventStreamConnection {
  constructor(url: string, protocols: string[]);
}
