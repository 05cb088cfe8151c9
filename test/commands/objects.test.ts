import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { runApply } from "../../controller/commands/apply.ts";
import { runCleanup } from "../../controller/commands/cleanup.ts";
import { runDelete } from "../../controller/commands/delete.ts";
import { runDescribe } from "../../controller/commands/describe.ts";
import { EXIT } from "../../controller/commands/exit.ts";
import { runGet } from "../../controller/commands/get.ts";
import { runPlan } from "../../controller/commands/plan.ts";
import { createEventRecorder } from "../../controller/loop/events.ts";
import { bottleYaml, SILENT, templateYaml } from "../sources/fixtures.ts";
import { cliRig, isFrozen, refusal, runs } from "./rig.ts";

describe("apply", () => {
  it("creates, configures and leaves unchanged, what is referred to first", async () => {
    await using rig = cliRig();
    const file = rig.file("a.yaml", `${bottleYaml("b")}---\n${templateYaml("t")}`);

    await runApply(rig.context, { filename: [file] });
    await runApply(rig.context, { filename: [file] });
    rig.stdin(bottleYaml("b", { spec: "label: new" }));
    await runApply(rig.context, { filename: ["-"] });

    expect(rig.out().split("\n")).toEqual([
      "bottletemplate/t created",
      "bottle/b created",
      "bottletemplate/t unchanged",
      "bottle/b unchanged",
      "bottle/b configured",
      "",
    ]);
  });

  it("applies what it can, prints each refusal with its causes and exits with 4", async () => {
    await using rig = cliRig();
    const bad = bottleYaml("bad", { spec: "color: nocolor" });
    const file = rig.file("a.yaml", `${bad}---\nkind: [\n---\n${bottleYaml("good")}`);

    expect(await runApply(rig.context, { filename: [file, rig.file("b.yaml", bottleYaml("good2"))] })).toBe(
      EXIT.refused,
    );

    expect(rig.out()).toContain("bottle/good2 created");
    expect(rig.err()).toMatch(/^error: .*a\.yaml/m);
    expect(rig.err()).toContain("spec.color");
  });

  it("with --dry-run stores nothing and says what it would do", async () => {
    await using rig = cliRig();
    const file = rig.file("a.yaml", bottleYaml("b"));

    await runApply(rig.context, { filename: [file], dryRun: true });

    expect(rig.out()).toBe("bottle/b created (dry run)\n");
    expect((await rig.context.store.list("Bottle")).items).toEqual([]);
  });

  it("edits what a folder declares and says that it will be changed back", async () => {
    await using rig = cliRig();
    const annotations = { [ANNOTATIONS.source]: "folder:/srv/x", [ANNOTATIONS.sourcePath]: "y.yaml" };
    await rig.context.store.create<"BottleTemplate">({
      apiVersion: "bot-bottle.dev/v1alpha1",
      kind: "BottleTemplate",
      metadata: { name: "t", annotations },
      spec: {},
    });

    expect(await runApply(rig.context, { filename: [rig.file("t.yaml", templateYaml("t"))] })).toBe(EXIT.ok);

    expect(rig.out()).toBe("bottletemplate/t configured\n");
    expect(rig.err()).toContain("also declared by folder:/srv/x (file y.yaml): it will be changed back");
  });

  it("with --wait ends when the turns have ended, with 1 if one failed", async () => {
    await using rig = cliRig({ serve: true, program: (run) => ({ code: run.turn === "1" ? 0 : 9 }) });

    const good = await runApply(rig.context, { filename: [rig.file("a.yaml", bottleYaml("good"))], wait: true });
    const bad = await runApply(rig.context, {
      filename: [rig.file("a.yaml", bottleYaml("bad", { turns: ["x", "y"] }))],
      wait: true,
    });

    expect([good, bad]).toEqual([EXIT.ok, EXIT.error]);
    expect(rig.out()).toContain("bottle/good finished\n");
    expect(rig.out()).toContain("bottle/bad finished: ");
  });

  it("of what is not there exits with 3, of an empty folder with 2", async () => {
    await using rig = cliRig();
    mkdirSync(join(rig.dir, "empty"));

    expect((await refusal(runApply(rig.context, { filename: [join(rig.dir, "none")] }))).exitCode).toBe(EXIT.notFound);
    expect((await refusal(runApply(rig.context, { filename: [join(rig.dir, "empty")] }))).exitCode).toBe(EXIT.usage);
  });
});

