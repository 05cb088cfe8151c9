import { Readable } from "node:stream";
import { rootCertificates } from "node:tls";
import { describe, expect, it } from "vitest";
import type { Bottle } from "../../controller/api/bottle.ts";
import { FINALIZER } from "../../controller/api/meta.ts";
import { act } from "../../controller/loop/act.ts";
import { createJournals } from "../../controller/loop/journals.ts";
import { closedSettings } from "../../controller/plan/guard-settings.ts";
import type { Step } from "../../controller/plan/steps.ts";
import { BackendError, type Backend, type Blueprint } from "../../controller/ports/backend.ts";
import type { GuardConfig } from "../../controller/ports/guard.ts";
import { TRANSCRIPT_BYTES_MAX, type JournalEntry, type Transcript } from "../../controller/ports/journal.ts";
import { unpacked } from "../contract/bottles.ts";
import { bottleDraft, CA, memoryDatabase, recordingBackend, recordingCollector, secretDraft } from "./tools.ts";

const BLUEPRINT: Blueprint = {
  uid: "u",
  namespace: "default",
  name: "a",
  generation: 1,
  specHash: "spec-1",
  env: {},
  limits: {},
};
const RUN = { turn: "1", attempt: 2, argv: ["work"], env: {} };
const FROZEN: JournalEntry = { type: "Frozen", timeMs: 7 };
const DONE = {
  type: "TurnFinished",
  timeMs: 7,
  turn: "1",
  attempt: 2,
  outcome: "Done",
  exitCode: 0,
  endMs: 6,
} as const;

/** Everything a step can reach, with what was called. Reads are no calls. */
async function bench(answers: Partial<Backend> = {}, draft = bottleDraft("a")) {
  const database = memoryDatabase();
  const { backend, calls } = recordingBackend(answers);
  const bottle = await database.store.create<"Bottle">(draft);
  const saved: Transcript[] = [];
  const { collector, drained } = recordingCollector();
  const noting = <T extends object>(port: T, verbs: readonly string[]): T =>
    new Proxy(port, {
      get(target, name) {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== "function" || !verbs.includes(String(name))) return member;
        return (...args: unknown[]): unknown => {
          calls.push([String(name)]);
          return Reflect.apply(member, target, args);
        };
      },
    });
  const tools = {
    store: noting(database.store, ["create", "update", "patchStatus", "delete"]),
    journals: createJournals(noting(database.journal, ["append", "forget"])),
    transcripts: {
      ...database.transcripts,
      save: async (_uid: string, transcript: Transcript) => {
        calls.push(["save"]);
        saved.push(transcript);
      },
    },
    collector,
    now: () => 42,
    signal: new AbortController().signal,
  };
  const { uid } = bottle.metadata;
  return {
    ...database,
    bottle,
    uid,
    calls,
    saved,
    drained,
    perform: (step: Step, on: Bottle = bottle) => act(step, on, backend, tools),
    performNowhere: (step: Step) => act(step, bottle, undefined, tools),
    journalOf: async () => (await database.journal.read(uid)).map(({ entry }) => entry),
  };
}

describe("a step on the backend is one call with what the plan says", () => {
  const steps: [Step, (uid: string) => unknown[]][] = [
    [{ kind: "prepare", blueprint: BLUEPRINT }, () => ["prepare", BLUEPRINT]],
    [{ kind: "createAgent", blueprint: BLUEPRINT, run: RUN }, () => ["createAgent", BLUEPRINT, RUN]],
    [{ kind: "startAgent", turn: "1", attempt: 2 }, (uid) => ["startAgent", { uid, turn: "1", attempt: 2 }]],
    [
      { kind: "stopAgent", turn: "1", attempt: 2, graceMs: 5 },
      (uid) => ["stopAgent", { uid, turn: "1", attempt: 2 }, 5],
    ],
    [{ kind: "removeUnits", unitIds: ["x", "y"] }, (uid) => ["removeUnits", uid, ["x", "y"]]],
    [{ kind: "removeDisk" }, (uid) => ["removeDisk", uid]],
  ];

  it.each(steps)("$kind", async (step, expected) => {
    const { calls, uid, bottle, perform } = await bench();

    const after = await perform(step);

    expect(calls).toEqual([expected(uid)]);
    expect(after).toEqual(bottle);
  });

  it.each(steps)("$kind without a backend is refused, not skipped", async (step) => {
    const { performNowhere } = await bench();

    await expect(performNowhere(step)).rejects.toMatchObject({ kind: "Unavailable", reason: "BackendUnknown" });
  });

  it("what the backend refuses is passed on as it is", async () => {
    const refusal = new BackendError("Conflict", "SpecChanged", "look again");
    const { perform } = await bench({ prepare: () => Promise.reject(refusal) });

    await expect(perform({ kind: "prepare", blueprint: BLUEPRINT })).rejects.toBe(refusal);
  });
});

