import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { createBubblewrapBackend } from "../../backends/bubblewrap/index.ts";
import type { Blueprint } from "../../controller/ports/backend.ts";
import { TRANSCRIPT_BYTES_MAX } from "../../controller/ports/journal.ts";
import { agentOf, Bottles, failure, FIRST, GRACE_MS, states, unitOf } from "../contract/bottles.ts";
import { settings } from "../contract/guard-rules.ts";
import { describeWith } from "../helpers/needs.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
const BUILD = fileURLToPath(new URL("../../.build", import.meta.url));

describeWith(["bubblewrap"], "the bubblewrap backend", () => {
  let stateDir = "";
  let suite: Bottles | undefined;
  const bottles = () => {
    if (suite === undefined) throw new Error("the suite has not begun");
    return suite;
  };
  const create = (options: { failpoint?: (label: string, phase: "before" | "after") => void; owner?: string } = {}) =>
    createBubblewrapBackend({ owner: "us", ...options, stateDir, now: Date.now, log: SILENT });
  /** An agent that is a shell script. */
  const script = async (blueprint: Blueprint, text: string, turn = "1") => {
    const ran = await bottles().ran(blueprint, { type: "missing" }, { argv: ["/bin/sh", "-c", text], turn });
    return ran;
  };
  const begun = async (uid: string) => {
    for await (const _ of bottles().bed.backend.logs({ uid, ...FIRST }, { follow: true })) break;
  };

  beforeAll(() => {
    stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-life-"));
    suite = new Bottles({ backend: create(), stranger: create({ owner: "them" }), close: async () => {} });
  });
  afterEach(() => bottles().removeAll());
  afterAll(() => rmSync(stateDir, { recursive: true, force: true }));

  it("exit codes are the program's own, and a signal is 128 and its number", async () => {
    const blueprint = await bottles().prepared();
    const codes: (number | undefined)[] = [];
    for (const [index, text] of ["exit 0", "exit 1", "exit 42", "kill -KILL $$", "kill -TERM $$"].entries()) {
      codes.push((await script(blueprint, text, `t${index}`)).code);
    }
    expect(codes).toEqual([0, 1, 42, 137, 143]);
  });

  it("a program that is not there ends with 127 and is named in the output", async () => {
    const blueprint = await bottles().prepared();
    const ran = await bottles().ran(blueprint, { type: "missing" });
    expect(ran.code).toBe(127);
    expect(ran.text).toContain("/no/such/program");
  });

  it("a sandbox that cannot be made is not taken for a program that ended with 1", async () => {
    const blueprint = await bottles().prepared();
    rmSync(join(stateDir, blueprint.uid, "disk/home"), { recursive: true });
    const ran = await script(blueprint, "exit 0");
    expect(ran.code).toBe(125);
    expect(ran.text).toContain("bwrap:");
    mkdirSync(join(stateDir, blueprint.uid, "disk/home"));
  });

  it("a stopped agent is told first, and may end in its own way", async () => {
    const blueprint = await bottles().prepared();
    const argv = ["/bin/sh", "-c", "trap 'echo told; exit 3' TERM; echo begun; while :; do sleep 0.05; done"];
    await bottles().started(blueprint, { type: "missing" }, { argv });
    await begun(blueprint.uid);

    await bottles().bed.backend.stopAgent({ uid: blueprint.uid, ...FIRST }, { graceMs: 20_000 });

    expect(agentOf(await bottles().view(blueprint.uid), FIRST)?.exit).toEqual({ code: 3, oom: false });
    expect(await bottles().output(blueprint.uid, FIRST)).toBe("begun\ntold\n");
  });

  it("an agent that does not listen is killed with all it began when its grace is over", async () => {
    const blueprint = await bottles().prepared();
    const argv = ["/bin/sh", "-c", "trap '' TERM; setsid sleep 600 & echo begun; while :; do sleep 0.05; done"];
    await bottles().started(blueprint, { type: "missing" }, { argv });
    await begun(blueprint.uid);
    expect(processesOf(stateDir, blueprint.uid, "agent-1-1")).not.toEqual([]);

    await bottles().bed.backend.stopAgent({ uid: blueprint.uid, ...FIRST }, { graceMs: GRACE_MS });

    expect(agentOf(await bottles().view(blueprint.uid), FIRST)?.exit).toEqual({ code: 137, oom: false });
    expect(processesOf(stateDir, blueprint.uid, "agent-1-1")).toEqual([]);
  });

  it("an agent goes on when the controller that started it is killed, and the next one sees it to its end", async () => {
    const uid = bottles().blueprint().uid;
    const argv = ["/bin/sh", "-c", "echo begun; until [ -e /workspace/go ]; do sleep 0.05; done; echo done; exit 5"];

    const died = controller({ stateDir, uid, argv, dieAt: "end" });

    expect(died.signal).toBe("SIGKILL");
    await bottles().agentIn(uid, FIRST, "running");
    expect(states(await bottles().view(uid))).toEqual(["agent running", "guard running", "holder running"]);
    writeFileSync(join(stateDir, uid, "disk/workspace/go"), "");
    expect((await bottles().exited(uid, FIRST)).exit).toEqual({ code: 5, oom: false });
    expect(await bottles().output(uid, FIRST)).toBe("begun\ndone\n");
  });

  it("killed at any effect of a launch, the next controller finishes it, and the agent runs once", async () => {
    const labels = new Set<string>();
    const observed = create({ failpoint: (label, phase) => phase === "before" && labels.add(label) });
    const argv = ["/bin/sh", "-c", "echo run >> /workspace/runs"];
    const first = bottles().blueprint();
    await launch(observed, first, argv);
    await bottles().exited(first.uid, FIRST);
    expect([...labels]).toEqual(expect.arrayContaining(["guard.configure", "guard.audit", "unit.start:agent"]));

    for (const label of labels) {
      const blueprint = bottles().blueprint();
      const died = controller({ stateDir, uid: blueprint.uid, argv, dieAt: label });
      expect(died.signal, `${label}: ${died.stderr}`).toBe("SIGKILL");

      await launch(bottles().bed.backend, blueprint, argv);

      await bottles().exited(blueprint.uid, FIRST);
      expect(readFileSync(join(stateDir, blueprint.uid, "disk/workspace/runs"), "utf8"), label).toBe("run\n");
    }
  });

  it("killed at any effect of a removal, the next controller leaves nothing", async () => {
    const labels = new Set<string>();
    const observed = create({ failpoint: (label) => labels.add(label) });
    const argv = ["/bin/sh", "-c", "exec sleep 600"];
    const first = bottles().blueprint();
    await launch(bottles().bed.backend, first, argv);
    await observed.removeUnits(first.uid, (await bottles().view(first.uid))?.units.map(({ id }) => id) ?? []);
    await observed.removeDisk(first.uid);
    expect([...labels]).toContain("unit.remove:guard");

    for (const label of labels) {
      const { uid } = await bottles().prepared();
      const died = controller({ stateDir, uid, argv, dieAt: label, removes: true });
      expect(died.signal, `${label}: ${died.stderr}`).toBe("SIGKILL");
      const view = await bottles().view(uid);
      // No agent without its guard, at no moment.
      if (states(view).includes("agent running")) expect(states(view)).toContain("guard running");

      await bottles().removeUnits(uid);
      await bottles().bed.backend.removeDisk(uid);

      expect(existsSync(join(stateDir, uid)), label).toBe(false);
    }
  });

  it("two starts at once run an agent once", async () => {
    const blueprint = await bottles().prepared();
    await bottles().bed.backend.createAgent(
      blueprint,
      bottles().run({ type: "append", path: "/workspace/runs", text: "x" }),
    );

    const unit = { uid: blueprint.uid, ...FIRST };
    await Promise.all([1, 2, 3, 4].map(() => create().startAgent(unit)));

    await bottles().exited(blueprint.uid, FIRST);
    expect(readFileSync(join(stateDir, blueprint.uid, "disk/workspace/runs"), "utf8")).toBe("x");
  });

  it("a unit whose keeper was killed has exited with an unknown code, and nothing of it runs", async () => {
    const blueprint = await bottles().prepared();
    const argv = ["/bin/sh", "-c", "setsid sleep 600 & echo begun; exec sleep 600"];
    await bottles().started(blueprint, { type: "missing" }, { argv });
    await begun(blueprint.uid);
    const started = readFileSync(join(stateDir, blueprint.uid, "units/agent-1-1/started"), "utf8");

    process.kill(Number(started.split(" ")[0]), "SIGKILL");

    const exited = await bottles().exited(blueprint.uid, FIRST);
    expect(exited.exit).toEqual({ oom: false });
    await expect.poll(() => processesOf(stateDir, blueprint.uid, "agent-1-1"), { timeout: 10_000 }).toEqual([]);
  });

  it("a number that another process got is neither taken for the unit nor signalled", async () => {
    const blueprint = await bottles().prepared();
    await bottles().started(blueprint, { type: "exit", code: 0 });
    await bottles().exited(blueprint.uid, FIRST);
    const dir = join(stateDir, blueprint.uid, "units/agent-1-1");
    const [, ...rest] = readFileSync(join(dir, "started"), "utf8").split(" ");
    rmSync(join(dir, "exit"));
    // Our own number with another's start time, and our own as the first process of its sandbox.
    writeFileSync(join(dir, "started"), [process.pid, ...rest].join(" "));
    writeFileSync(join(dir, "status"), `{ "child-pid": ${process.pid}, "pid-namespace": 1 }\n`);

    const unit = agentOf(await bottles().view(blueprint.uid), FIRST);
    await bottles().bed.backend.stopAgent({ uid: blueprint.uid, ...FIRST }, { graceMs: 0 });
    await bottles().removeUnits(blueprint.uid);

    expect(unit?.state).toBe("exited");
  });

  it("the end of a long output is kept, and no more than twice a transcript is on the disk", async () => {
    const blueprint = await bottles().prepared();
    const bytes = TRANSCRIPT_BYTES_MAX * 3;

    const ran = await script(blueprint, `head -c ${bytes} /dev/zero | tr '\\0' a; echo end`);

    const dir = join(stateDir, blueprint.uid, "units/agent-1-1");
    const kept = readdirSync(dir).filter((name) => name.startsWith("output."));
    const onDisk = kept.reduce((sum, name) => sum + readFileSync(join(dir, name)).length, 0);
    expect(ran.code).toBe(0);
    expect(onDisk).toBeLessThanOrEqual(TRANSCRIPT_BYTES_MAX * 2);
    expect(ran.text.length).toBeGreaterThanOrEqual(TRANSCRIPT_BYTES_MAX);
    expect(ran.text.endsWith("aend\n")).toBe(true);
  });

  it("nothing of a bottle is left after its units and its disk were removed", async () => {
    const blueprint = await bottles().prepared();
    await script(blueprint, "mkdir -p deep/er && touch deep/er/file && chmod 555 deep/er && chmod 000 deep");
    await bottles().started(blueprint, { type: "sleep", text: "x" }, { turn: "2" });
    const units = ["agent-2-1", "holder", "guard"];
    const sandboxes = units.flatMap((unit) => sandboxOf(stateDir, blueprint.uid, unit));

    await bottles().removeUnits(blueprint.uid);
    const disk = existsSync(join(stateDir, blueprint.uid, "disk/workspace/deep"));
    await bottles().bed.backend.removeDisk(blueprint.uid);

    expect(disk).toBe(true);
    expect(sandboxes.flatMap((namespace) => processesIn(namespace))).toEqual([]);
    expect(readdirSync(stateDir).filter((name) => !name.startsWith("."))).toEqual([]);
    expect(readdirSync(join(stateDir, ".hints"))).not.toContain(blueprint.uid);
  });

  it("a state directory that cannot be read is not taken for an empty one", async () => {
    const blueprint = await bottles().prepared();
    const meta = join(stateDir, blueprint.uid, "meta.json");
    const before = readFileSync(meta);
    writeFileSync(meta, "{");

    const refused = await failure(bottles().bed.backend.observe());
    writeFileSync(meta, before);

    expect([refused?.kind, refused?.reason]).toEqual(["Unavailable", "StateUnreadable"]);
  });

  it("a uid that would lead out of the state directory is refused", async () => {
    for (const uid of ["..", "../x", "a/b", ".hints", ""]) {
      expect((await failure(bottles().bed.backend.removeDisk(uid)))?.kind, uid).toBe("Invalid");
    }
  });

  it("a terminal has the size that was asked for, and takes another", async () => {
    const blueprint = await bottles().prepared();
    const ask = 'stty size; read -r _; stty size; printf "<%s>" "$1"';
    const session = await bottles().bed.backend.exec(blueprint, {
      argv: ["/bin/sh", "-c", ask, "sh", "a 'quoted' word"],
      tty: true,
      size: { columns: 91, rows: 33 },
    });
    let output = "";
    session.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    await expect.poll(() => output, { timeout: 10_000 }).toContain("33 91");

    await session.resize({ columns: 120, rows: 50 });
    session.stdin.write("go\n");

    expect(await session.exit).toBe(0);
    expect(output).toContain("50 120");
    expect(output).toContain("<a 'quoted' word>");
  });

  it("availability is a sandbox that ran; a machine that cannot make one is told what to do", async () => {
    expect(await bottles().bed.backend.available()).toMatchObject({ ok: true, version: expect.stringMatching(/^\d/) });
    expect(nested("--ro-bind", "/dev/null", "/usr/bin/bwrap")).toEqual({
      ok: false,
      reason: "the program bwrap was not found",
      fix: expect.stringContaining("apt-get install -y bubblewrap"),
    });
    const closed = nested("--uid", "1000", "--gid", "1000", "--disable-userns");
    expect(closed).toMatchObject({ ok: false, fix: expect.stringContaining("user namespaces") });
    expect(closed.reason).toContain("bwrap:");
  });

  async function launch(backend: ReturnType<typeof create>, blueprint: Blueprint, argv: string[]): Promise<void> {
    await backend.prepare(blueprint);
    const holderId = unitOf((await backend.observe()).bottles.get(blueprint.uid), "holder").id;
    await backend.probe({ uid: blueprint.uid, holderId });
    await backend.createAgent(blueprint, { ...FIRST, argv, env: {} });
    const { uid } = blueprint;
    const guardId = unitOf((await backend.observe()).bottles.get(uid), "guard").id;
    await backend.configureGuard({ uid, guardId }, settings("one"));
    await backend.readAudit({ uid, guardId }, { cursor: "", waitMs: 0, linesMax: 1 });
    await backend.startAgent({ uid, ...FIRST });
  }
});

