import { once } from "node:events";
import { request as httpRequest, type IncomingMessage, type RequestListener } from "node:http";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { patternBytes } from "../../helpers/upstream-routes.ts";
import { startRig, type Rig } from "./rig.ts";

const SECRET = "correct-horse-battery-staple-42";
let hangClosed = (): void => {};
const ROUTES: Record<string, RequestListener> = {
  "/trailers": (_request, response) => {
    response.writeHead(200, { trailer: "x-sum" });
    response.write("body");
    response.addTrailers({ "x-sum": "42" });
    response.end();
  },
  "/hints": (_request, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    response.end("hinted");
  },
  "/cut": (_request, response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write("only this", () => response.destroy());
  },
  "/cut-chunked": (_request, response) => {
    response.write("only this", () => response.destroy());
  },
  "/hang": (_request, response) => {
    response.once("close", () => hangClosed());
    response.write("begun");
  },
  "/show": (request, response) => {
    const seen = request.headers.authorization ?? "";
    response.writeHead(200, `it is ${seen}`, {
      location: `https://evil.test/?k=${encodeURIComponent(seen)}`,
      "set-cookie": ["a=1", `b=${seen}`],
      trailer: "x-seen",
    });
    response.write(`{"headers":{"authorization":"${seen.slice(0, 20)}`);
    void wait(5).then(() => {
      response.write(`${seen.slice(20)}"},"base64":"${Buffer.from(seen).toString("base64")}"}`);
      response.addTrailers({ "x-seen": seen });
      response.end();
    });
  },
  "/zipped": (_request, response) => void response.writeHead(200, { "content-encoding": "gzip" }).end("x"),
  "/accept": (request, response) => void response.end(String(request.headers["accept-encoding"])),
};

describe("an answer", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({
      handler: (request, response) => {
        const route = ROUTES[request.url ?? ""];
        response.on("error", () => response.destroy());
        route?.(request, response);
        return route !== undefined;
      },
    });
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.configure();
  });

  for (const version of ["h1", "h2"] as const) {
    it(`keeps its status, its headers and its bytes, over ${version}`, async () => {
      const whole = await rig.request({ version, path: "/bytes?n=3000000" });
      expect(whole.status).toBe(200);
      expect(whole.headers["content-length"]).toBe("3000000");
      expect(
        whole.body.equals(
          Buffer.concat(Array.from({ length: 46 }, (_, n) => patternBytes(n * 65_536, 65_536))).subarray(0, 3_000_000),
        ),
      ).toBe(true);

      const part = await rig.request({ version, path: "/bytes?n=1000", headers: { range: "bytes=10-19" } });
      expect(part).toMatchObject({ status: 206, headers: { "content-range": "bytes 10-19/1000" } });
      const unchanged = await rig.request({
        version,
        path: "/bytes?n=1000",
        headers: { "if-none-match": '"bytes-1000"' },
      });
      expect(unchanged).toMatchObject({ status: 304, text: "" });
      const head = await rig.request({ version, method: "HEAD", path: "/bytes?n=1000" });
      expect(head).toMatchObject({ status: 200, headers: { "content-length": "1000" }, text: "" });
      expect((await rig.request({ version, path: "/status?code=204" })).status).toBe(204);
      expect((await rig.request({ version, path: "/gzip" })).headers["content-encoding"]).toBe("gzip");
      expect((await rig.request({ version, path: "/redirect?to=https://evil.test/" })).status).toBe(302);
    });

    it(`is passed on event by event, over ${version}`, async () => {
      for (const inject of [false, true]) {
        configureInjection(rig, inject);
        const delays = await eventDelays(rig, version);
        expect(delays).toHaveLength(8);
        // A bound that a loaded machine keeps; what it rules out is waiting for the next event, 40 ms away.
        expect(delays.toSorted((a, b) => a - b)[4]).toBeLessThan(20);
      }
    });

    it(`keeps its trailers, over ${version}`, async () => {
      expect(await rig.request({ version, path: "/trailers" })).toMatchObject({
        text: "body",
        trailers: { "x-sum": "42" },
      });
    });

    it(`that breaks off upstream breaks off for the client, over ${version}`, async () => {
      for (const path of ["/cut", "/cut-chunked"]) {
        await expect(rig.request({ version, path }), path).rejects.toThrow();
        expect(await rig.line((line) => line.path === path)).toMatchObject({
          verdict: "Failed",
          rule: "upstream-failed",
        });
      }
    });

    it(`loses the injected credential wherever the host shows it, over ${version}`, async () => {
      configureInjection(rig, true);

      const answer = await rig.request({ version, path: "/show" });

      expect(answer.status).toBe(200);
      const shown = JSON.stringify([answer.headers, answer.text, answer.trailers]);
      for (const form of [SECRET, SECRET.slice(2), Buffer.from(`Bearer ${SECRET}`).toString("base64").slice(12, 40)]) {
        expect(shown).not.toContain(form);
      }
      expect(answer.text).toContain("Bearer ****");
    });

    it(`is not waited for any longer upstream when the client goes away, over ${version}`, async () => {
      const closed = new Promise<void>((resolve) => (hangClosed = resolve));

      await abandon(rig, version);

      await closed;
      expect(await rig.line((line) => line.path === "/hang")).toMatchObject({ verdict: "Allowed", status: 200 });
    });
  }

  it("carries early hints", async () => {
    const secure = await rig.tls();
    const sent = httpRequest({
      createConnection: () => secure,
      host: "allowed.test",
      port: rig.upstream.port,
      defaultPort: 443,
      path: "/hints",
    });
    const hints: unknown[] = [];
    sent.on("information", (info) => hints.push([info.statusCode, info.headers]));
    sent.end();
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    response.resume();

    expect(response.statusCode).toBe(200);
    expect(hints).toEqual([[103, expect.objectContaining({ link: "</style.css>; rel=preload" })]]);
    secure.destroy();
  });

  it("of a rule with a credential is asked for without compression, and refused if it is compressed all the same", async () => {
    configureInjection(rig, true);

    expect((await rig.request({ path: "/accept", headers: { "accept-encoding": "gzip, br" } })).text).toBe("identity");
    const answer = await rig.request({ path: "/zipped" });
    expect(answer).toMatchObject({ status: 502, rule: "uninspectable" });
    expect(JSON.parse(answer.text).howToAsk).toContain("the host compressed its answer");
  });

  it("may pause for as long as it likes", async () => {
    const answer = await rig.request({ path: "/slow?ms=1500" });

    expect(answer.status).toBe(200);
  });
});