describe("a probe", () => {
  it("is one look from inside, and what it found is on record", async () => {
    const { calls, uid, perform, journalOf } = await bench();

    await perform({ kind: "probe", holderId: "h" });

    expect(calls).toEqual([["probe", { uid, holderId: "h" }], ["append"]]);
    expect(await journalOf()).toEqual([
      { type: "Probed", timeMs: 42, holderId: "h", passed: true, detail: "all is sealed" },
    ]);
  });

  it("that could not be made leaves no record: it neither passed nor failed", async () => {
    const { perform, journalOf } = await bench({
      probe: () => Promise.reject(new BackendError("Transient", "EngineError", "try again")),
    });

    await expect(perform({ kind: "probe", holderId: "h" })).rejects.toThrow("try again");

    expect(await journalOf()).toEqual([]);
  });
});

async function withSecrets(answers: Partial<Backend> = {}) {
  const rig = await bench(answers);
  await rig.store.create<"Secret">(secretDraft("api", { token: "s3cret", other: "no" }));
  await rig.store.create<"Secret">(secretDraft("git", { token: "grüße" }));
  rig.calls.length = 0;
  return rig;
}

describe("configuring a guard", () => {
  const settings = { ...closedSettings("t", { reason: "x", message: "x" }), digest: "sha256:7", closed: undefined };
  const injecting = { ...settings, secretRefs: ["api/token", "git/token"] };
  const step = (more: Partial<Extract<Step, { kind: "configureGuard" }>> = {}): Step => ({
    kind: "configureGuard",
    guardId: "g",
    settings: injecting,
    trust: true,
    ...more,
  });

  it("gives it the values of its secrets and no others, then the home what to trust, and is on record last", async () => {
    const { calls, uid, perform, journalOf } = await withSecrets();

    await perform(step());

    const secrets = { "api/token": "s3cret", "git/token": "grüße" };
    expect(calls).toEqual([
      ["configureGuard", { uid, guardId: "g" }, { ...injecting, secrets }],
      ["copyIn", uid, "/home/agent", expect.anything()],
      ["append"],
    ]);
    expect(await journalOf()).toEqual([{ type: "GuardConfigured", timeMs: 42, guardId: "g", digest: "sha256:7" }]);
  });

  it("of a guard whose authority the home has leaves the home alone", async () => {
    const { calls, perform } = await withSecrets();

    await perform(step({ trust: false }));

    expect(calls.map(([verb]) => verb)).toEqual(["configureGuard", "append"]);
  });

  it("writes the authority alone, and behind the public ones, for everybody to read", async () => {
    const archives: Readable[] = [];
    const { perform } = await withSecrets({
      copyIn: async (_uid, _directory, archive) => void archives.push(archive),
    });

    await perform(step());
    const files = await unpacked(archives[0] ?? Readable.from([]));

    expect(files.map(({ name }) => name)).toEqual([".bot-bottle/", ".bot-bottle/ca.pem", ".bot-bottle/ca-bundle.pem"]);
    expect(files[1]?.bytes.toString()).toBe(CA);
    const bundle = files[2]?.bytes.toString() ?? "";
    expect(bundle.endsWith(CA)).toBe(true);
    expect(bundle.match(/-----BEGIN CERTIFICATE-----/g)?.length).toBe(rootCertificates.length + 1);
    expect(bundle).not.toContain("----------BEGIN");
  });

  it.each([
    ["a Secret that is gone", "gone/token", "SecretNotFound", '"gone"'],
    ["a key that is gone", "api/gone", "SecretNotFound", '"gone"'],
    ["a key that is none of the Secret's own", "api/constructor", "SecretNotFound", '"constructor"'],
    ["an empty value", "empty/token", "SecretInvalid", "empty"],
    ["a value with a line break at its end", "lines/token", "SecretInvalid", "line break"],
    ["a value that is no text", "binary/token", "SecretInvalid", "no text"],
  ])("with %s is refused before the guard is asked, and says no value", async (_what, id, reason, words) => {
    const { calls, store, perform, journalOf } = await withSecrets();
    await store.create<"Secret">(secretDraft("empty", { token: "" }));
    await store.create<"Secret">(secretDraft("lines", { token: "hunter2\n" }));
    const binary = { ...secretDraft("binary", {}), data: { token: Buffer.from([0xff, 0xfe]).toString("base64") } };
    await store.create<"Secret">(binary);
    calls.length = 0;

    const refused = perform(step({ settings: { ...settings, secretRefs: ["api/token", id] } }));

    await expect(refused).rejects.toMatchObject({ kind: "Invalid", reason, message: expect.stringContaining(words) });
    await expect(refused).rejects.not.toThrow(/s3cret|hunter2/);
    expect(calls).toEqual([]);
    expect(await journalOf()).toEqual([]);
  });

  it("is not on record if the home did not get the authority: the agent would trust nobody", async () => {
    const { perform, journalOf } = await withSecrets({
      copyIn: () => Promise.reject(new BackendError("Transient", "EngineError", "try again")),
    });

    await expect(perform(step())).rejects.toThrow("try again");

    expect(await journalOf()).toEqual([]);
  });

  it("is not on record if the guard refused: what it has is what it had", async () => {
    const configs: GuardConfig[] = [];
    const { perform, journalOf } = await withSecrets({
      configureGuard: async (_unit, config) => {
        configs.push(config);
        throw new BackendError("Invalid", "PolicyInvalid", "cannot use the policy");
      },
    });

    await expect(perform(step())).rejects.toMatchObject({ kind: "Invalid", reason: "PolicyInvalid" });

    expect(configs).toHaveLength(1);
    expect(await journalOf()).toEqual([]);
  });
});

