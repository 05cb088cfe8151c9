import { once } from "node:events";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { startRig, type Rig } from "./rig.ts";

const CUT_MS_MAX = 1_000;

describe("a policy that changes", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({
      hosts: ["allowed.test", "kept.test"],
      handler: (request, response) => {
        if (request.url?.startsWith("/hang") !== true) return false;
        response.on("error", () => response.destroy());
        response.write("begun");
        return true;
      },
    });
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  const both = [{}, { name: "kept", host: "kept.test" }];
  beforeEach(() => {
    rig.lines.length = 0;
    rig.configure({ policy: { rules: both.map((part) => rig.rule(part)) } });
  });

  const hang = async (host: string): Promise<TLSSocket> => {
    const secure = await rig.tls({ host });
    secure.on("error", () => {});
    secure.write(`GET /hang HTTP/1.1\r\nhost: ${host}:${rig.upstream.port}\r\n\r\n`);
    let text = "";
    while (!text.includes("begun")) text += String((await once(secure, "data"))[0]);
    return secure;
  };

  it("breaks off the requests that it refuses, at once, and no others", async () => {
    const [cut, kept] = [await hang("allowed.test"), await hang("kept.test")];
    const closed = once(cut, "close");

    rig.configure({ policy: { rules: [rig.rule({ name: "kept", host: "kept.test" })] } });

    await within(closed);
    expect(await rig.line()).toMatchObject({
      verdict: "Denied",
      rule: "narrowed",
      host: "allowed.test",
      path: "/hang",
      status: 200,
    });
    expect(kept.destroyed).toBe(false);
    expect(rig.lines).toHaveLength(1);
    kept.destroy();
  });

  it("breaks off a stream of HTTP/2 and leaves its session to other requests", async () => {
    const session = await rig.session();
    const stream = session.request({ ":path": "/hang" });
    stream.on("error", () => {});
    await once(stream, "data");
    const closed = new Promise((resolve) => stream.once("close", resolve));

    rig.configure({ policy: { rules: [rig.rule({ paths: [{ type: "Exact", value: "/fine" }] })] } });

    await within(closed);
    const fine = session.request({ ":path": "/fine" });
    expect((await once(fine, "response"))[0][":status"]).toBe(200);
    session.destroy();
  });

  it("refuses, in words, a request that waits for its answer", async () => {
    const secure = await rig.tls();
    secure.write(`GET /slow?ms=5000 HTTP/1.1\r\nhost: allowed.test:${rig.upstream.port}\r\n\r\n`);
    await untilSeen(rig, "/slow");

    rig.configure({ policy: { rules: [] } });

    expect(String((await once(secure, "data"))[0])).toMatch(/^HTTP\/1.1 403 .*"rule":"narrowed"/s);
    secure.destroy();
  });

  it("breaks off what runs to addresses that its rule no longer opens", async () => {
    const cut = await hang("allowed.test");
    const closed = once(cut, "close");

    rig.configure({ policy: { rules: [rig.rule({ cidrs: [] })] } });

    await within(closed);
    expect(await rig.line()).toMatchObject({ rule: "narrowed" });
  });

  for (const protocol of ["TLS", "TCP"] as const) {
    it(`breaks off ${protocol} tunnels that it refuses`, async () => {
      rig.configure({ policy: { rules: [rig.rule({ protocol })] } });
      const socket = await rig.tunnel();
      const secure = connectTls({ socket, ca: rig.testAuthority.certificate, servername: "allowed.test" });
      await once(secure, "secureConnect");
      secure.on("error", () => {});
      const closed = once(secure, "close");

      rig.configure({ policy: { rules: [] } });

      await within(closed);
      expect(await rig.line()).toMatchObject({ kind: "tunnel", verdict: "Denied", rule: "narrowed", protocol });
    });
  }

  it("breaks off WebSockets that it refuses", async () => {
    rig.configure({ policy: { rules: [rig.rule({ webSocket: true })] } });
    const secure = await rig.tls();
    const socket = new WebSocket(`wss://allowed.test:${rig.upstream.port}/ws`, { createConnection: () => secure });
    socket.on("error", () => {});
    await once(socket, "open");
    const closed = once(socket, "close");

    rig.configure({ policy: { rules: [rig.rule({ webSocket: false })] } });

    await within(closed);
    expect(await rig.line()).toMatchObject({ rule: "narrowed", status: 101 });
  });

  it("breaks off everything when the guard is closed, and tunnels when the token is another one", async () => {
    const first = await hang("allowed.test");
    const closed = once(first, "close");
    rig.configure({ closed: { reason: "SecretMissing", message: "a secret is missing" } });
    await within(closed);

    rig.configure();
    const idle = (await rig.tls()).resume();
    const ended = once(idle, "close");
    rig.configure({ token: "another-token-of-this-bottle" });
    await within(ended);
  });

  it("that is wider needs no restart: the next request in an open tunnel is allowed", async () => {
    rig.configure({ policy: { rules: [] } });
    const session = await rig.session();
    const refused = session.request({ ":path": "/" });
    expect((await once(refused, "response"))[0][":status"]).toBe(403);

    rig.configure();

    const allowed = session.request({ ":path": "/" });
    expect((await once(allowed, "response"))[0][":status"]).toBe(200);
    session.destroy();
  });
});

async function untilSeen(rig: Rig, path: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!rig.upstream.seen.some(({ url }) => url.startsWith(path))) {
    if (performance.now() > deadline) throw new Error(`${path} did not reach the host`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function within(closed: Promise<unknown>): Promise<void> {
  const begin = performance.now();
  await closed;
  expect(performance.now() - begin).toBeLessThan(CUT_MS_MAX);
}
