import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { createRepository, git, GIT_ENV, gitHttp } from "../helpers/git-http-double.ts";
import { describeWith } from "../helpers/needs.ts";
import { npmRegistry, pythonIndex } from "../helpers/registry-double.ts";
import { run, runNode, start, type Ran } from "../helpers/run.ts";
import { patternBytes } from "../helpers/upstream-routes.ts";
import type { UpstreamHandler } from "../helpers/upstreams.ts";
import { startWorld, type World } from "../helpers/world.ts";

const PACKAGE = { name: "bottletiny", version: "1.2.3", text: "it came through the guard" };
const KEY = "test-credential-0123456789abcdef";
const MIB = 1024 * 1024;

/** Answers that wait for the test: proof that a part came before the whole was there. */
const gate: { open: ServerResponse[] } = { open: [] };
const gated: UpstreamHandler = (request, response) => {
  if (request.url !== "/gated") return false;
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write("data: first\n\n");
  gate.open.push(response);
  return true;
};

const state: { dir: string; world?: World } = { dir: "" };
function world(): World {
  if (state.world === undefined) throw new Error("the world was not made");
  return state.world;
}

beforeAll(async () => {
  state.dir = mkdtempSync(join(tmpdir(), "bb-clients-"));
  createRepository(state.dir, "demo");
  const forge = gitHttp({ root: state.dir, authorization: `Basic ${Buffer.from(`bot:${KEY}`).toString("base64")}` });
  const hosts = ["web.test", "git.test", "npm.test", "python.test", "elsewhere.test"];
  const made = await startWorld({ hosts, handlers: [gated, forge, await npmRegistry(PACKAGE), pythonIndex(PACKAGE)] });
  state.world = made;
  await made.configure({
    secrets: { "keys/api": KEY },
    policy: {
      rules: [
        made.rule({
          name: "web",
          host: "web.test",
          webSocket: true,
          inject: [{ header: "authorization", valueTemplate: "Bearer {value}", secret: "keys/api" }],
        }),
        made.rule({
          name: "git",
          host: "git.test",
          inject: [{ header: "authorization", valueTemplate: "Basic {base64:bot:}", secret: "keys/api" }],
        }),
        made.rule({ name: "npm", host: "npm.test", methods: ["GET"] }),
        made.rule({ name: "python", host: "python.test", methods: ["GET", "HEAD"] }),
      ],
    },
  });
});
afterAll(async () => {
  await state.world?.[Symbol.asyncDispose]();
  rmSync(state.dir, { recursive: true, force: true });
});
beforeEach(() => {
  world().upstream.seen.length = 0;
});

function env(): Record<string, string> {
  return { ...world().guard.clientEnv(), ...GIT_ENV };
}

/** A client that failed says why in the test's own report. */
function ok(ran: Ran): string {
  expect(ran, ran.stderr).toMatchObject({ status: 0 });
  return ran.stdout;
}

async function script(text: string): Promise<string> {
  return ok(await runNode(text, { env: env() }));
}

function curl(...args: string[]): Promise<string> {
  return run(["curl", "--silent", "--show-error", ...args], { env: env() }).then(ok);
}

function inClone(dir: string, ...args: string[]): Promise<string> {
  return run(["git", "-C", dir, ...args], { env: env() }).then(ok);
}

function python(text: string): Promise<string> {
  return run(["python3", "-c", text], { env: env() }).then(ok);
}