describe("draining a guard's audit", () => {
  it("is the collector's matter, and leaves no record", async () => {
    const { drained, calls, uid, perform } = await bench();

    await perform({ kind: "drainAudit", guardId: "g" });

    expect(drained).toEqual([{ uid, guardId: "g" }]);
    expect(calls).toEqual([]);
  });
});

describe("a step on the store is one call", () => {
  it("addFinalizer keeps the finalizers of others and returns what is stored", async () => {
    const draft = bottleDraft("a");
    const others = { ...draft, metadata: { ...draft.metadata, finalizers: ["example.com/other"] } };
    const { calls, store, perform } = await bench({}, others);

    const after = await perform({ kind: "addFinalizer" });

    expect(calls).toEqual([["update"]]);
    expect(after.metadata.finalizers).toEqual(["example.com/other", FINALIZER]);
    expect(await store.get("Bottle", { namespace: "default", name: "a" })).toEqual(after);
  });

  it("removeFinalizer removes the own one only", async () => {
    const draft = bottleDraft("a");
    const both = { ...draft, metadata: { ...draft.metadata, finalizers: [FINALIZER, "example.com/other"] } };
    const { calls, perform } = await bench({}, both);

    const after = await perform({ kind: "removeFinalizer" });

    expect(calls).toEqual([["update"]]);
    expect(after.metadata.finalizers).toEqual(["example.com/other"]);
  });

  it("deleteResource deletes this bottle, never another one that took its name", async () => {
    const { calls, store, bottle, perform } = await bench();
    const another = { ...bottle, metadata: { ...bottle.metadata, uid: "another" } };

    await expect(perform({ kind: "deleteResource" }, another)).rejects.toMatchObject({ reason: "Conflict" });
    expect(await store.get("Bottle", { namespace: "default", name: "a" })).toBeDefined();
    await perform({ kind: "deleteResource" });

    expect(await store.get("Bottle", { namespace: "default", name: "a" })).toBeUndefined();
    expect(calls).toEqual([["delete"], ["delete"]]);
  });

  it("record appends all its entries at once", async () => {
    const { calls, perform, journalOf } = await bench();

    await perform({ kind: "record", entries: [DONE, FROZEN] });

    expect(calls).toEqual([["append"]]);
    expect(await journalOf()).toEqual([DONE, FROZEN]);
  });

  it("forget removes the journal", async () => {
    const { calls, perform, journalOf } = await bench();
    await perform({ kind: "record", entries: [FROZEN] });

    await perform({ kind: "forget" });

    expect(calls).toEqual([["append"], ["forget"]]);
    expect(await journalOf()).toEqual([]);
  });
});

