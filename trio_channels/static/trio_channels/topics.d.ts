/** Types of topics.js; see its comments, and docs/reference/topics-js.md. */

export type SocketState = "disconnected" | "connecting" | "connected" | "waiting";
export type TopicState = "closed" | "joining" | "joined" | "leaving";
export type TopicErrorCode = "refused" | "timeout" | "lost" | "closed" | "full" | "offline" | "crashed";

/** Ends what a function has begun, such as further calls of a listener. */
export type End = () => void;

export interface SocketOptions {
  /** Of the address; a function is called for each connection. */
  params?: Record<string, string> | (() => Record<string, string>);
  /** A secret that does not stand in the address; a function is called for each connection. */
  authToken?: string | null | (() => string | null);
  /** Milliseconds for a connection, a join, a heartbeat's answer, and a push without a `timeout` of its own. */
  timeout?: number;
  /** Milliseconds from a heartbeat's answer to the next heartbeat, and for its answer if `timeout` is longer. */
  heartbeat?: number;
  /** The most pushes of a topic without an answer. */
  window?: number;
  /** The most pushes of a topic that wait. */
  maxQueue?: number;
  /** The milliseconds until an attempt, which counts from 1; `code` is the close code, if a connection has ended. */
  backOff?: (attempt: number, code?: number) => number;
  /** Whether a close code means: do not come back. */
  isFinal?: (code: number) => boolean;
  /** The class, where there is no global one. */
  WebSocket?: (new (url: string, protocols: string[]) => unknown) | null;
  /** Loads topics-sse.js, which takes the place of WebSockets that are blocked; null: nothing does. */
  fallback?: (() => Promise<{ default: new (url: string, protocols: string[]) => unknown }>) | null;
  /** The attempts by WebSocket before the first by the fallback; 0: every attempt is one by the fallback. */
  fallbackTries?: number;
  /** Milliseconds for a WebSocket to open, as long as none has; an attempt that takes longer counts as the last one. */
  fallbackAfter?: number;
  /** Milliseconds for which further pages of the tab begin with the fallback, once it was needed. */
  fallbackMemory?: number;
}

/** How a connection has ended. */
export interface Ended {
  code: number;
  reason: string;
}

export interface PushOptions {
  /** Milliseconds from the sending to the answer. */
  timeout?: number;
  /** Add a `push_id` to the payload, and send the push again after an outage. */
  once?: boolean;
  /** False: fail if the push cannot be sent at once. */
  queue?: boolean;
}

/** What a topic with a history adds to the reply to a join. */
export interface Recovery {
  recovered: boolean;
  position: string;
}

export interface Topic {
  readonly name: string;
  readonly state: TopicState;
  /** The position of the last broadcast that the page has got; null without a history. */
  position: string | null;
  join<Reply = any>(options?: { timeout?: number }): Promise<Reply>;
  leave(): Promise<void>;
  on<Payload = any>(event: string, handler: (payload: Payload) => void): End;
  onJoin<Reply = any>(listener: (reply: Reply, again: boolean) => void): End;
  onError(listener: (error: TopicError) => void): End;
  onClose(listener: (error: Error) => void): End;
  push<Reply = any>(event: string, payload?: unknown, options?: PushOptions): Promise<Reply>;
  stream<Reply = any>(
    event: string,
    payload?: unknown,
    options?: Omit<PushOptions, "once">,
  ): AsyncGenerator<Reply, void, undefined>;
  tell(event: string, payload?: unknown): boolean;
}

export class Socket {
  constructor(url: string | URL, options?: SocketOptions);
  readonly state: SocketState;
  connect(): void;
  disconnect(): void;
  topic(name: string, params?: object | (() => object)): Topic;
  onState(listener: (state: SocketState, ended: Ended | null) => void): End;
}

export class TopicError extends Error {
  constructor(code: TopicErrorCode, message: string, response?: any);
  readonly code: TopicErrorCode;
  /** The server's answer, with the code "refused"; otherwise null. */
  readonly response: any;
}

/** One tracking of a key, with what the server tells of it. */
export interface Meta {
  readonly phx_ref: string;
  readonly [name: string]: any;
}

export class Presence {
  constructor(topic: Topic);
  list(): { key: string; metas: Meta[] }[];
  get(key: string): Meta[];
  onJoin(listener: (key: string, joined: Meta[], others: Meta[]) => void): End;
  onLeave(listener: (key: string, left: Meta[], others: Meta[]) => void): End;
  onChange(listener: (list: { key: string; metas: Meta[] }[]) => void): End;
}

export function backOff(attempt: number, code?: number): number;
