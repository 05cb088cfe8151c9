import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createControlClient } from "../../backends/guard/control-client.ts";
import { CONTROL_REQUESTS_MAX } from "../../backends/guard/control-protocol.ts";
import { nodeEnv, nodeFlags } from "../../backends/guard/doors.ts";
import type { GuardConfig, GuardConfigured } from "../../controller/ports/guard.ts";
import { BUILD_DIR } from "../helpers/build.ts";
import { describeWith } from "../helpers/needs.ts";

const BUNDLE = join(BUILD_DIR, "guard");
const MAIN = join(BUNDLE, "main.js");
const DOORS = [7001, 7002, 7003, 7004];

const state: { dir: string; children: ChildProcess[] } = { dir: "", children: [] };
beforeEach(() => {
  expect(existsSync(MAIN), `${MAIN} is missing: type npm run build`).toBe(true);
  state.dir = mkdtempSync(join(tmpdir(), "bb-probe-"));
  mkdirSync(join(state.dir, "audit"));
});
afterEach(async () => {
  for (const child of state.children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
  rmSync(state.dir, { recursive: true, force: true });
});

interface StartOptions {
  /** Shell commands that set up the namespace it runs in. Absent: that of the test. */
  setUp?: string;
  args?: readonly string[];
  main?: string;
}

function start(program: "guard" | "holder", { setUp, args = [], main = MAIN }: StartOptions = {}) {
  const own = program === "guard" ? ["--audit", join(state.dir, "audit"), "--control", "socket"] : [];
  const node = [process.execPath, ...nodeFlags(program), main, program, "--sockets", state.dir, ...own, ...args];
  const [command, ...rest] =
    setUp === undefined ? node : ["unshare", "-nm", "sh", "-c", `${setUp}; exec "$@"`, "sh", ...node];
  const env = { ...process.env, ...nodeEnv(program) };
  const child = spawn(command ?? "", rest, { stdio: ["ignore", "pipe", "pipe"], env });
  state.children.push(child);
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk) => (output += String(chunk)));
  child.stderr.on("data", (chunk) => (errors += String(chunk)));
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const facts = (count: number) =>
    new Promise<object[]>((resolve, reject) => {
      const late = AbortSignal.timeout(20_000);
      const look = () => {
        const lines = output.split("\n").slice(0, -1);
        if (lines.length >= count) resolve(lines.map((line) => JSON.parse(line)));
      };
      child.stdout.on("data", look);
      child.once("exit", () => reject(new Error(`${program} ended: ${errors}`)));
      late.addEventListener("abort", () => reject(new Error(`${program} printed only ${output} ${errors}`)));
      look();
    });
  return { child, facts, exited, errors: () => errors };
}

const CONFIG: GuardConfig = {
  digest: "d",
  token: "t".repeat(32),
  policy: { rules: [], dlp: "Block", audit: "Full", budget: {} },
  placeholders: {},
  secretRefs: [],
  secrets: {},
};

async function configure(): Promise<GuardConfigured> {
  const control = connect({ path: join(state.dir, "control.sock") });
  try {
    return await createControlClient(control).configure(CONFIG);
  } finally {
    control.destroy();
  }
}