describeWith(["curl", "openssl"], "curl and openssl through the guard", () => {
  it.each([
    ["--http1.1", "1.1"],
    ["--http2", "2"],
  ])("curl %s gets an answer over HTTP/%s, and upstream the credential", async (option, version) => {
    const out = await curl(option, "--write-out", "\n%{http_version} %{response_code}", world().url("web.test", "/"));

    expect(out).toBe(`ok\n\n${version} 200`);
    expect(world().upstream.seen).toMatchObject([{ method: "GET", headers: { authorization: `Bearer ${KEY}` } }]);
  });

  it("an answer of upstream that repeats the credential does not show it to the agent", async () => {
    const out = await curl(world().url("web.test", "/headers"));

    expect(JSON.parse(out)).toMatchObject({ host: `web.test:${world().upstream.port}` });
    expect(out).not.toContain(KEY);
  });

  it.each(["--http1.1", "--http2"])("an upload of 5 MiB with %s arrives as it was sent", async (option) => {
    const file = join(state.dir, "upload.bin");
    writeFileSync(file, Buffer.concat(Array.from({ length: 160 }, () => patternBytes(0, MIB / 32))));
    const sha256 = createHash("sha256").update(readFileSync(file)).digest("hex");

    const out = await curl(option, "--data-binary", `@${file}`, world().url("web.test", "/upload"));

    expect(JSON.parse(out)).toEqual({ bytes: 5 * MIB, sha256 });
  });

  it.each(["/gzip", "/br"])("a compressed answer (%s) is one that curl can read", async (path) => {
    const out = await curl("--compressed", world().url("python.test", path));

    expect(JSON.parse(out)).toMatchObject({ encoding: path.slice(1) });
  });

  it("a host that gets a credential is asked for an answer that can be looked into", async () => {
    const out = await curl("--compressed", world().url("web.test", "/negotiated"));

    expect(JSON.parse(out)).toEqual({ encoding: "identity" });
  });

  it.each(["--http1.1", "--http2"])("an event is there before the stream ends (%s)", async (option) => {
    gate.open.length = 0;
    const url = world().url("web.test", "/gated");
    const client = start(["curl", "--silent", "--show-error", "--no-buffer", option, url], { env: env() });

    await client.shows("data: first");
    gate.open[0]?.end("data: last\n\n");

    expect(ok(await client.ended)).toBe("data: first\n\ndata: last\n\n");
  });

  it("a host without a rule is refused inside TLS, with the rule and how to ask", async () => {
    const out = await curl("--write-out", "\n%{response_code}", world().url("elsewhere.test", "/x?q=1"));

    const [body = "", code] = out.trim().split("\n");
    expect(code).toBe("403");
    expect(JSON.parse(body)).toMatchObject({
      rule: "default-deny",
      host: "elsewhere.test",
      port: world().upstream.port,
      method: "GET",
      path: "/x",
      howToAsk: expect.any(String),
    });
    expect(world().upstream.seen).toEqual([]);
    const line = await world().guard.auditLine((one) => one.host === "elsewhere.test" && one.kind === "request");
    expect(line).toMatchObject({ verdict: "Denied", rule: "default-deny", status: 403 });
  });

  it("curl learns at once that its download was cut short", async () => {
    gate.open.length = 0;
    const url = world().url("web.test", "/gated");
    const client = start(["curl", "--silent", "--show-error", "--no-buffer", "--http1.1", url], { env: env() });

    await client.shows("data: first");
    gate.open[0]?.destroy();

    expect((await client.ended).status).not.toBe(0);
  });

  it("openssl finds the certificate of the guard correct, also when it is strict", async () => {
    const { guard, upstream } = world();
    const checks = ["-verify_return_error", "-x509_strict", "-verify_hostname", "web.test", "-brief"];
    const proxy = ["-proxy", `127.0.0.1:${guard.port}`, "-proxy_user", "bottle", "-proxy_pass", "env:TOKEN"];
    const target = ["-connect", `web.test:${upstream.port}`, "-servername", "web.test"];

    const ran = await run(["openssl", "s_client", ...target, ...proxy, "-CAfile", guard.caFile, ...checks], {
      env: { ...env(), TOKEN: guard.token },
    });

    expect(ran.stderr).toContain("Verification: OK");
  });
});

describeWith(["git"], "git through the guard", () => {
  it("a clone, a push and a fetch work, and the credential is in none of them", async () => {
    const repository = world().url("git.test", "/demo.git");
    const [clone, other] = [join(state.dir, "clone"), join(state.dir, "other")];
    for (const dir of [clone, other]) ok(await run(["git", "clone", "--quiet", repository, dir], { env: env() }));
    writeFileSync(join(clone, "new.txt"), "x\n".repeat(200_000));

    await inClone(clone, "add", "new.txt");
    await inClone(clone, "commit", "--quiet", "-m", "from the bottle");
    await inClone(clone, "push", "--quiet", "origin", "main:bottle");
    await inClone(other, "fetch", "--quiet", "origin", "bottle");

    const [pushed, fetched] = [
      git(["-C", join(state.dir, "demo.git"), "rev-parse", "bottle"]),
      git(["-C", other, "rev-parse", "FETCH_HEAD"]),
    ];
    expect(fetched).toBe(pushed);
    expect(readFileSync(join(clone, ".git", "config"), "utf8")).not.toContain(KEY);
    expect(world().upstream.seen.every((one) => one.headers.authorization?.startsWith("Basic "))).toBe(true);
  });

  it("a shallow clone without blobs fetches what it needs later", async () => {
    const repository = world().url("git.test", "/demo.git");
    const dir = join(state.dir, "shallow");

    ok(await run(["git", "clone", "--quiet", "--depth=1", "--filter=blob:none", repository, dir], { env: env() }));

    expect(readFileSync(join(dir, "README.md"), "utf8")).toContain("repository of a test");
  });
});

