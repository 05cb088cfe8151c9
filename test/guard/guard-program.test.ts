import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request, type IncomingMessage } from "node:http";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createControlClient } from "../../backends/guard/control-client.ts";
import { DOORS, type Door } from "../../backends/guard/doors.ts";
import { startGuard } from "../../backends/guard/guard.ts";
import { startHolder } from "../../backends/guard/holder.ts";
import type { GuardConfig } from "../../controller/ports/guard.ts";

const TOKEN = "token-of-this-bottle";
const CLOSED_DOORS = ["git", "supervise", "forge"] as const;

const state: { dir: string; ends: (() => Promise<unknown>)[] } = { dir: "", ends: [] };
beforeEach(() => {
  state.dir = mkdtempSync(join(tmpdir(), "bb-guard-"));
  mkdirSync(join(state.dir, "audit"));
});
afterEach(async () => {
  for (const end of state.ends.splice(0)) await end();
  rmSync(state.dir, { recursive: true, force: true });
});

async function guard(roles?: readonly Door["name"][]): Promise<void> {
  const audit = join(state.dir, "audit");
  const { close } = await startGuard({
    sockets: state.dir,
    audit,
    control: "socket",
    roles,
    hostAddresses: [],
    dns: [],
  });
  state.ends.push(close);
}

async function configure(part: Partial<GuardConfig> = {}): Promise<{ digest: string; caCertificate: string }> {
  const control = connect({ path: join(state.dir, "control.sock") });
  try {
    return await createControlClient(control).configure({
      digest: "digest-1",
      token: TOKEN,
      policy: { rules: [], dlp: "Block", audit: "Full", budget: {} },
      placeholders: {},
      secretRefs: [],
      secrets: {},
      ...part,
    });
  } finally {
    control.destroy();
  }
}

function socketOf(name: Door["name"]): string {
  return join(state.dir, `${name}.sock`);
}

interface Answer {
  status: number | undefined;
  body: unknown;
}

interface Asked {
  method?: string;
  path: string;
  body?: string;
  headers?: Record<string, string>;
}

async function ask(name: Door["name"], { headers, body, ...options }: Asked): Promise<Answer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const all = { host: "example.com", ...headers };
    const sent = request({ socketPath: socketOf(name), agent: false, headers: all, ...options });
    sent.on("response", resolve).on("error", reject).end(body);
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

function basic(password: string): string {
  return `Basic ${Buffer.from(`bottle:${password}`).toString("base64")}`;
}