/** Runs the built program as it runs in a bottle: guard outside, holder in a namespace with loopback only. */
describeWith(["root"], "probe", () => {
  it("a namespace with loopback only passes, though the guard comes later than the holder", async () => {
    const holder = start("holder", { setUp: "ip link set lo up", args: ["--host-address", "192.0.2.7"] });
    expect(await holder.facts(1)).toEqual([{ ready: true }]);
    const guard = start("guard");
    expect(await guard.facts(1)).toEqual([{ ready: true }]);

    const [, probe] = await holder.facts(2);

    expect(probe).toMatchObject({ probe: { passed: true } });
    const { detail } = Object(Object(probe).probe);
    for (const named of [
      "[fd00:ec2::254]:80",
      "255.255.255.255:9/udp",
      "[ff02::1]:9/udp",
      "the host's addresses",
      "7004",
    ]) {
      expect(detail).toContain(named);
    }
    expect(holder.errors() + guard.errors()).toBe("");
  });

  it("the detail is the same on every run", async () => {
    const guard = start("guard");
    await guard.facts(1);

    const runs = await Promise.all([0, 1].map(() => start("holder", { setUp: "ip link set lo up" }).facts(2)));

    expect(runs[0]?.[1]).toEqual(runs[1]?.[1]);
  });

  it("an interface, a route and an answer from outside fail the probe by name", async () => {
    const guard = start("guard");
    await guard.facts(1);
    const setUp = [
      "ip link set lo up",
      "ip link add wire0 type veth peer name wire1",
      "ip addr add 172.17.0.1/16 dev wire0",
      "ip link set wire0 up",
      "ip link set wire1 up",
      "ip route add default via 172.17.0.2",
    ].join(" && ");
    const holder = start("holder", { setUp, args: ["--host-address", "172.17.0.1", "--host-address", "127.0.0.1"] });

    const [, probe] = await holder.facts(2);

    const text = JSON.stringify(probe);
    expect(probe).toMatchObject({ probe: { passed: false } });
    expect(text).toContain("interface besides lo: wire0, wire1");
    expect(text).toContain("route through: wire0");
    expect(text).toContain("TCP to 172.17.0.1:2375 left the bottle (ECONNREFUSED)");
    expect(text).toContain("TCP to 172.17.0.1:6443 left the bottle (ECONNREFUSED)");
    expect(text).toContain("UDP to 1.1.1.1:53 was sent");
    expect(text).toContain("UDP to 255.255.255.255:9 was sent");
    expect(text).toContain("UDP to 224.0.0.251:5353 was sent");
    expect(text).not.toContain("127.0.0.1:22");
  });

  it("a device that is down is none, though the sandbox shows no /sys; one that is up is one", async () => {
    const guard = start("guard");
    await guard.facts(1);
    const hidden = "mount -t tmpfs none /sys && ip link set lo up && ip link add wire0 type veth peer name wire1";

    const [down, up] = await Promise.all(
      [hidden, `${hidden} && ip link set wire0 up`].map((setUp) => start("holder", { setUp }).facts(2)),
    );

    expect(down?.[1]).toMatchObject({ probe: { passed: true } });
    expect(up?.[1]).toMatchObject({ probe: { passed: false } });
    expect(up?.[1]).toMatchObject({ probe: { passed: false, detail: "interface besides lo: wire0" } });
  });

  it("a name server that can be reached fails the probe, also one on loopback", async () => {
    const guard = start("guard");
    await guard.facts(1);
    // Answers whatever it is sent with the same bytes, marked as an answer: that the name does not exist.
    const server = [
      'const s = require("node:dgram").createSocket("udp4");',
      's.on("message", (m, from) => { m[2] |= 0x80; m[3] = 0x83; s.send(m, from.port, from.address); });',
      's.bind(53, "127.0.0.11");',
    ].join(" ");
    const setUp = [
      "ip link set lo up",
      `echo nameserver 127.0.0.11 > ${state.dir}/resolv.conf`,
      `mount --bind ${state.dir}/resolv.conf /etc/resolv.conf`,
      `{ timeout 20 ${process.execPath} -e '${server}' >/dev/null 2>&1 & }`,
      "while ! grep -q 0B00007F:0035 /proc/net/udp; do :; done",
    ].join(" && ");

    const [, probe] = await start("holder", { setUp }).facts(2);

    const text = JSON.stringify(probe);
    expect(probe).toMatchObject({ probe: { passed: false } });
    expect(text).toContain("UDP to 127.0.0.11:53 was answered");
    expect(text).toContain("a name server was asked (ENOTFOUND)");
  });

  it("a guard that never comes fails the probe on every port", async () => {
    const holder = start("holder", { setUp: "ip link set lo up" });

    const [, probe] = await holder.facts(2);

    const ports = DOORS.map((port) => `guard does not answer on 127.0.0.1:${port}`);
    expect(probe).toEqual({ probe: { passed: false, detail: ports.join("; ") } });
  });

  it("a holder loads nothing that only a guard needs", async () => {
    const alone = join(state.dir, "alone");
    cpSync(BUNDLE, alone, { recursive: true });
    for (const file of readdirSync(alone)) if (/^(?:guard|authority)-/.test(file)) rmSync(join(alone, file));

    const holder = start("holder", { setUp: "ip link set lo up", main: join(alone, "main.js") });

    expect(await holder.facts(1)).toEqual([{ ready: true }]);
  });

  it("both end at once on SIGTERM", async () => {
    for (const run of [start("guard"), start("holder", { setUp: "ip link set lo up" })]) {
      await run.facts(1);
      run.child.kill("SIGTERM");
      expect(await run.exited).toBe(0);
    }
  });
});

