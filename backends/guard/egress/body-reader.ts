import type { Incoming } from "./egress.ts";

/** Thrown when the client is gone before its body was complete. */
export class ClientGone extends Error {
  constructor() {
    super("the client went away in the middle of its request");
    this.name = "ClientGone";
  }
}

/** A request's body, chunk by chunk. The client is not read further than it is asked for. */
export interface BodyReader {
  /** `undefined` at the end. */
  next(): Promise<Buffer | undefined>;
  /** What comes after this is dropped; whoever waits for a chunk is told that the body has ended. */
  stop(): void;
}

export function readBody(request: Incoming): BodyReader {
  const chunks: Buffer[] = [];
  let state: "open" | "ended" | "broken" = "open";
  let wake: (() => void) | undefined;
  const changed = (): void => {
    wake?.();
    wake = undefined;
  };
  const onData = (chunk: Buffer): void => {
    chunks.push(chunk);
    request.pause();
    changed();
  };
  const onEnd = (): void => {
    if (state === "open") state = "ended";
    changed();
  };
  const onClose = (): void => {
    if (state === "open") state = "broken";
    changed();
  };
  request.on("data", onData).on("end", onEnd).on("close", onClose).pause();
  return {
    async next() {
      while (true) {
        const chunk = chunks.shift();
        if (chunk !== undefined) return chunk;
        if (state === "ended") return undefined;
        if (state === "broken") throw new ClientGone();
        request.resume();
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    stop() {
      request.off("data", onData).off("end", onEnd).off("close", onClose);
      chunks.length = 0;
      if (state === "open") state = "ended";
      changed();
    },
  };
}

/** `undefined`: there is no body. Length -1: as long as it comes. */
export function bodyLength(request: Incoming): number | undefined {
  const text = request.headers["content-length"];
  if (text !== undefined && /^[0-9]{1,15}$/.test(text)) return text === "0" ? undefined : Number(text);
  if ("stream" in request) return request.stream.endAfterHeaders ? undefined : -1;
  return request.headers["transfer-encoding"] === undefined ? undefined : -1;
}
