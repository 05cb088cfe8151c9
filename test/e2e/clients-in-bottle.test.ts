import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CANARY } from "../escape/attempts.ts";
import { NEEDS, secretManifest, startRig, templateManifest, type BottleRig } from "../escape/bottle-rig.ts";
import { createRepository, git, gitHttp } from "../helpers/git-http-double.ts";
import { describeWith } from "../helpers/needs.ts";
import { npmRegistry } from "../helpers/registry-double.ts";
import { BACKENDS, bottleManifest, outcomeOf } from "./bottles.ts";
import { traces } from "./traces.ts";

const TIMEOUT_MS = 180_000;
const PACKAGE = { name: "bottletiny", version: "1.2.3", text: "it came through the guard" };
const HOSTS = ["web.test", "git.test", "npm.test", "elsewhere.test"];
/** Reads a file in parts, as a download that goes on where it was cut does. */
const RANGES = String.raw`
import os, urllib.request
def part(first, last):
    request = urllib.request.Request(os.environ["WEB"] + "/bytes?n=300000", headers={"Range": f"bytes={first}-{last}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206, answer.status
        return answer.read()
whole = part(0, 99999) + part(100000, 299999)
print("ranges", whole == bytes(n % 251 for n in range(300000)))
`;
/** By hand, because Node 20 has no client of its own: the handshake through CONNECT and TLS, one masked text, and its echo. */
const WEBSOCKET = String.raw`
import base64, os, socket, ssl, struct, urllib.parse
proxy, web = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"]), urllib.parse.urlsplit(os.environ["WEB"])
login = base64.b64encode(f"{proxy.username}:{urllib.parse.unquote(proxy.password)}".encode()).decode()
tunnel = socket.create_connection((proxy.hostname, proxy.port), timeout=20)
tunnel.sendall(f"CONNECT {web.netloc} HTTP/1.1\r\nHost: {web.netloc}\r\nProxy-Authorization: Basic {login}\r\n\r\n".encode())
def head(stream):
    text = b""
    while b"\r\n\r\n" not in text:
        text += stream.recv(1)
    return text.decode("latin-1")
assert " 200 " in head(tunnel)
tls = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]).wrap_socket(tunnel, server_hostname=web.hostname)
key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
tls.sendall(f"GET /ws HTTP/1.1\r\nHost: {web.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n".encode())
answer = head(tls)
assert " 101 " in answer, answer
text, mask = b"over the socket", b"mask"
tls.sendall(struct.pack("!BB", 0x81, 0x80 | len(text)) + mask + bytes(c ^ mask[n % 4] for n, c in enumerate(text)))
said = tls.recv(2)
while len(said) < 2 + len(text):
    said += tls.recv(64)
print("websocket", said[2:].decode())
`;
const SSE = [
  `curl -sSN "$WEB/events?n=4&ms=300" | while read -r line; do case "$line" in id:*) echo "$(date +%s%3N)";; esac; done > times`,
  `awk 'NR == 1 { first = $1 } END { print "events", NR, ($1 - first > 400 ? "as they came" : "at once") }' times`,
].join("\n");

/** All that a developer's programs do on a day, with nothing but the environment that the controller sets. */
const TURN = [
  "set -e; export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.com",
  `curl -sS "$WEB/headers" > headers; grep -q '"host"' headers && echo curl`,
  `curl -sS -H "Authorization: Bearer $WEB_API" "$WEB/status?code=204" -w 'placeholder %{http_code}\\n'`,
  `head -c 3000000 /dev/zero | curl -sS --data-binary @- "$WEB/upload" | cut -c1-16`,
  `git clone --quiet "$FORGE/demo.git" clone; cd clone; echo new > new.txt; git add new.txt; git commit --quiet -m new`,
  "git push --quiet origin main:bottle; echo pushed $(git rev-parse HEAD); cd ..",
  `mkdir app; cd app; echo '{}' > package.json; npm install --silent --no-audit --no-fund --registry "$REGISTRY/" ${PACKAGE.name}`,
  `node -p 'require("${PACKAGE.name}")'; cd ..`,
  `python3 -c '${RANGES}'`,
  `python3 -c '${WEBSOCKET}'`,
  SSE,
  `curl -s -w '\\nrefused %{http_code}\\n' "$ELSEWHERE/x" | tail -n 1`,
].join("\n");

