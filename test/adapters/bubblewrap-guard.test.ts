import { randomUUID } from "node:crypto";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { afterAll, beforeAll, expect, it } from "vitest";
import { builtGuardProgram } from "../../backends/guard-launch.ts";
import { createBubblewrapBackend, type BubblewrapBackendOptions } from "../../backends/bubblewrap/index.ts";
import { Bottles, failure, unitOf } from "../contract/bottles.ts";
import { settings } from "../contract/guard-rules.ts";
import { describeWith } from "../helpers/needs.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
const NOW = { cursor: "", waitMs: 0, linesMax: 10 };

describeWith(["bubblewrap"], "bubblewrap backend: the way to the guard", () => {
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "bot-bottle-way-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const bed = (options: Partial<BubblewrapBackendOptions> = {}) => {
    const backend = createBubblewrapBackend({
      stateDir: join(dir, "state"),
      owner: "us",
      now: Date.now,
      log: SILENT,
      ...options,
    });
    const bottles = new Bottles({ backend, stranger: backend, close: async () => {} });
    return { backend, bottles, [Symbol.asyncDispose]: () => bottles.removeAll() };
  };
  const guarded = async ({ bottles, backend }: ReturnType<typeof bed>) => {
    const { uid } = await bottles.prepared();
    const view = await bottles.view(uid);
    await backend.probe({ uid, holderId: unitOf(view, "holder").id });
    return { uid, guardId: unitOf(view, "guard").id };
  };
  it("values of secrets are in no file of the bottle and in no command line", async () => {
    await using suite = bed();
    const guard = await guarded(suite);
    const canary = `canary${randomUUID()}`;
    const secrets = { "api/key": canary };

    await suite.backend.configureGuard(guard, settings("one", { secrets, secretRefs: Object.keys(secrets) }));
    await suite.backend.readAudit(guard, NOW);

    expect(spawnSync("grep", ["-r", "-l", "-D", "skip", canary, join(dir, "state")])).toMatchObject({ status: 1 });
    expect(spawnSync("ps", ["-eo", "args"], { encoding: "utf8" }).stdout).not.toContain(canary);
  });

  it("the control socket is its owner's alone, and so is what the guard has to report", async () => {
    await using suite = bed();
    const guard = await guarded(suite);
    await suite.backend.configureGuard(guard, settings("one"));

    const sockets = join(dir, "state", guard.uid, "sockets");
    const modes = ["", "control.sock", "audit"].map((name) => statSync(join(sockets, name)).mode & 0o777);

    expect(modes.map((mode) => mode.toString(8))).toEqual(["700", "600", "700"]);
    expect(statSync(join(sockets, "control.sock")).isSocket()).toBe(true);
  });

  it("a guard goes on when the installed program is replaced, and the next one is started from the new one", async () => {
    const program = join(dir, "program");
    cpSync(builtGuardProgram().dir, program, { recursive: true });
    await using suite = bed({ guardProgramDir: program });
    const guard = await guarded(suite);
    rmSync(program, { recursive: true });
    mkdirSync(program);
    writeFileSync(join(program, "package.json"), '{"type":"module"}');
    writeFileSync(join(program, "main.js"), "process.exit(9)");

    const { caCertificate } = await suite.backend.configureGuard(guard, settings("one"));
    await suite.bottles.removeUnits(guard.uid);
    await suite.backend.prepare({ ...suite.bottles.blueprint(), uid: guard.uid });

    expect(caCertificate).toContain("BEGIN CERTIFICATE");
    await suite.bottles.until(guard.uid, "ended", (view) => unitOf(view, "guard").exit?.code === 9);
  });

  it("a state directory whose name is longer than that of any socket is no hindrance", async () => {
    const stateDir = join(dir, "long".repeat(30));
    mkdirSync(stateDir);
    await using suite = bed({ stateDir });
    const guard = await guarded(suite);

    expect((await suite.backend.configureGuard(guard, settings("one"))).digest).toBe("one");
  });

  it("guard and holder are told this host's addresses, and the guard its name servers and further authorities", async () => {
    const file = join(dir, "ca.pem");
    writeFileSync(file, String(rootCertificates[0]), { mode: 0o600 });
    await using suite = bed({ guardDns: ["192.0.2.1", "192.0.2.2:5353"], guardUpstreamCa: file });
    const guard = await guarded(suite);
    const [holder, told] = ["holder", "guard"].map((unit) => wordsOf(join(dir, "state"), guard.uid, unit));
    const own = Object.values(networkInterfaces())
      .flatMap((found) => found ?? [])
      .filter(({ internal, family }) => !internal && family === "IPv4");

    for (const { address } of own) {
      expect(after(told, "--host-address")).toContain(address);
      expect(after(holder, "--host-address")).toContain(address);
    }
    expect([after(told, "--dns"), after(holder, "--dns")]).toEqual([["192.0.2.1", "192.0.2.2:5353"], []]);
    expect(after(told, "--upstream-ca")).toEqual(["/bot-bottle/upstream-ca.pem"]);
    expect((await suite.backend.configureGuard(guard, settings("one"))).digest).toBe("one");
  });

  it("a file of authorities that cannot be used is the user's to correct, and nothing starts without it", async () => {
    for (const path of ["/nowhere/ca.pem", "/etc/hostname"]) {
      await using suite = bed({ guardUpstreamCa: path });
      const blueprint = suite.bottles.blueprint();

      const refused = await failure(suite.backend.prepare(blueprint));

      expect([refused?.kind, refused?.reason]).toEqual(["Invalid", "UpstreamCaUnusable"]);
      expect(refused?.message).toContain(`"${path}"`);
      expect((await suite.bottles.view(blueprint.uid))?.units ?? []).toEqual([]);
    }
  });
});

/** The command line of a unit's program, the first child of its sandbox's first process. */
function wordsOf(stateDir: string, uid: string, unit: string): string[] {
  const status = readFileSync(join(stateDir, uid, "units", unit, "status"), "utf8");
  const pid = /"child-pid": (\d+)/.exec(status)?.[1] ?? "";
  const program = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return readFileSync(`/proc/${program}/cmdline`, "utf8").split("\0");
}

/** The words that follow this one. */
function after(words: readonly string[] | undefined, name: string): string[] {
  return (words ?? []).flatMap((word, index) => (words?.[index - 1] === name ? [word] : []));
}
