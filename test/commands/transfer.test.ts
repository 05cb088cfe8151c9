import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readlinkSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import tar from "tar-stream";
import { describe, expect, it } from "vitest";
import { conditionOf } from "../../controller/api/conditions.ts";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { runCp } from "../../controller/commands/cp.ts";
import { runExec } from "../../controller/commands/exec.ts";
import { EXIT } from "../../controller/commands/exit.ts";
import { runExport } from "../../controller/commands/export.ts";
import { addEntry, unpackHost } from "../../controller/commands/host-tar.ts";
import { runImport } from "../../controller/commands/import.ts";
import { runTurn } from "../../controller/commands/turn.ts";
import { cliRig, isFrozen, refusal, runs } from "./rig.ts";

const AGENT = (files: Record<string, string>) => () => ({ output: "done\n", writes: files, code: 0 });

type Entry = Parameters<tar.Pack["entry"]>[0] & { body?: string };

function archive(entries: readonly Entry[]): Readable {
  const pack = tar.pack();
  void (async () => {
    for (const { body = "", ...header } of entries) await addEntry(pack, header, body);
    pack.finalize();
  })();
  return Readable.from(pack, { objectMode: false });
}

describe("cp", () => {
  it("copies a file and a folder out of a frozen bottle", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({ "/workspace/a.txt": "A", "/workspace/d/b.txt": "B" }) });
    await rig.create();
    await rig.until(isFrozen);

    expect(await runCp(rig.context, "b:/workspace/a.txt", join(rig.dir, "copy.txt"))).toBe(EXIT.ok);
    expect(await runCp(rig.context, "b:/workspace/d", rig.dir)).toBe(EXIT.ok);

    expect(readFileSync(join(rig.dir, "copy.txt"), "utf8")).toBe("A");
    expect(readFileSync(join(rig.dir, "d/b.txt"), "utf8")).toBe("B");
  });

  it("copies files and folders in, under a new name or into a folder that is there", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({ "/workspace/d/b.txt": "B" }) });
    await rig.create();
    await rig.until(isFrozen);
    mkdirSync(join(rig.dir, "tree/sub"), { recursive: true });
    writeFileSync(join(rig.dir, "tree/sub/x"), "X");
    symlinkSync("/etc/passwd", join(rig.dir, "tree/link"));

    await runCp(rig.context, rig.file("a.txt", "A"), "b:/workspace/new/renamed.txt");
    await runCp(rig.context, join(rig.dir, "a.txt"), "b:/workspace/d");
    await runCp(rig.context, join(rig.dir, "tree"), "b:/home/agent/");
    await runCp(rig.context, "b:/workspace", join(rig.dir, "back"));
    await runCp(rig.context, "b:/home/agent/tree/sub", join(rig.dir, "back2"));

    expect(readFileSync(join(rig.dir, "back/new/renamed.txt"), "utf8")).toBe("A");
    expect(readFileSync(join(rig.dir, "back/d/a.txt"), "utf8")).toBe("A");
    expect(readFileSync(join(rig.dir, "back/d/b.txt"), "utf8")).toBe("B");
    expect(readFileSync(join(rig.dir, "back2/x"), "utf8")).toBe("X");
    // The link was packed as a link: its target's text never left the host, and it is refused on the way back.
    expect((await refusal(runCp(rig.context, "b:/home/agent/tree", join(rig.dir, "back3")))).exitCode).toBe(
      EXIT.refused,
    );
  });

  it("refuses paths off the disk, two hosts, and what does not exist", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({}) });
    await rig.create();
    await rig.until(isFrozen);

    const exits = [
      ["b:/etc/passwd", "."],
      ["b:/workspace/../etc", "."],
      ["a", "b"],
      ["b:/workspace/none", rig.dir],
      [join(rig.dir, "none"), "b:/workspace/x"],
    ] as const;
    const codes = [];
    for (const [from, to] of exits) codes.push((await refusal(runCp(rig.context, from, to))).exitCode);

    expect(codes).toEqual([EXIT.usage, EXIT.usage, EXIT.usage, EXIT.notFound, EXIT.notFound]);
  });
});

