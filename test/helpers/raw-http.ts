import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, type TLSSocket } from "node:tls";

const ANSWER_MS_MAX = 15_000;

/** What a proxy answered to CONNECT: 0 if it closed the connection without a word. The socket is then the tunnel. */
export interface Connected {
  status: number;
  socket: Socket;
  text: string;
}

/** A connection to a port on loopback, for bytes that no client library would send. */
export async function rawConnection(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1" });
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  socket.on("error", () => socket.destroy());
  return socket;
}

/** Sends bytes and returns all that comes until the other side closes; with `until`, until that is in it. */
export function exchange(socket: Duplex, bytes: string | Buffer, until?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const done = (): void => {
      clearTimeout(timeout);
      socket.off("data", read).off("close", done).off("end", done);
      resolve(text);
    };
    const read = (chunk: Buffer): void => {
      text += chunk.toString("latin1");
      if (until !== undefined && text.includes(until)) done();
    };
    const timeout = setTimeout(() => {
      socket.destroy();
      reject(new Error(`the connection stayed open for ${ANSWER_MS_MAX} ms; it answered: ${JSON.stringify(text)}`));
    }, ANSWER_MS_MAX);
    socket.on("data", read).once("close", done).once("end", done);
    socket.on("error", () => socket.destroy());
    if (socket.destroyed) return done();
    socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  });
}

/** Sends CONNECT for an authority exactly as it is written. */
export async function rawConnect(
  port: number,
  { authority, credentials }: { authority: string; credentials?: string },
): Promise<Connected> {
  const socket = await rawConnection(port);
  const login =
    credentials === undefined ? "" : `Proxy-Authorization: Basic ${Buffer.from(credentials).toString("base64")}\r\n`;
  const text = await exchange(
    socket,
    `CONNECT ${authority} HTTP/1.1\r\nHost: allowed.test\r\n${login}\r\n`,
    "\r\n\r\n",
  );
  return { status: statusOf(text), socket, text };
}

/** TLS without a look at the certificate; `undefined` if the other side does not want it. */
export function rawTls(
  socket: Socket,
  options: { serverName?: string; alpn?: string[] },
): Promise<TLSSocket | undefined> {
  return new Promise((resolve) => {
    const secured = connectTls({
      socket,
      rejectUnauthorized: false,
      ALPNProtocols: options.alpn ?? ["http/1.1"],
      ...(options.serverName === undefined ? {} : { servername: options.serverName }),
    });
    const timeout = setTimeout(() => secured.destroy(), ANSWER_MS_MAX);
    const end = (result: TLSSocket | undefined): void => {
      clearTimeout(timeout);
      resolve(result);
    };
    secured.once("secureConnect", () => end(secured)).once("close", () => end(undefined));
    secured.on("error", () => secured.destroy());
  });
}

/** Of the first status line; 0 without one. */
export function statusOf(text: string): number {
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(text)?.[1] ?? 0);
}

/** Of every answer in a stream of answers. */
export function statusesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
}