describe("plan", () => {
  it("says per object what applying would do and the steps of bottles, and does nothing", async () => {
    await using rig = cliRig();
    await runApply(rig.context, { filename: [rig.file("a.yaml", `${bottleYaml("same")}---\n${bottleYaml("other")}`)] });
    rig.clear();
    const changed = bottleYaml("other", { turns: ["say hello", "more"] });
    const refused = bottleYaml("same", { turns: ["another prompt"] });
    const file = rig.file("b.yaml", `${bottleYaml("new")}---\n${changed}---\n${refused}`);

    const exit = await runPlan(rig.context, { filename: [file] });

    expect(exit).toBe(EXIT.refused);
    expect(rig.out()).toMatch(
      /^bottle\/new: created\n {2}- make disk, holder and guard on fake .*\n(?: {2}- .*\n)* {2}- run turn "1"\n(?: {2}- .*\n)+bottle\/other: configured\n/,
    );
    expect(rig.out()).toContain("bottle/same: refused: ");
    expect((await rig.context.store.list("Bottle")).items).toHaveLength(2);
  });
});

describe("get", () => {
  it("prints the columns of the kind, <none> for what is absent", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ code: 3 }) });
    await rig.create({ label: "nightly" });
    await rig.until(isFrozen);

    await runGet(rig.context, ["bt"], {});
    const [headers, row] = rig.out().split("\n");
    rig.clear();
    await runGet(rig.context, ["bottle/b"], { output: "wide", headers: false });

    expect(headers?.split(/ {2,}/)).toEqual([
      "NAME",
      "AGENT",
      "BACKEND",
      "READY",
      "FROZEN",
      "TURN",
      "OUTCOME",
      "EXIT",
      "AGE",
    ]);
    expect(row).toMatch(/^b +<none> +fake +True +True +1 +Failed +3 +\d+s$/);
    expect(rig.out()).toMatch(/Frozen +0 +nightly +[0-9a-f-]{36}\n$/);
  });

  it("prints json, yaml and names that other programs can read", async () => {
    await using rig = cliRig();
    await rig.create();
    await rig.create({}, "c");

    await runGet(rig.context, ["bottles", "b"], { output: "json" });
    expect(JSON.parse(rig.out())).toMatchObject({ kind: "Bottle", metadata: { name: "b" } });
    rig.clear();
    await runGet(rig.context, ["bottles"], { output: "yaml" });
    expect(parse(rig.out())).toMatchObject({
      kind: "List",
      items: [{ metadata: { name: "b" } }, { metadata: { name: "c" } }],
    });
    rig.clear();
    await runGet(rig.context, ["all"], { output: "name" });
    expect(rig.out()).toBe("bottle/b\nbottle/c\n");
  });

  it("says what it did not find, with exit code 3, and what was meant by an unknown kind", async () => {
    await using rig = cliRig();
    await rig.create();

    expect((await refusal(runGet(rig.context, ["bt", "none"], {}))).exitCode).toBe(EXIT.notFound);
    expect(await runGet(rig.context, ["bt", "b", "none", "no"], {})).toBe(EXIT.notFound);
    const unknown = await refusal(runGet(rig.context, ["botles"], {}));
    expect(unknown).toEqual({ exitCode: EXIT.usage, message: 'unknown kind "botles": did you mean "bottles"?' });
    rig.clear();
    expect(await runGet(rig.context, ["agents"], {})).toBe(EXIT.ok);
    expect(rig.err()).toContain('nothing found in namespace "default"');
  });

  it("with --watch shows changes until Ctrl-C", async () => {
    await using rig = cliRig();
    await rig.create();

    const watching = runGet(rig.context, ["bt"], { watch: true });
    await rig.create({}, "later");
    await expect.poll(() => rig.out(), { timeout: 10_000 }).toMatch(/^later /m);
    rig.interrupt();

    expect(await watching).toBe(EXIT.interrupted);
    expect(rig.out().match(/^NAME/gm)).toHaveLength(1);
  });

  it("never lets control characters of a message reach the terminal", async () => {
    await using rig = cliRig();
    const events = createEventRecorder({ store: rig.context.store, now: rig.context.now, log: SILENT });
    await events.record(
      { kind: "Bottle", namespace: "default", name: "b" },
      { type: "Normal", reason: "X", message: "evil\u001b]52;c;x\u0007" },
    );

    await runGet(rig.context, ["events"], {});

    expect(rig.out()).toContain("evil");
    expect(rig.out()).not.toContain("\u001b");
  });
});

