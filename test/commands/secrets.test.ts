import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { runApply } from "../../controller/commands/apply.ts";
import { runDelete } from "../../controller/commands/delete.ts";
import { runDescribe } from "../../controller/commands/describe.ts";
import { errorLines, EXIT } from "../../controller/commands/exit.ts";
import { runExport } from "../../controller/commands/export.ts";
import { runGet } from "../../controller/commands/get.ts";
import { runPlan } from "../../controller/commands/plan.ts";
import { createEventRecorder } from "../../controller/loop/events.ts";
import type { Log } from "../../controller/ports/log.ts";
import { createFolderSource } from "../../controller/sources/files.ts";
import { cliRig, isFrozen, type CliRig } from "./rig.ts";

const CANARY = "hunter2-canary-7f3a";
const FORMS = [CANARY, Buffer.from(CANARY).toString("base64"), encodeURIComponent(CANARY)];

function secretYaml(fields: string, name = "keys"): string {
  return `apiVersion: v1\nkind: Secret\nmetadata: { name: ${name} }\n${fields}\n`;
}

const GOOD = secretYaml(`stringData: { token: "${CANARY}", user: me }`);

function expectNoCanary(text: string): void {
  for (const form of FORMS) expect(text).not.toContain(form);
}

/** A rig with the Secret `keys` in its store. */
async function withSecret(rig: CliRig): Promise<void> {
  expect(await runApply(rig.context, { filename: [rig.file("good.yaml", GOOD)] })).toBe(EXIT.ok);
}

describe("a Secret on the command line", () => {
  it("is created, left alone, configured and deleted, and its values are in no output", async () => {
    await using rig = cliRig();
    await withSecret(rig);
    await withSecret(rig);
    const changed = rig.file("b.yaml", secretYaml(`stringData: { token: "${CANARY}", other: "${CANARY}" }`));
    await runPlan(rig.context, { filename: [changed] });
    await runApply(rig.context, { filename: [changed], dryRun: true });
    await runApply(rig.context, { filename: [changed] });
    await runDescribe(rig.context, ["secret", "keys"]);
    await runGet(rig.context, ["secrets"], { output: "wide" });
    await runGet(rig.context, ["secret/keys"], { output: "name" });
    await runGet(rig.context, ["secrets"], { allNamespaces: true });
    await runDelete(rig.context, ["secret", "keys"], { filename: [] });

    expect(rig.out().split("\n").slice(0, 5)).toEqual([
      "secret/keys created",
      "secret/keys unchanged",
      "secret/keys: configured",
      "secret/keys configured (dry run)",
      "secret/keys configured",
    ]);
    expect(rig.out()).toContain("secret/keys deleted");
    expectNoCanary(rig.out() + rig.err());
  });

  it("has the columns and the description that kubectl prints", async () => {
    await using rig = cliRig();
    await withSecret(rig);
    rig.clear();

    await runGet(rig.context, ["secrets"], {});
    const [headers, row] = rig.out().split("\n");
    rig.clear();
    await runDescribe(rig.context, ["secrets"]);

    expect(headers?.split(/ {2,}/)).toEqual(["NAME", "TYPE", "DATA", "AGE"]);
    expect(row).toMatch(/^keys +Opaque +2 +\d+s$/);
    expect(rig.out()).toContain(`Type:  Opaque\nData:\n  token:  ${CANARY.length} bytes\n  user:  2 bytes\n`);
    expect(rig.out()).not.toContain("Spec:");
  });

  it("is shown whole by -o yaml and json alone, and what is printed can be applied again", async () => {
    await using rig = cliRig();
    await withSecret(rig);
    rig.clear();

    await runGet(rig.context, ["secret", "keys"], { output: "yaml" });
    const printed = rig.out();
    await runApply(rig.context, { filename: [rig.file("again.yaml", printed)] });

    expect(parse(printed)).toMatchObject({ kind: "Secret", type: "Opaque", data: { token: FORMS[1] } });
    const applied = await rig.context.store.get("Secret", { namespace: "default", name: "keys" });
    expect(rig.err()).toBe("");
    expect(applied).toMatchObject({ type: "Opaque", data: { token: FORMS[1] } });
  });

  it("drops a key that a declaration drops, and keeps one that somebody else added", async () => {
    await using rig = cliRig();
    await withSecret(rig);
    const key = { namespace: "default", name: "keys" };
    const stored = await rig.context.store.get("Secret", key);
    if (stored === undefined) throw new Error("no secret");
    await rig.context.store.update<"Secret">({ ...stored, data: { ...stored.data, extra: "eA==" } });

    await runApply(rig.context, { filename: [rig.file("c.yaml", secretYaml(`stringData: { token: "${CANARY}" }`))] });

    const after = await rig.context.store.get("Secret", key);
    expect(Object.keys(after?.data ?? {}).sort()).toEqual(["extra", "token"]);
    expectNoCanary(JSON.stringify(after?.metadata));
  });

  it.each([
    `data: { token: "${CANARY}" }`,
    `data: { token: "${CANARY}${"x".repeat(2 * 1024 * 1024)}" }`,
    `stringData: { token: "${CANARY}${"x".repeat(1024 * 1024)}" }`,
    `stringData: { token: { "${CANARY}": 1 } }`,
    `stringData: { "${CANARY} ": "" }`,
    `stringdata: { token: "${CANARY}" }`,
    `spec: "${CANARY}"`,
    `value: "${CANARY}"`,
    `stringData: "${CANARY}"`,
    `immutable: "${CANARY}"`,
    `stringData: { token: *${CANARY} }`,
    `stringData: { token: !${CANARY} x }`,
    `stringData:\n  token: |${CANARY}\n   x`,
    `stringData: { token: "${CANARY} }`,
    `stringData: { token: "\\q${CANARY}" }`,
    `type: other\nstringData: { token: "${CANARY}" }`,
  ])("that is refused is refused without a word of its values (%#)", async (fields) => {
    await using rig = cliRig();
    await withSecret(rig);
    const file = rig.file("bad.yaml", secretYaml(fields));
    const said: string[] = [];
    for (const run of [
      () => runApply(rig.context, { filename: [file] }),
      () => runApply(rig.context, { filename: [file], dryRun: true }),
      () => runPlan(rig.context, { filename: [file] }),
    ]) {
      expect(await run().catch((error: unknown) => (said.push(...errorLines(error, true)), EXIT.refused))).toBe(
        EXIT.refused,
      );
    }
    await runDescribe(rig.context, ["secret", "keys"]);

    expectNoCanary(said.join("\n") + rig.out() + rig.err());
  });

  it("is in no export of a bottle", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ code: 0 }) });
    await withSecret(rig);
    await rig.create();
    await rig.until(isFrozen);
    const output = join(rig.dir, "b.tar");

    await runExport(rig.context, "b", { output });

    expectNoCanary(readFileSync(output, "latin1"));
  });
});