for (const type of BACKENDS) {
  describeWith(["npm", ...NEEDS[type]], `programs of an agent on ${type.toLowerCase()}`, () => {
    const state: { rig?: BottleRig; dir: string } = { dir: "" };
    const rig = (): BottleRig => {
      if (state.rig === undefined) throw new Error("there is no rig");
      return state.rig;
    };
    beforeAll(async () => {
      state.dir = mkdtempSync(join(tmpdir(), "bb-forge-"));
      createRepository(state.dir, "demo");
      const authorization = `Basic ${Buffer.from(`bot:${CANARY}`).toString("base64")}`;
      const handlers = [gitHttp({ root: state.dir, authorization }), await npmRegistry(PACKAGE)];
      state.rig = await startRig(type, { hosts: HOSTS, handlers });
    });
    afterAll(async () => {
      await state.rig?.[Symbol.asyncDispose]();
      rmSync(state.dir, { recursive: true, force: true });
    });

    it(
      "curl, git, npm, python, WebSockets and event streams work, and only upstream sees the credentials",
      { timeout: TIMEOUT_MS },
      async () => {
        const { here, world } = rig();
        const secretRef = { name: "keys", key: "api" };
        const rules = [
          world.rule({
            name: "web",
            host: "web.test",
            webSocket: "Allow",
            inject: [
              { header: "Authorization", valueTemplate: "Bearer {value}", secretRef, placeholderEnv: "WEB_API" },
            ],
          }),
          world.rule({
            name: "git",
            host: "git.test",
            inject: [{ header: "Authorization", valueTemplate: "Basic {base64:bot:}", secretRef }],
          }),
          world.rule({ name: "npm", host: "npm.test", methods: ["GET"] }),
        ];
        const names = { WEB: "web.test", FORGE: "git.test", REGISTRY: "npm.test", ELSEWHERE: "elsewhere.test" };
        const env = Object.entries(names).map(([name, host]) => ({ name, value: world.url(host, "") }));
        await rig().apply(
          secretManifest("keys", { api: CANARY }),
          templateManifest("work", { rules }, { env }),
          bottleManifest(
            "worker",
            [TURN, `! grep -rlsF ${CANARY.slice(0, 12)}''${CANARY.slice(12)} /workspace /home/agent && echo clean`],
            { templateRefs: [{ name: "work" }] },
          ),
        );

        const bottle = await here.until("worker", "after turn 2", (seen) => outcomeOf(seen, "2") !== undefined);

        const said = (await here.logs("worker", "1")).trim().split("\n");
        const pushed = git(["-C", join(state.dir, "demo.git"), "rev-parse", "bottle"]).trim();
        expect(said).toEqual([
          "curl",
          "placeholder 204",
          '{"bytes":3000000',
          `pushed ${pushed}`,
          PACKAGE.text,
          "ranges True",
          "websocket over the socket",
          "events 4 as they came",
          "refused 403",
        ]);
        expect([outcomeOf(bottle, "1"), outcomeOf(bottle, "2")]).toEqual(["Done", "Done"]);
        expect(await here.logs("worker", "2")).toBe("clean\n");
        const seen = (host: string) => world.upstream.seen.filter(({ headers }) => headers.host === world.at(host));
        for (const host of ["web.test", "git.test"]) {
          expect(seen(host).length).toBeGreaterThan(3);
          const sent = new Set(seen(host).map(({ headers }) => headers.authorization));
          const basic = `Basic ${Buffer.from(`bot:${CANARY}`).toString("base64")}`;
          expect([...sent]).toEqual([host === "git.test" ? basic : `Bearer ${CANARY}`]);
        }
        expect(JSON.stringify(seen("npm.test").map(({ rawHeaders }) => rawHeaders))).not.toContain(CANARY);
        expect(seen("elsewhere.test")).toEqual([]);
        const lines = await rig().lines("worker");
        // Git asks its proxy without a password first, and again when that is wanted.
        const challenged = lines.filter(({ host, rule }) => rule === "unauthorized" && host === "git.test");
        const refused = lines.filter((line) => line.verdict !== "Allowed" && !challenged.includes(line));
        expect(refused.map(({ host, rule }) => [host, rule])).toEqual([["elsewhere.test", "default-deny"]]);
        const allowed = lines.filter(({ verdict }) => verdict === "Allowed").length;
        expect(allowed).toBe(world.upstream.seen.length);
        // Counters follow the lines by some seconds.
        await here.until("worker", "counted", ({ status }) => {
          const { allowed: passed, denied } = status?.egress ?? {};
          return passed === allowed && denied === refused.length;
        });

        await rig().verb("delete", "bottle", "worker");
        await rig().serve().end();
        expect(await traces(here)).toEqual([]);
      },
    );
  });
}