describeWith(["npm"], "Node and npm through the guard", () => {
  it("npm installs a package and its integrity holds", async () => {
    const dir = mkdtempSync(join(state.dir, "npm-"));
    writeFileSync(join(dir, "package.json"), JSON.stringify({ name: "app", version: "1.0.0", private: true }));
    const quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--cache", join(dir, "cache")];
    const registry = ["--registry", world().url("npm.test", "/"), "--fetch-retries=0"];

    ok(await run(["npm", "install", PACKAGE.name, ...quiet, ...registry], { env: env(), cwd: dir }));

    expect(readFileSync(join(dir, "node_modules", PACKAGE.name, "index.js"), "utf8")).toContain(PACKAGE.text);
  });

  it("fetch with a proxy agent reads events as they come", async () => {
    const out = await script(`
      import { EnvHttpProxyAgent, fetch } from "undici";
      const dispatcher = new EnvHttpProxyAgent();
      const response = await fetch("${world().url("web.test", "/events?n=6&ms=50")}", { dispatcher });
      let chunks = 0;
      for await (const chunk of response.body) chunks += 1;
      console.log(response.status, chunks >= 5);
      await dispatcher.close();
    `);

    expect(out).toBe("200 true\n");
  });

  it("a client that goes away takes its request upstream with it", async () => {
    gate.open.length = 0;
    const out = await script(`
      import { EnvHttpProxyAgent, fetch } from "undici";
      const dispatcher = new EnvHttpProxyAgent();
      const leave = new AbortController();
      const response = await fetch("${world().url("web.test", "/gated")}", { dispatcher, signal: leave.signal });
      await response.body.getReader().read();
      leave.abort();
      console.log("left");
      await dispatcher.destroy();
    `);

    expect(out).toBe("left\n");
    await expect.poll(() => gate.open[0]?.destroyed, { timeout: 10_000 }).toBe(true);
  });

  it("a WebSocket opens with the credential and carries text and bytes both ways", async () => {
    const out = await script(`
      import { EnvHttpProxyAgent, WebSocket } from "undici";
      const dispatcher = new EnvHttpProxyAgent();
      const socket = new WebSocket("${world().url("web.test", "/ws").replace("https:", "wss:")}", { dispatcher });
      socket.binaryType = "arraybuffer";
      socket.onopen = () => { socket.send("hello"); socket.send(new Uint8Array(70_000).fill(7)); };
      socket.onerror = (event) => console.log("error", event.message);
      let count = 0;
      socket.onmessage = ({ data }) => {
        console.log(typeof data === "string" ? data : data.byteLength);
        if (++count === 2) socket.close(1000);
      };
      socket.onclose = ({ code }) => { console.log("closed", code); dispatcher.destroy(); };
    `);

    expect(out).toBe("hello\n70000\nclosed 1000\n");
    expect(world().upstream.seen).toMatchObject([{ url: "/ws", headers: { authorization: `Bearer ${KEY}` } }]);
  });

  it("a redirect to a host without a rule ends there", async () => {
    const target = encodeURIComponent(world().url("elsewhere.test", "/"));
    const out = await script(`
      import { EnvHttpProxyAgent, fetch } from "undici";
      const dispatcher = new EnvHttpProxyAgent();
      const response = await fetch("${world().url("web.test", `/redirect?to=${target}`)}", { dispatcher });
      console.log(response.status, (await response.json()).rule);
      await dispatcher.close();
    `);

    expect(out).toBe("403 default-deny\n");
    expect(world().upstream.seen.map((one) => one.headers.host)).toEqual([`web.test:${world().upstream.port}`]);
  });
});

describeWith(["python3"], "Python through the guard", () => {
  it("urllib resumes a download by range and entity tag", async () => {
    const out = await python(`
import hashlib, urllib.request
url = "${world().url("python.test", "/bytes?n=3000000")}"
head = urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=0-999999"}))
first = head.read()
tail = urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=1000000-", "If-Range": head.headers["ETag"]}))
whole = first + tail.read()
print(head.status, tail.status, len(whole), all(whole[n] == n % 251 for n in range(0, 3000000, 997)))
`);

    expect(out).toBe("206 206 3000000 True\n");
  });

  it("urllib reads a refusal as JSON", async () => {
    const out = await python(`
import json, urllib.error, urllib.request
try:
    urllib.request.urlopen(urllib.request.Request("${world().url("python.test", "/")}", method="DELETE"))
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["method"])
`);

    expect(out).toBe("403 DELETE\n");
  });
});

describeWith(["pip"], "pip through the guard", () => {
  it("downloads a package and its hash holds", async () => {
    const dir = mkdtempSync(join(state.dir, "pip-"));
    const options = ["--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--dest", dir];
    const index = ["--index-url", world().url("python.test", "/simple/"), "--retries=0"];

    ok(await run(["python3", "-m", "pip", "download", ...options, ...index, PACKAGE.name], { env: env() }));

    expect(readFileSync(join(dir, `${PACKAGE.name}-${PACKAGE.version}-py3-none-any.whl`), "latin1")).toContain(
      PACKAGE.text,
    );
  });
});
