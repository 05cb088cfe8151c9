import type { Duplex } from "node:stream";
import { readClientHello, type ClientHello } from "../../../controller/policy/client-hello.ts";
import { parseHost, type Destination } from "../../../controller/policy/destination.ts";
import { HANDSHAKE_MS_MAX } from "./egress.ts";

export type Peek = { ok: true; bytes: Buffer } | { ok: false; reason: string; closed?: true };

/**
 * Reads the first bytes of a tunnel until they are a whole ClientHello for its destination, or cannot become one. Whoever gets them passes them
 * on: they are taken from the socket, which is paused.
 */
export function peekClientHello(socket: Duplex, destination: Destination): Promise<Peek> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const end = (peek: Peek): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("end", onClosed).off("close", onClosed);
      socket.pause();
      resolve(peek);
    };
    const onClosed = (): void => {
      const reason = chunks.length === 0 ? "the tunnel was closed unused" : "the tunnel was closed in the ClientHello";
      end({ ok: false, reason, closed: true });
    };
    const onData = (chunk: Buffer): void => {
      chunks.push(chunk);
      const bytes = chunks.length === 1 ? chunk : Buffer.concat(chunks);
      const hello = readClientHello(bytes);
      if (hello.state === "incomplete") return;
      const reason = whyNotFor(hello, destination);
      end(reason === undefined ? { ok: true, bytes } : { ok: false, reason });
    };
    const timer = setTimeout(() => {
      end({ ok: false, reason: `no ClientHello came within ${HANDSHAKE_MS_MAX / 1000} s` });
    }, HANDSHAKE_MS_MAX);
    socket.on("data", onData).once("end", onClosed).once("close", onClosed);
  });
}

/** The name that a server would choose by is the one that was decided. What is encrypted cannot be compared. */
function whyNotFor(hello: Exclude<ClientHello, { state: "incomplete" }>, destination: Destination): string | undefined {
  if (hello.state === "refused") return hello.reason;
  if (hello.ech) return "the server name may be hidden in an encrypted ClientHello (ECH)";
  if (hello.serverName === undefined) {
    return destination.address === undefined ? "the ClientHello names no server" : undefined;
  }
  const parsed = parseHost(hello.serverName, destination.port);
  if (parsed.ok && parsed.destination.host === destination.host) return undefined;
  return "the ClientHello names another server than the tunnel";
}
