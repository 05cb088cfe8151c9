import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import { NODE_FLAGS } from "../../backends/guard/doors.ts";
import { describeWith } from "../helpers/needs.ts";

const MAIN = fileURLToPath(new URL("../../.build/backends/guard/main.js", import.meta.url));

/** Runs the built program as it runs in a bottle: guard outside, holder in a namespace with loopback only. */
describeWith(["root"], "guard program", () => {
  const state: { dir: string; children: ChildProcess[] } = { dir: "", children: [] };
  beforeEach(() => {
    expect(existsSync(MAIN), `${MAIN} is missing: type npm run build`).toBe(true);
    state.dir = mkdtempSync(join(tmpdir(), "bb-probe-"));
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

  function start(program: "guard" | "holder", setUp?: string) {
    const node = [process.execPath, ...NODE_FLAGS, MAIN, program, "--sockets", state.dir];
    const [command, ...rest] =
      setUp === undefined ? node : ["unshare", "-n", "sh", "-c", `${setUp}; exec "$@"`, "sh", ...node];
    const child = spawn(command ?? "", rest, { stdio: ["ignore", "pipe", "pipe"] });
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

  it("a namespace with loopback only passes, though the guard comes later than the holder", async () => {
    const holder = start("holder", "ip link set lo up");
    expect(await holder.facts(1)).toEqual([{ ready: true }]);
    const guard = start("guard");
    expect(await guard.facts(1)).toEqual([{ ready: true }]);

    const [, probe] = await holder.facts(2);

    expect(probe).toMatchObject({ probe: { passed: true } });
    expect(holder.errors() + guard.errors()).toBe("");
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
    const holder = start("holder", setUp);

    const [, probe] = await holder.facts(2);

    const text = JSON.stringify(probe);
    expect(probe).toMatchObject({ probe: { passed: false } });
    expect(text).toContain("interface besides lo: wire0, wire1");
    expect(text).toContain("route through: wire0");
    expect(text).toContain("TCP to 172.17.0.1:2375 left the bottle (ECONNREFUSED)");
    expect(text).toContain("UDP to 1.1.1.1:53 was sent");
  });

  it("a guard that never comes fails the probe on every port", async () => {
    const holder = start("holder", "ip link set lo up");

    const [, probe] = await holder.facts(2);

    const ports = [7001, 7002, 7003, 7004].map((port) => `guard does not answer on 127.0.0.1:${port}`);
    expect(probe).toEqual({ probe: { passed: false, detail: ports.join("; ") } });
  });

  it("both end at once on SIGTERM", async () => {
    for (const run of [start("guard"), start("holder", "ip link set lo up")]) {
      await run.facts(1);
      run.child.kill("SIGTERM");
      expect(await run.exited).toBe(0);
    }
  });

  it("a wrong command line says what to write", () => {
    const run = spawnSync(process.execPath, [MAIN, "gaurd"], { encoding: "utf8", timeout: 10_000 });

    expect(run.status).toBe(64);
    expect(run.stderr).toContain('cannot run "gaurd": write guard or holder');
  });
});