describe("describe", () => {
  it("shows spec, conditions, turns and only this object's events", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ code: 0 }) });
    await rig.create();
    await rig.create({ turns: [{ id: "x", prompt: "other" }] }, "other");
    await rig.until(isFrozen);
    await rig.until(isFrozen, "other");

    await runDescribe(rig.context, ["bottle", "b"]);

    expect(rig.out()).toMatch(/^Name: +b$/m);
    expect(rig.out()).toMatch(/^Conditions:\n {2}TYPE +STATUS +REASON +AGE +MESSAGE\n {2}Accepted +True/m);
    expect(rig.out()).toMatch(/^Turns:\n {2}ID +STATE +OUTCOME .*\n {2}1 +Ended +Done +0 +1 .* hello$/m);
    expect(rig.out()).toMatch(/TurnDone .*turn "1" is done/);
    expect(rig.out()).not.toContain('turn "x"');
    expect((await refusal(runDescribe(rig.context, ["bt", "none"]))).exitCode).toBe(EXIT.notFound);
  });
});

describe("delete", () => {
  it("waits until the controller has destroyed a bottle", async () => {
    await using rig = cliRig({ serve: true });
    await rig.create();
    await rig.until(runs);

    expect(await runDelete(rig.context, ["bottle", "b"], { filename: [] })).toBe(EXIT.ok);

    expect(rig.out()).toBe("bottle/b is being deleted\nbottle/b deleted\n");
    expect(rig.world.containers.size + rig.world.volumes.size).toBe(0);
  });

  it("with -f deletes what a file declares, and does not wait while no controller runs", async () => {
    await using rig = cliRig();
    const file = rig.file("a.yaml", `${bottleYaml("b")}---\n${templateYaml("t")}`);
    await runApply(rig.context, { filename: [file] });
    rig.clear();

    expect(await runDelete(rig.context, [], { filename: [file] })).toBe(EXIT.ok);

    expect(rig.out()).toBe("bottle/b deleted\nbottletemplate/t deleted\n");
  });

  it("exits with 3 if one is not there, and deletes the others", async () => {
    await using rig = cliRig();
    await rig.create();

    expect(await runDelete(rig.context, ["bt", "none", "b"], { filename: [] })).toBe(EXIT.notFound);

    expect(rig.out()).toBe("bottle/b deleted\n");
    expect((await refusal(runDelete(rig.context, [], { filename: [] }))).exitCode).toBe(EXIT.usage);
    expect((await refusal(runDelete(rig.context, ["bt"], { filename: [] }))).exitCode).toBe(EXIT.usage);
  });
});

describe("cleanup", () => {
  it("shows what nobody declares, and removes it with --yes only", async () => {
    await using rig = cliRig();
    const { metadata } = await rig.create();
    const backend = rig.context.backend("fake");
    await backend.createDisk({ uid: metadata.uid, namespace: "default", name: "b" });
    await backend.createDisk({ uid: "11111111-2222-3333-4444-555555555555", namespace: "default", name: "lost" });

    expect(await runCleanup(rig.context, {})).toBe(EXIT.ok);
    expect(rig.err()).toContain("nothing is left over");
    expect(await runCleanup(rig.context, { grace: 0 })).toBe(EXIT.ok);
    expect(rig.out()).toMatch(/^fake +default\/lost +11111111-\S+ +<none> +home,workspace/m);
    expect(rig.world.volumes.size).toBe(4);

    await runCleanup(rig.context, { grace: 0, yes: true });

    expect([...rig.world.volumes.values()].every((volume) => volume.uid === metadata.uid)).toBe(true);
    expect(rig.world.volumes.size).toBe(2);
  });

  it("deletes nothing on a backend that cannot be looked at", async () => {
    await using rig = cliRig();
    rig.world.down = true;

    expect(await runCleanup(rig.context, { grace: 0, yes: true })).toBe(EXIT.unavailable);
  });
});