function configureInjection(rig: Rig, inject: boolean): void {
  const injection = { header: "authorization", valueTemplate: "Bearer {value}", secret: "s/k" };
  rig.configure({ secrets: { "s/k": SECRET }, policy: { rules: [rig.rule({ inject: inject ? [injection] : [] })] } });
}

/** Milliseconds between the sending and the arrival of each event. */
async function eventDelays(rig: Rig, version: "h1" | "h2"): Promise<number[]> {
  const delays: number[] = [];
  const onData = (chunk: Buffer): void => {
    const now = performance.timeOrigin + performance.now();
    for (const [, sent] of chunk.toString().matchAll(/"sentMs":([0-9.]+)/g)) delays.push(now - Number(sent));
  };
  if (version === "h2") {
    const session = await rig.session();
    const stream = session.request({ ":path": "/events?n=8&ms=40" });
    stream.on("data", onData);
    await once(stream, "end");
    session.destroy();
    return delays;
  }
  const secure = await rig.tls();
  const sent = httpRequest({
    createConnection: () => secure,
    host: "allowed.test",
    port: rig.upstream.port,
    defaultPort: 443,
    path: "/events?n=8&ms=40",
  });
  sent.end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  response.on("data", onData);
  await once(response, "end");
  secure.destroy();
  return delays;
}

/** Goes away in the middle of an answer. */
async function abandon(rig: Rig, version: "h1" | "h2"): Promise<void> {
  if (version === "h2") {
    const session = await rig.session();
    const stream = session.request({ ":path": "/hang" });
    stream.on("error", () => {});
    await once(stream, "data");
    stream.close(8);
    return;
  }
  const secure = await rig.tls();
  secure.write(`GET /hang HTTP/1.1\r\nhost: allowed.test:${rig.upstream.port}\r\n\r\n`);
  let text = "";
  while (!text.includes("begun")) text += String((await once(secure, "data"))[0]);
  secure.destroy();
}