describe("guard program", () => {
  it("a wrong command line says what to write", () => {
    const cases: [args: string[], says: string][] = [
      [["gaurd"], 'cannot run "gaurd": write guard or holder'],
      [["guard"], "--sockets DIR is missing"],
      [["guard", "--sockets", "/none"], "write --control stdio or --control socket"],
      [["guard", "--sockets", "/none", "--control", "tcp", "--audit", "/none"], "write --control stdio"],
      [["guard", "--sockets", "/none", "--control", "stdio"], "--audit DIR is missing"],
      [["guard", "--sockets", "/none", "--control", "stdio", "--audit", "/none", "--roles", "egress,gti"], '"gti"'],
      [["holder", "--sokets", "/none"], "--sokets"],
    ];
    for (const [args, says] of cases) {
      const run = spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8", timeout: 10_000 });
      expect(run.status, says).toBe(64);
      expect(run.stderr).toContain(says);
    }
  });

  it("the bundle needs nothing beside it", async () => {
    const alone = join(state.dir, "alone");
    cpSync(BUNDLE, alone, { recursive: true });

    const guard = start("guard", { main: join(alone, "main.js") });
    await guard.facts(1);
    // The certificate is the last thing that is loaded.
    const configured = await configure();

    expect(configured.caCertificate).toContain("BEGIN CERTIFICATE");
    expect(guard.errors()).toBe("");
  });

  it("over stdin and stdout it takes settings and answers beside its own facts, and says nothing of them", async () => {
    const args = ["guard", "--sockets", state.dir, "--control", "stdio", "--audit", join(state.dir, "audit")];
    const child = spawn(process.execPath, [...nodeFlags("guard"), MAIN, ...args], { stdio: ["pipe", "pipe", "pipe"] });
    state.children.push(child);
    let said = "";
    const attached = Duplex.from({ readable: child.stdout, writable: child.stdin });
    for (const stream of [attached, child.stderr]) stream.on("data", (chunk) => (said += String(chunk)));
    const clients = [0, 1].map(() => createControlClient(attached));

    const secrets = { "model/key": "canary-of-the-model-key" };
    const [configured] = await Promise.all(clients.map((client) => client.configure({ ...CONFIG, secrets })));
    const page = await clients[0]?.audit({ cursor: "", waitMs: 0, linesMax: 10 });

    expect(configured?.digest).toBe("d");
    expect(page).toMatchObject({ lines: [], digest: "d", health: { ok: true } });
    expect(said).toMatch(/^\{"ready":true\}$/m);
    expect(said).not.toContain("canary");
  });

  it("as many readers as may wait at once wait without a word", async () => {
    const guard = start("guard");
    await guard.facts(1);
    const control = connect({ path: join(state.dir, "control.sock") });
    const client = createControlClient(control);
    const { cursor } = await client.audit({ cursor: "", waitMs: 0, linesMax: 1 });

    const reads = Array.from({ length: CONTROL_REQUESTS_MAX }, () =>
      client.audit({ cursor, waitMs: 100, linesMax: 1 }),
    );

    expect((await Promise.all(reads)).map(({ lines }) => lines)).toEqual(reads.map(() => []));
    expect(guard.errors()).toBe("");
    control.destroy();
  });

  it("no debugger opens on a signal: it could read the memory of the guard", async () => {
    const guard = start("guard");
    await guard.facts(1);

    guard.child.kill("SIGUSR1");
    await configure();
    guard.child.kill("SIGTERM");

    expect(await guard.exited).toBe(0);
    expect(guard.errors()).toBe("");
  });

  it("an error that nobody expected ends it with its name and our places in the program, and nothing that was read", () => {
    const module = JSON.stringify(join(BUILD_DIR, "backends/guard/die-quietly.js"));
    const ways = [
      'throw new TypeError("canary\\n    at canary (/x.js:1:1)")',
      'Promise.reject(Object.assign(new Error("canary"), { code: "ECANARYLESS", name: "canary canary" }))',
      'throw "canary"',
    ];
    for (const way of ways) {
      const code = `import { dieQuietly } from ${module}; dieQuietly(); setTimeout(() => { ${way}; });`;
      const run = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
        encoding: "utf8",
        timeout: 10_000,
      });
      expect(run.status).toBe(70);
      expect(run.stderr).toMatch(/^bottle guard failed: \w/);
      expect(run.stderr + run.stdout).not.toContain("canary");
    }
  });
});