/** What a backend says inside a sandbox that lacks something. */
function nested(...words: string[]) {
  // The checkout may lie below /tmp itself.
  const program = dirname(BUILD);
  const shown = [
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "--ro-bind",
    program,
    program,
  ];
  const sandbox = [...shown, "--unshare-user"];
  const node = [process.execPath, "--input-type=module", "-e", availability("/tmp/state")];
  const ran = spawnSync("bwrap", [...sandbox, ...words, "--", ...node], { encoding: "utf8", timeout: 30_000 });
  return JSON.parse(ran.stdout);
}

function availability(stateDir: string): string {
  return `
import { createBubblewrapBackend } from ${JSON.stringify(join(BUILD, "backends/bubblewrap/index.js"))};
const log = { debug() {}, info() {}, warn() {}, error() {} };
const backend = createBubblewrapBackend({ stateDir: ${JSON.stringify(stateDir)}, owner: "us", now: Date.now, log });
console.log(JSON.stringify(await backend.available()));
`;
}

/** A controller of its own that launches one agent, and removes it if asked to. It is killed after an effect, or at the end. */
function controller(options: { stateDir: string; uid: string; argv: string[]; dieAt: string; removes?: boolean }) {
  const script = `
import { createBubblewrapBackend } from ${JSON.stringify(join(BUILD, "backends/bubblewrap/index.js"))};
const { stateDir, uid, argv, dieAt, removes } = ${JSON.stringify(options)};
const log = { debug() {}, info() {}, warn() {}, error() {} };
const failpoint = (label, phase) => {
  if (phase === "after" && label === dieAt) process.kill(process.pid, "SIGKILL");
};
const backend = createBubblewrapBackend({ stateDir, owner: "us", now: Date.now, log, failpoint });
const blueprint = { uid, namespace: "default", name: "bottle", generation: 1, specHash: "spec-1", env: {}, limits: {} };
const key = { turn: "1", attempt: 1 };
await backend.prepare(blueprint);
await backend.createAgent(blueprint, { ...key, argv, env: {} });
const { units } = (await backend.observe()).bottles.get(uid);
const guard = { uid, guardId: units.find((unit) => unit.role === "guard").id };
await backend.configureGuard(guard, ${JSON.stringify(settings("one"))});
await backend.readAudit(guard, { cursor: "", waitMs: 0, linesMax: 1 });
await backend.startAgent({ uid, ...key });
if (removes) {
  await backend.removeUnits(uid, (await backend.observe()).bottles.get(uid).units.map((unit) => unit.id));
  await backend.removeDisk(uid);
}
process.kill(process.pid, "SIGKILL");
`;
  const node = ["--input-type=module", "-e", script];
  return spawnSync(process.execPath, node, { encoding: "utf8", timeout: 60_000 });
}

/** The PID namespace of a unit's sandbox; none before there is one. */
function sandboxOf(stateDir: string, uid: string, unit: string): string[] {
  const path = join(stateDir, uid, "units", unit, "status");
  if (!existsSync(path)) return [];
  const found = /"pid-namespace": (\d+)/.exec(readFileSync(path, "utf8"))?.[1];
  return found === undefined ? [] : [found];
}

function processesOf(stateDir: string, uid: string, unit: string): string[] {
  return sandboxOf(stateDir, uid, unit).flatMap((namespace) => processesIn(namespace));
}

function processesIn(namespace: string): string[] {
  const lines = spawnSync("ps", ["-eo", "pidns=,stat=,pid=,args="], { encoding: "utf8" }).stdout.split("\n");
  return lines.filter((line) => line.trim().startsWith(`${namespace} `) && !/^\s*\d+\s+Z/.test(line));
}
