import type { Duplex } from "node:stream";
import { SPLICE_IDLE_MS_MAX } from "./egress.ts";

export interface SpliceOptions {
  agent: Duplex;
  upstream: Duplex;
  /** False cuts the connection: more than may leave. */
  onUp(bytes: number): boolean;
  onDown(bytes: number): void;
  /** Once, when both sides are closed. */
  onEnd(): void;
}

/** Two connections become one. Back-pressure and a half-close pass through; a broken end takes the other with it. */
export function splice(options: SpliceOptions): void {
  const { agent, upstream } = options;
  let open = 2;
  const closed = (): void => {
    open -= 1;
    if (open === 0) options.onEnd();
  };
  pass(agent, upstream, options.onUp);
  pass(upstream, agent, (bytes) => {
    options.onDown(bytes);
    return true;
  });
  for (const socket of [agent, upstream]) {
    if ("setTimeout" in socket && typeof socket.setTimeout === "function") {
      socket.setTimeout(SPLICE_IDLE_MS_MAX, () => socket.destroy());
    }
    if (socket.closed) closed();
    else socket.once("close", closed);
  }
}

function pass(from: Duplex, to: Duplex, count: (bytes: number) => boolean): void {
  const drained = (): void => void from.resume();
  from.on("data", (chunk: Buffer) => {
    if (!count(chunk.length)) {
      from.destroy();
      return;
    }
    if (to.write(chunk)) return;
    from.pause();
    to.once("drain", drained);
  });
  from.once("end", () => void (to.writable ? to.end() : undefined));
  from.on("error", () => from.destroy());
  from.once("close", () => {
    // What came before a clean end is still delivered; of a broken connection nothing is.
    if (!from.readableEnded || to.writableFinished) to.destroy();
    else to.once("finish", () => to.destroy()).end();
  });
  if (from.destroyed) to.destroy();
  // Whoever looked at its first bytes has paused it.
  from.resume();
}