describe("a Secret in a watched folder", () => {
  it("is applied, and a refused one is told of without a word of its values", async () => {
    await using rig = cliRig();
    const { store } = rig.context;
    const clock = { nowMs: Date.now() };
    const now = () => clock.nowMs;
    const logged: unknown[] = [];
    const note = (fields: object, message: string) => void logged.push([fields, message]);
    const log: Log = { debug: note, info: note, warn: note, error: note };
    const source = createFolderSource({
      dir: rig.dir,
      store,
      events: createEventRecorder({ store, now, log }),
      log,
      now,
    });
    const settle = async () => {
      await source.scan();
      clock.nowMs += 1000;
      await source.scan();
    };
    writeFileSync(join(rig.dir, "s.yaml"), GOOD);
    await settle();
    const applied = await store.get("Secret", { namespace: "default", name: "keys" });
    for (const bad of [`data: { token: "${CANARY}" }`, `stringData: { token: *${CANARY} }`]) {
      writeFileSync(join(rig.dir, "s.yaml"), secretYaml(bad));
      await settle();
    }
    const refused = await store.get("Secret", { namespace: "default", name: "keys" });
    const { items } = await store.list("Event");

    expect(applied?.data["token"]).toBe(FORMS[1]);
    expect(refused?.data).toEqual(applied?.data);
    expect(refused?.metadata.annotations).toHaveProperty(["bot-bottle.dev/rejected-update"]);
    expect(items.length).toBeGreaterThan(0);
    expectNoCanary(JSON.stringify([items, logged, refused?.metadata]));
  });
});
