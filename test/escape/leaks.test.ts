import { deflateSync, gzipSync, brotliCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { attempt, CANARY, ODD_CANARY, escapeSettings, get, post, useEscapeWorld } from "./attempts.ts";
import { openTunnel } from "../helpers/tunnel-client.ts";

const { world, expectNothingLeft, at } = useEscapeWorld();
const HOST = "allowed.test";
const FORM = "Content-Type: application/x-www-form-urlencoded";
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const hex = (text: string): string => Buffer.from(text).toString("hex");
const percent = (text: string): string =>
  [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

async function send(request: string): Promise<void> {
  const outcome = await attempt(world(), { authority: at(HOST), request });

  expect(outcome, outcome.text).toMatchObject({ status: 403, rule: "dlp" });
  expectNothingLeft();
}

describe("a secret in the head of a request does not leave", () => {
  it.each([
    ["in the path", `/x/${CANARY}`],
    ["in the query", `/?q=${CANARY}`],
    ["percent-encoded", `/?q=${percent(CANARY)}`],
    ["percent-encoded twice", `/?q=${percent(percent(CANARY))}`],
    ["in base64", `/?q=${encodeURIComponent(base64(`before ${CANARY} after`))}`],
    ["in hex", `/?q=${hex(CANARY)}`],
    ["in upper-case hex", `/?q=${hex(CANARY).toUpperCase()}`],
  ])("%s", async (_how, path) => {
    await send(get(at(HOST), path));
  });

  it.each([
    ["in a header", `X-Note: ${CANARY}`],
    ["in a cookie", `Cookie: a=b; note=${CANARY}`],
    ["in Basic authentication", `Authorization: Basic ${base64(`user:${CANARY}`)}`],
    ["in the name of a header", `X-${CANARY}: 1`],
    ["in the user agent", `User-Agent: agent/${base64(CANARY)}`],
  ])("%s", async (_how, header) => {
    await send(get(at(HOST), "/", [header]));
  });
});

describe("a secret in a body does not leave", () => {
  const boundary = "----boundary";
  it.each<[string, string, string[]]>([
    ["as text", `here: ${CANARY}`, []],
    ["as a value of JSON", JSON.stringify({ a: [{ b: CANARY }] }), ["Content-Type: application/json"]],
    ["as a key of JSON", JSON.stringify({ [CANARY]: 1 }), ["Content-Type: application/json"]],
    ["as a field of a form", new URLSearchParams({ a: "1", b: ODD_CANARY }).toString(), [FORM]],
    ["as a field of a form, with %20", `a=1&b=${encodeURIComponent(ODD_CANARY)}`, [FORM]],
    ["as escaped JSON", JSON.stringify({ a: ODD_CANARY }), ["Content-Type: application/json"]],
    ["as JSON in JSON", JSON.stringify({ a: JSON.stringify({ b: ODD_CANARY }) }), ["Content-Type: application/json"]],
    [
      "as a file name",
      `--${boundary}\r\nContent-Disposition: form-data; name="f"; filename="${CANARY}"\r\n\r\nx\r\n--${boundary}--\r\n`,
      [`Content-Type: multipart/form-data; boundary=${boundary}`],
    ],
    ["in base64", base64(`one more byte ${CANARY}`), []],
    ["in hex", hex(CANARY), []],
    ["of unknown type", `\u0000\u0001${CANARY}\u00ff`, ["Content-Type: application/x-unknown"]],
    ["after 400 kB of other bytes", "x".repeat(400_000) + CANARY, []],
  ])("%s", async (_how, body, headers) => {
    await send(post(at(HOST), "/upload", body, headers));
  });

  it.each([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
    ["br", brotliCompressSync],
  ] as const)("compressed with %s", async (encoding, compress) => {
    const body = compress(`some text around ${CANARY} and after it`).toString("latin1");

    await send(post(at(HOST), "/upload", body, [`Content-Encoding: ${encoding}`]));
  });

  it("cut into chunks", async () => {
    const chunks = [...`text ${CANARY}`].map((character) => `1\r\n${character}\r\n`).join("");
    const head = [
      `POST /upload HTTP/1.1`,
      `Host: ${at(HOST)}`,
      "Transfer-Encoding: chunked",
      "Connection: close",
      "",
      "",
    ];

    await send(`${head.join("\r\n")}${chunks}0\r\n\r\n`);
  });

  it("at the end of one so large that it is sent on while it comes", async () => {
    const body = "y".repeat(3_000_000) + CANARY + "z".repeat(10);

    await attempt(world(), { authority: at(HOST), request: post(at(HOST), "/upload", body) });

    const arrived = world()
      .upstream.seen.map((one) => one.body().toString("latin1"))
      .join("");
    expect(arrived).not.toContain(CANARY.slice(0, 8));
    expect(world().upstream.seen.filter((one) => one.state === "complete")).toEqual([]);
    await expect(
      world().guard.auditLine((one) => one.rule === "dlp" && one.bytesUp > 1_000_000),
    ).resolves.toBeDefined();
  });
});

describe("a body that cannot be looked into", () => {
  it.each(["zstd-unknown", "compress", "gzip, x-own", "aes128gcm"])("does not leave: %s", async (encoding) => {
    const request = post(at(HOST), "/upload", "whatever this is", [`Content-Encoding: ${encoding}`]);

    const outcome = await attempt(world(), { authority: at(HOST), request });

    expect(outcome).toMatchObject({ rule: "uninspectable" });
    expectNothingLeft();
  });

  it("is a bomb: it ends in the guard, and the guard answers on", async () => {
    const bomb = gzipSync(Buffer.alloc(200 * 1024 * 1024)).toString("latin1");

    const request = post(at(HOST), "/upload", bomb, ["Content-Encoding: gzip"]);
    const outcome = await attempt(world(), { authority: at(HOST), request });

    expect(outcome.status).toBeGreaterThanOrEqual(400);
    expect(world().upstream.seen.filter((one) => one.state === "complete")).toEqual([]);
    expect((await attempt(world(), { authority: at(HOST) })).status).toBe(200);
  });
});

describe("the budget", () => {
  it("ends an upload that is larger than what may leave, and the next one that does not fit", async () => {
    const budget = { uploadBytes: 4 * 1024 * 1024 };
    const settings = escapeSettings(world(), { budget });
    await world().configure(settings);
    const { guard } = world();
    const tunnel = await openTunnel({
      proxy: { port: guard.port },
      credentials: `bottle:${guard.token}`,
      authority: at(HOST),
    });

    await tunnel
      .ask({ method: "POST", path: "/upload", body: Buffer.alloc(20 * 1024 * 1024, "b") })
      .catch(() => undefined);
    tunnel.close();

    const left = world().upstream.seen.reduce((sum, one) => sum + one.bytes, 0);
    expect(left).toBeLessThanOrEqual(budget.uploadBytes);
    const next = post(at(HOST), "/upload", "c".repeat(100_000));
    expect(await attempt(world(), { authority: at(HOST), request: next })).toMatchObject({
      status: 403,
      rule: "budget",
    });
  });
});