describe("unpacking what a bottle sent", () => {
  it.each([
    ["an absolute name", [{ name: "/d/x", body: "no" }]],
    ["a name with ..", [{ name: "d/../../x", body: "no" }]],
    ["a name outside of the root", [{ name: "e/x", body: "no" }]],
    ["a link to an absolute path", [{ name: "d/l", type: "symlink", linkname: "/etc" }]],
    ["a link above the root", [{ name: "d/l", type: "symlink", linkname: "../x" }]],
    ["a link that climbs through another", [{ name: "d/s/l", type: "symlink", linkname: "../a/../../x" }]],
    ["a hard link to a file outside", [{ name: "d/l", type: "link", linkname: "/etc/passwd" }]],
    [
      "a file through a link of the same archive",
      [
        { name: "d/l", type: "symlink", linkname: "s" },
        { name: "d/l/x", body: "no" },
        { name: "d/l", type: "symlink", linkname: "s" },
      ],
    ],
  ] as [string, Entry[]][])("refuses %s", async (_what, entries) => {
    await using rig = cliRig();
    mkdirSync(join(rig.dir, "in"));

    const unpacked = refusal(unpackHost(archive(entries), "d", join(rig.dir, "in/d")).then(() => 0));

    expect((await unpacked).exitCode).toBe(EXIT.refused);
    expect(existsSync(join(rig.dir, "x"))).toBe(false);
    expect(existsSync(join(rig.dir, "in/x"))).toBe(false);
  });

  it("never writes through a link that is already in the target", async () => {
    await using rig = cliRig();
    mkdirSync(join(rig.dir, "d"));
    mkdirSync(join(rig.dir, "elsewhere"));
    symlinkSync("../elsewhere", join(rig.dir, "d/l"));
    symlinkSync("../elsewhere/f", join(rig.dir, "d/f"));

    await unpackHost(archive([{ name: "d/f", body: "file" }]), "d", join(rig.dir, "d"));
    const refused = await refusal(
      unpackHost(archive([{ name: "d/l/x", body: "no" }]), "d", join(rig.dir, "d")).then(() => 0),
    );

    expect(refused.exitCode).toBe(EXIT.refused);
    expect(readFileSync(join(rig.dir, "d/f"), "utf8")).toBe("file");
    expect(existsSync(join(rig.dir, "elsewhere/f"))).toBe(false);
    expect(existsSync(join(rig.dir, "elsewhere/x"))).toBe(false);
  });

  it("keeps links inside, modes without set-user-id, and leaves out devices", async () => {
    await using rig = cliRig();

    const { skipped } = await unpackHost(
      archive([
        { name: "d", type: "directory", mode: 0o755 },
        { name: "d/run", mode: 0o4755, body: "#!" },
        { name: "d/s/l", type: "symlink", linkname: "../run" },
        { name: "d/h", type: "link", linkname: "d/run" },
        { name: "d/dev", type: "character-device" },
      ]),
      "d",
      join(rig.dir, "d"),
    );

    expect(statSync(join(rig.dir, "d/run")).mode & 0o7777).toBe(0o755);
    expect(readlinkSync(join(rig.dir, "d/s/l"))).toBe("../run");
    expect(statSync(join(rig.dir, "d/h")).ino).toBe(statSync(join(rig.dir, "d/run")).ino);
    expect(skipped).toEqual(["d/dev"]);
  });
});