describe("guard", () => {
  it("before it is configured it refuses every request, with what was asked for and why", async () => {
    await guard();

    for (const authorization of [undefined, basic(TOKEN)]) {
      const headers = authorization === undefined ? undefined : { "proxy-authorization": authorization };
      const asked = { path: "http://api.example:8080/v1?q=1", method: "POST", body: "a body", headers };
      const answer = await ask("egress", asked);
      expect(answer).toMatchObject({ status: 503, body: { rule: "not-configured" } });
    }
    for (const name of CLOSED_DOORS) {
      const answer = await ask(name, { path: "/", headers: { authorization: `Bearer ${TOKEN}` } });
      expect(answer).toMatchObject({ status: 503, body: { error: "not configured", door: name } });
    }
  });

  it("a tunnel is refused with the same JSON before it is configured, and closed", async () => {
    await guard();

    const answer = await raw(socketOf("egress"), "CONNECT api.example:443 HTTP/1.1\r\nhost: api.example:443\r\n\r\n");

    expect(answer).toMatch(/^HTTP\/1\.1 503 /);
    expect(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n")))).toMatchObject({ rule: "not-configured" });
  });

  it("a plain request that no rule allows is refused with what was asked for, why, and how to ask for it", async () => {
    await guard();
    await configure();

    const headers = { host: "api.example:8080", "proxy-authorization": basic(TOKEN) };
    const answer = await ask("egress", { path: "http://api.example:8080/v1?q=1", method: "POST", headers });

    expect(answer.status).toBe(403);
    expect(answer.body).toMatchObject({ host: "api.example", port: 8080, method: "POST", path: "/v1" });
    expect(Object.keys(Object(answer.body))).toEqual(expect.arrayContaining(["rule", "reason", "howToAsk"]));
  });

  it("configure answers with the certificate of this guard, the same one each time", async () => {
    await guard();

    const [first, second] = [await configure(), await configure({ digest: "digest-2" })];

    expect(first.caCertificate).toMatch(/^-----BEGIN CERTIFICATE-----\n[^-]+-----END CERTIFICATE-----\n$/);
    expect(second).toEqual({ digest: "digest-2", caCertificate: first.caCertificate });
  });

  it("every port asks for the bottle's token before it says anything else", async () => {
    await guard();
    await configure();
    const wrong = [
      "",
      "Bearer ",
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(1)}`,
      basic("another"),
      `Digest ${TOKEN}`,
      TOKEN,
    ];
    const right = [`Bearer ${TOKEN}`, `bearer ${TOKEN}`, basic(TOKEN)];

    for (const name of CLOSED_DOORS) {
      expect(await ask(name, { path: "/" })).toMatchObject({ status: 401, body: { error: "unauthorized" } });
      for (const authorization of wrong) {
        expect((await ask(name, { path: "/", headers: { authorization } })).status, authorization).toBe(401);
      }
      for (const authorization of right) {
        const answer = await ask(name, { path: "/", headers: { authorization } });
        expect(answer).toMatchObject({ status: 501, body: { error: "not enabled", door: name } });
      }
    }
    expect((await ask("egress", { path: "http://api.example/" })).status).toBe(407);
  });

  it("the token of an earlier configuration opens nothing any more", async () => {
    await guard();
    await configure();
    await configure({ token: "another-token-of-it" });

    const answer = await ask("git", { path: "/", headers: { authorization: `Bearer ${TOKEN}` } });

    expect(answer.status).toBe(401);
  });

  it("a guard of some roles listens at their doors alone", async () => {
    await guard(["git"]);

    expect((await ask("git", { path: "/" })).status).toBe(503);
    await expect(ask("forge", { path: "/" })).rejects.toThrow(/ENOENT/);
  });

  it("a header that is too long is cut off", async () => {
    await guard();

    for (const { name } of DOORS) {
      const answer = await raw(socketOf(name), `GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(40_000)}`);
      expect(answer).not.toMatch(/^HTTP\/1\.1 (?:2|403|501)/);
    }
  });

  it("sockets left by a killed guard are replaced, anything else of that name is refused", async () => {
    await guard();
    await guard();
    expect((await ask("egress", { path: "http://api.example/" })).status).toBe(503);

    rmSync(socketOf("git"));
    writeFileSync(socketOf("git"), "");
    await expect(guard()).rejects.toThrow(/is not a socket/);
  });

  it("sockets are for their owner alone", async () => {
    await guard();

    for (const socket of [...DOORS.map((one) => one.socket), "control.sock"]) {
      expect(statSync(join(state.dir, socket)).mode & 0o777).toBe(0o600);
    }
  });
});

/** Closes with its connections when the test ends. */
function follow(server: Server): void {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket));
  state.ends.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
}

/** A guard's end of one door, and the port in front of it. */
async function door(onConnection: (socket: Socket) => void): Promise<number> {
  const peer = createServer({ allowHalfOpen: true }, onConnection);
  await new Promise<void>((resolve) => peer.listen(join(state.dir, "egress.sock"), resolve));
  const [server] = await startHolder({
    sockets: state.dir,
    doors: [{ name: "egress", port: 0, socket: "egress.sock" }],
  });
  if (server === undefined) throw new Error("the holder made no server");
  follow(peer);
  follow(server);
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
    follow(server);
    const socket = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1" });

    await new Promise<void>((resolve) => {
      socket.on("error", () => {}).on("close", () => resolve());
    });

    expect(socket.destroyed).toBe(true);
  });
});
