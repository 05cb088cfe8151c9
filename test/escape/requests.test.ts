import { describe, expect, it } from "vitest";
import { exchange, rawConnect, rawTls, statusesOf } from "../helpers/raw-http.ts";
import { attempt, get, isRefused, post, useEscapeWorld, type Outcome } from "./attempts.ts";

const { world, expectNothingLeft, at } = useEscapeWorld();

/** Several requests on one connection, written at once. */
async function pipelined(host: string, bytes: string): Promise<string> {
  const { guard } = world();
  const { socket } = await rawConnect(guard.port, { authority: at(host), credentials: `bottle:${guard.token}` });
  const tls = await rawTls(socket, { serverName: host });
  if (tls === undefined) throw new Error(`no TLS with ${host}`);
  return exchange(tls, bytes);
}

/** A GET to the host whose rule has paths. */
function ask(path: string): Promise<Outcome> {
  return attempt(world(), { authority: at("api.allowed.test"), request: get(at("api.allowed.test"), path) });
}

describe("a request that two servers could read differently", () => {
  const smuggled = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";

  it.each([
    ["two lengths", ["Content-Length: 5", "Content-Length: 6"], "hello"],
    ["a length and chunks", ["Content-Length: 6", "Transfer-Encoding: chunked"], `0\r\n\r\n${smuggled}`],
    ["an unknown transfer coding", ["Transfer-Encoding: xchunked"], `0\r\n\r\n${smuggled}`],
    ["two transfer codings", ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], `0\r\n\r\n${smuggled}`],
    ["a space before the colon", ["Transfer-Encoding : chunked"], `0\r\n\r\n${smuggled}`],
    ["a folded header", ["X-Folded: a", " b: c", "Content-Length: 0"], smuggled],
    ["a bare line feed in a header", ["X-Bare: a\nTransfer-Encoding: chunked"], `0\r\n\r\n${smuggled}`],
    ["a length that is no number", ["Content-Length: +5"], "hello"],
    ["a chunk size with a sign", ["Transfer-Encoding: chunked"], `+5\r\nhello\r\n0\r\n\r\n`],
  ])("never brings its second reading to a server: %s", async (_what, headers, body) => {
    const head = ["POST /first HTTP/1.1", `Host: ${at("allowed.test")}`, "Connection: close", ...headers, "", ""];

    await pipelined("allowed.test", head.join("\r\n") + body);

    expect(world().upstream.seen.map((one) => one.url)).not.toContain("/smuggled");
    expect(world().upstream.seen.filter((one) => one.state === "complete")).toEqual([]);
  });

  it("is decided again for each request of a connection", async () => {
    const first = get(at("allowed.test"), "/first").replace("Connection: close\r\n", "");
    const text = await pipelined("allowed.test", first + get("evil.test", "/second"));

    expect(statusesOf(text)).toEqual([200, 421]);
    expect(world().upstream.seen.map((one) => one.url)).toEqual(["/first"]);
  });
});

describe("a method or protocol that leads around the guard", () => {
  it.each(["TRACE", "CONNECT", "TRACK", "PRI"])("is refused: %s", async (method) => {
    const request = get(at("allowed.test")).replace("GET", method);

    expect(isRefused(await attempt(world(), { authority: at("allowed.test"), request }))).toBe(true);
    expectNothingLeft();
  });

  it("an upgrade to HTTP/2 without TLS is not passed on", async () => {
    const upgrade = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"];
    const request = ["GET / HTTP/1.1", `Host: ${at("allowed.test")}`, ...upgrade, "", ""].join("\r\n");

    const outcome = await attempt(world(), { authority: at("allowed.test"), request });

    expect(outcome.status).not.toBe(101);
    expect(world().upstream.seen.filter((one) => one.headers.upgrade !== undefined)).toEqual([]);
  });

  it("a WebSocket needs a rule that says so", async () => {
    const upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
    const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const request = ["GET /ws HTTP/1.1", `Host: ${at("allowed.test")}`, ...upgrade, key, "", ""].join("\r\n");

    const outcome = await attempt(world(), { authority: at("allowed.test"), request });

    expect(outcome).toMatchObject({ status: 403, rule: "websocket-refused" });
    expectNothingLeft();
  });
});

describe("a rule with paths and methods", () => {
  it.each(["/repos/x", "/repos/x/issues", "/repos/x/issues?state=open"])("allows what is below: %s", async (path) => {
    expect((await ask(path)).status).toBe(200);
    expect(world().upstream.seen.map((one) => one.url)).toEqual([path]);
  });

  it.each([
    "/",
    "/repos/xy",
    "/repos/x/../y",
    "/repos/x/./../y",
    "/repos/x/%2e%2e/y",
    "/repos/x/%2E%2e/y",
    "/repos/x/..%2fy",
    "/repos/x%2f..%2fy",
    "/repos/x/..\\y",
    "/repos/x/%5c..%5cy",
    "//repos/x",
    "/repos//x",
    "/repos/x/..;/y",
    "/repos/x;a=b/../y",
    "/repos/x/%00",
    "/REPOS/x",
    "/%72epos/%79",
    "*",
  ])("refuses what is beside, however it is spelt: %s", async (path) => {
    expect(isRefused(await ask(path))).toBe(true);
    expectNothingLeft();
  });

  it.each(["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x_http_method_override"])(
    "refuses a header that asks for another method: %s",
    async (name) => {
      const request = post(at("api.allowed.test"), "/repos/x", "", [`${name}: DELETE`]);

      expect(isRefused(await attempt(world(), { authority: at("api.allowed.test"), request }))).toBe(true);
      expectNothingLeft();
    },
  );

  it("refuses another method", async () => {
    const request = get(at("api.allowed.test"), "/repos/x").replace("GET", "DELETE");

    expect(await attempt(world(), { authority: at("api.allowed.test"), request })).toMatchObject({ status: 403 });
    expectNothingLeft();
  });
});