describe("export and import", () => {
  it("move a bottle with its disk, turns and transcripts; the next turn goes on there", async () => {
    await using rig = cliRig({
      serve: true,
      program: (run) => ({
        output: `${run.turn} saw ${run.files.get("/workspace/seen") ?? "nothing"}\n`,
        writes: { "/workspace/seen": `turn ${run.turn}`, "/home/agent/.session": "S" },
        code: run.turn === "1" ? 3 : 0,
      }),
    });
    await rig.create({ label: "one" });
    await rig.until(isFrozen);
    const file = join(rig.dir, "b.tar");

    expect(await runExport(rig.context, "b", { output: file })).toBe(EXIT.ok);
    expect(await runImport(rig.context, file, { name: "copy" })).toBe(EXIT.ok);

    const names = execFileSync("tar", ["-tf", file], { encoding: "utf8" }).split("\n");
    expect(names[0]).toBe("bottle.json");
    expect(names).toContain("transcripts/1-1");
    expect(names).toContain("workspace/seen");
    expect(names).toContain("home/.session");
    const copy = await rig.until(isFrozen, "copy");
    expect(copy.spec.label).toBe("one");
    expect(copy.metadata.annotations?.[ANNOTATIONS.importing]).toBeUndefined();
    expect(copy.status?.turns?.[0]).toMatchObject({ id: "1", outcome: "Failed", exitCode: 3, attempts: 1 });
    rig.clear();
    expect(await runTurn(rig.context, "copy", { prompt: "on", wait: true, timeout: 20_000 })).toBe(0);
    expect(rig.out()).toContain("2 saw turn 1\n");
    const transcripts = await rig.context.transcripts.load(copy.metadata.uid, { turn: "1", attempt: 1 });
    expect(Buffer.from(transcripts?.bytes ?? []).toString()).toBe("1 saw nothing\n");
  });

  it("export refuses a bottle that runs and leaves no half archive behind", async () => {
    await using rig = cliRig({ serve: true });
    await rig.create();
    await rig.until(runs);

    const refused = await refusal(runExport(rig.context, "b", { output: join(rig.dir, "b.tar") }));

    expect(refused.exitCode).toBe(EXIT.refused);
    expect(refused.message).toContain("bot-bottle freeze b --wait");
    expect(existsSync(join(rig.dir, "b.tar"))).toBe(false);
    expect(existsSync(join(rig.dir, "b.tar.part"))).toBe(false);
  });

  it("an import that fails midway leaves neither bottle nor disk", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({ "/workspace/a": "A" }) });
    await rig.create();
    await rig.until(isFrozen);
    const file = join(rig.dir, "b.tar");
    await runExport(rig.context, "b", { output: file });
    const whole = readFileSync(file);
    const volumes = rig.world.volumes.size;
    writeFileSync(file, whole.subarray(0, whole.length - 2048 - 700));

    const refused = await refusal(runImport(rig.context, file, { name: "copy" }));

    expect(refused.exitCode).not.toBe(EXIT.ok);
    expect(rig.err()).toContain('the half-imported bottle "copy" was removed again');
    expect(await rig.context.store.get("Bottle", { namespace: "default", name: "copy" })).toBeUndefined();
    expect(rig.world.volumes.size).toBe(volumes);
  });

  it("import refuses what is no archive, a name that is taken, and entries off the disk", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({}) });
    await rig.create();
    await rig.until(isFrozen);
    const file = join(rig.dir, "b.tar");
    await runExport(rig.context, "b", { output: file });

    expect((await refusal(runImport(rig.context, join(rig.dir, "none.tar"), {}))).exitCode).toBe(EXIT.notFound);
    expect((await refusal(runImport(rig.context, file, {}))).exitCode).toBe(EXIT.refused);
    execFileSync("sh", ["-c", `cd ${rig.dir} && echo x > evil && tar -cf no.tar evil`]);
    expect((await refusal(runImport(rig.context, join(rig.dir, "no.tar"), { name: "c" }))).exitCode).toBe(EXIT.refused);
    execFileSync("tar", ["-C", rig.dir, "-rf", file, "evil"]);
    const evil = await refusal(runImport(rig.context, file, { name: "c" }));
    expect(evil.exitCode).toBe(EXIT.refused);
    expect(await rig.context.store.get("Bottle", { namespace: "default", name: "c" })).toBeUndefined();
  });

  it("import warns of an agent that the target does not have", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({}) });
    const agent = { provider: { type: "Custom" as const, custom: { command: ["agent"] } } };
    await rig.context.store.create<"Agent">({
      apiVersion: "bot-bottle.dev/v1alpha1",
      kind: "Agent",
      metadata: { name: "worker" },
      spec: agent,
    });
    await rig.create({ agent: undefined, agentRef: { name: "worker" } });
    await rig.until(isFrozen);
    const file = join(rig.dir, "b.tar");
    await runExport(rig.context, "b", { output: file });

    await runImport({ ...rig.context, namespace: "other" }, file, {});

    expect(rig.err()).toContain('namespace "other" has no agent "worker"');
  });
});

describe("exec", () => {
  it("passes output and exit code of the command on", async () => {
    await using rig = cliRig({
      serve: true,
      program: (run) => (run.role === "session" ? { output: `ran ${run.argv.join(" ")}\n`, code: 5 } : {}),
    });
    await rig.create();
    const bottle = await rig.until(runs);
    expect(conditionOf(bottle.status?.conditions, "AgentRunning")?.status).toBe("True");

    expect(await runExec(rig.context, "b", { argv: ["ls", "-l"], flags: {} })).toBe(5);

    expect(rig.out()).toBe("ran ls -l\n");
  });

  it("passes stdin on with -i", async () => {
    await using rig = cliRig({ serve: true, program: (run) => (run.role === "session" ? { echo: true } : {}) });
    await rig.create();
    await rig.until(runs);
    rig.stdin("hello in there\n");

    expect(await runExec(rig.context, "b", { argv: ["cat"], flags: { stdin: true } })).toBe(0);

    expect(rig.out()).toBe("hello in there\n");
  });

  it("is refused on a frozen bottle and one that was never launched", async () => {
    await using rig = cliRig({ serve: true, program: AGENT({}) });
    await rig.create();
    await rig.until(isFrozen);
    await rig.create({ turns: [] }, "new");

    const argv = ["true"];
    expect((await refusal(runExec(rig.context, "b", { argv, flags: {} }))).exitCode).toBe(EXIT.unavailable);
    expect((await refusal(runExec(rig.context, "none", { argv, flags: {} }))).exitCode).toBe(EXIT.notFound);
    await rig.until((bottle) => bottle.status !== undefined, "new");
    expect((await refusal(runExec(rig.context, "new", { argv, flags: {} }))).exitCode).not.toBe(EXIT.ok);
  });
});