describe("collecting a turn", () => {
  const collect: Step = { kind: "collectTurn", entry: DONE };

  it("saves what the agent wrote before the end is on record, because the unit goes after that", async () => {
    const { calls, uid, saved, perform, journalOf } = await bench();

    await perform(collect);

    expect(calls).toEqual([["logs", { uid, turn: "1", attempt: 2 }], ["save"], ["append"]]);
    expect(await journalOf()).toEqual([DONE]);
    expect(saved).toMatchObject([{ turn: "1", attempt: 2, truncated: false }]);
    expect(Buffer.from(saved[0]?.bytes ?? []).toString()).toBe("what it wrote\n");
  });

  it("of a unit that is gone saves an empty transcript: there is nothing to wait for", async () => {
    const { saved, perform, journalOf } = await bench({
      logs: () => failingLogs(new BackendError("NotFound", "UnitNotFound", "the unit is gone")),
    });

    await perform(collect);

    expect(saved).toMatchObject([{ turn: "1", attempt: 2, truncated: false }]);
    expect(saved[0]?.bytes).toHaveLength(0);
    expect(await journalOf()).toEqual([DONE]);
  });

  it("is tried again if the output cannot be read for another reason: nothing is on record", async () => {
    const { calls, perform, journalOf } = await bench({
      logs: () => failingLogs(new BackendError("Transient", "EngineError", "try again")),
    });

    await expect(perform(collect)).rejects.toThrow("try again");

    expect(calls).toEqual([]);
    expect(await journalOf()).toEqual([]);
  });

  it.each([
    ["many small pieces", 64 * 1024],
    ["pieces that do not divide the limit", 1_000_003],
    ["pieces larger than the limit", TRANSCRIPT_BYTES_MAX + 5],
  ])("keeps the end of a longer output, in %s, and says that the beginning is missing", async (_what, size) => {
    const total = TRANSCRIPT_BYTES_MAX + 30 * 64 * 1024;
    const { saved, perform } = await bench({ logs: () => countedOutput(total, size) });

    await perform(collect);

    expect(saved[0]?.truncated).toBe(true);
    expect(saved[0]?.bytes.byteLength).toBe(TRANSCRIPT_BYTES_MAX);
    expect(saved[0]?.bytes.at(-1)).toBe((total - 1) % 251);
    expect(saved[0]?.bytes.at(0)).toBe((total - TRANSCRIPT_BYTES_MAX) % 251);
  });

  it("keeps an output of exactly the limit whole", async () => {
    const { saved, perform } = await bench({ logs: () => countedOutput(TRANSCRIPT_BYTES_MAX, 1024 * 1024) });

    await perform(collect);

    expect(saved[0]?.truncated).toBe(false);
    expect(saved[0]?.bytes.byteLength).toBe(TRANSCRIPT_BYTES_MAX);
  });
});

async function* failingLogs(error: Error): AsyncIterable<Uint8Array> {
  yield* [];
  throw error;
}

/** Output in which each byte tells its place. */
async function* countedOutput(total: number, size: number): AsyncIterable<Uint8Array> {
  for (let from = 0; from < total; from += size) {
    yield Uint8Array.from({ length: Math.min(size, total - from) }, (_, index) => (from + index) % 251);
  }
}
