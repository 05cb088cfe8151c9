import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request, type IncomingMessage, type Server } from "node:http";
import { connect, createServer, type AddressInfo, type Server as NetServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DOORS, type Door } from "../../backends/guard/doors.ts";
import { startGuard } from "../../backends/guard/guard.ts";
import { startHolder } from "../../backends/guard/holder.ts";

const state: { dir: string; servers: (Server | NetServer)[] } = { dir: "", servers: [] };
beforeEach(() => {
  state.dir = mkdtempSync(join(tmpdir(), "bb-guard-"));
});
afterEach(async () => {
  for (const server of state.servers.splice(0)) {
    if ("closeAllConnections" in server) server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  rmSync(state.dir, { recursive: true, force: true });
});

async function guard(): Promise<void> {
  state.servers.push(...(await startGuard({ sockets: state.dir })));
}

function socketOf(name: Door["name"]): string {
  return join(state.dir, `${name}.sock`);
}

interface Answer {
  status: number | undefined;
  body: unknown;
}

async function ask(name: Door["name"], options: { method?: string; path: string; body?: string }): Promise<Answer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const sent = request({ socketPath: socketOf(name), agent: false, headers: { host: "example.com" }, ...options });
    sent.on("response", resolve).on("error", reject).end(options.body);
  });
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, body: JSON.parse(text) };
}

/** Sends raw bytes and reads until the guard closes. */
function raw(path: string, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect({ path });
    socket.on("data", (chunk) => chunks.push(chunk)).on("error", () => {});
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
    socket.write(bytes);
  });
}

describe("guard", () => {
  it("a plain request is refused with what was asked for, why, and how to ask for it", async () => {
    await guard();

    const answer = await ask("egress", { path: "http://api.example:8080/v1?q=1", method: "POST", body: "a body" });

    expect(answer.status).toBe(403);
    expect(answer.body).toMatchObject({ host: "api.example", port: 8080, method: "POST", path: "/v1?q=1" });
    expect(Object.keys(Object(answer.body)).sort()).toEqual(
      ["host", "howToAsk", "method", "path", "port", "reason", "rule"].sort(),
    );
  });

  it("a tunnel is refused with the same JSON, and closed", async () => {
    await guard();

    const answer = await raw(socketOf("egress"), "CONNECT api.example:443 HTTP/1.1\r\nhost: api.example:443\r\n\r\n");

    expect(answer).toMatch(/^HTTP\/1\.1 403 /);
    const body = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n")));
    expect(body).toMatchObject({ host: "api.example", port: 443, method: "CONNECT" });
  });

  it("git, supervise and forge say that they are not enabled", async () => {
    await guard();

    for (const name of ["git", "supervise", "forge"] as const) {
      expect(await ask(name, { path: "/" })).toMatchObject({ status: 501, body: { error: "not enabled", door: name } });
    }
  });

  it("a header that is too long is cut off", async () => {
    await guard();

    const answer = await raw(socketOf("egress"), `GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(40_000)}`);

    expect(answer).not.toContain("403");
  });

  it("sockets left by a killed guard are replaced, anything else of that name is refused", async () => {
    await guard();
    const [left] = state.servers;
    await guard();
    expect((await ask("egress", { path: "/" })).status).toBe(403);
    expect(left).toBeDefined();

    rmSync(socketOf("git"));
    writeFileSync(socketOf("git"), "");
    await expect(startGuard({ sockets: state.dir })).rejects.toThrow(/is not a socket/);
  });

  it("sockets are for their owner alone", async () => {
    await guard();

    for (const { socket } of DOORS) expect(statSync(join(state.dir, socket)).mode & 0o777).toBe(0o600);
  });
});

/** A guard's end of one door, and the port in front of it. */
async function door(onConnection: (socket: Socket) => void): Promise<number> {
  const peer = createServer({ allowHalfOpen: true }, onConnection);
  await new Promise<void>((resolve) => peer.listen(join(state.dir, "egress.sock"), resolve));
  const [server] = await startHolder({
    sockets: state.dir,
    doors: [{ name: "egress", port: 0, socket: "egress.sock" }],
  });
  if (server === undefined) throw new Error("the holder made no server");
  state.servers.push(peer, server);
  return (server.address() as AddressInfo).port;
}

describe("holder", () => {
  it("bytes pass unchanged both ways, and an end of one direction leaves the other open", async () => {
    const port = await door((socket) => {
      let received = 0;
      socket.on("data", (chunk) => (received += chunk.length));
      // Answers only after the client has ended its direction.
      socket.on("end", () => socket.end(`received ${received}`));
    });
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });

    socket.end(Buffer.alloc(5_000_000, 1));
    let answer = "";
    for await (const chunk of socket) answer += String(chunk);

    expect(answer).toBe("received 5000000");
  });

  it("a reader that is slow holds back the writer", async () => {
    let wrote = 0;
    const port = await door((socket) => {
      const more = () => {
        while (!socket.destroyed && wrote < 200_000_000) {
          wrote += 65_536;
          if (!socket.write(Buffer.alloc(65_536))) return;
        }
      };
      socket.on("drain", more).on("error", () => {});
      more();
    });
    const socket = connect({ port, host: "127.0.0.1" });
    await new Promise((resolve) => socket.once("readable", resolve));
    // Without back-pressure this many turns of the event loop would let all of it through.
    for (let turn = 0; turn < 2_000; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    const unread = wrote;
    socket.destroy();

    expect(unread).toBeLessThan(50_000_000);
  });

  it("a client is cut off while no guard listens", async () => {
    const [server] = await startHolder({
      sockets: state.dir,
      doors: [{ name: "egress", port: 0, socket: "egress.sock" }],
    });
    if (server === undefined) throw new Error("the holder made no server");
    state.servers.push(server);
    const socket = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1" });

    await new Promise<void>((resolve) => {
      socket.on("error", () => {}).on("close", () => resolve());
    });

    expect(socket.destroyed).toBe(true);
  });
});
