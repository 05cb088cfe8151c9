import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";

/**
 * Runs in a container of its own: whoever reaches its TCP ports talks to a Unix socket of the test, and UDP on port 53 to the name server
 * behind one. So servers of a test are in reach of a guard in another container, and listen nowhere on this machine but on loopback.
 * Its one argument is `{"443": "/world/https.sock"}`. It ends when nobody holds its input any more.
 */
const DNS_PORT = 53;
const sockets: Readonly<Record<string, string>> = JSON.parse(process.argv.at(-1) ?? "{}");

async function listen(port: number, path: string): Promise<void> {
  const server = createServer({ allowHalfOpen: true }, (from) => {
    const to = connect({ path, allowHalfOpen: true });
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(port, "0.0.0.0", resolve));
}

/** One question, one answer: over the stream both have their length before them. */
async function listenDatagrams(path: string): Promise<void> {
  const udp = createSocket("udp4", (question, from) => {
    const stream = connect({ path });
    const length = Buffer.alloc(2);
    length.writeUInt16BE(question.length);
    let answer: Buffer = Buffer.alloc(0);
    stream.on("error", () => stream.destroy()).write(Buffer.concat([length, question]));
    stream.on("data", (chunk) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < 2 || answer.length < 2 + answer.readUInt16BE(0)) return;
      udp.send(answer.subarray(2), from.port, from.address);
      stream.destroy();
    });
  });
  await new Promise<void>((resolve) => udp.bind(DNS_PORT, "0.0.0.0", resolve));
}

process.stdin.on("end", () => process.exit(0)).resume();
const listening = Object.entries(sockets).map(([port, path]) => listen(Number(port), path));
const dns = sockets[DNS_PORT];
if (dns !== undefined) listening.push(listenDatagrams(dns));
void Promise.all(listening).then(() => {
  const own = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
  const address = own.find(({ internal, family }) => !internal && family === "IPv4")?.address ?? "";
  process.stdout.write(`ready ${address}\n`);
});
