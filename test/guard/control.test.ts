import { EventEmitter } from "node:events";
import { PassThrough, Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import type { AuditJournal } from "../../backends/guard/audit-journal.ts";
import { createControlClient } from "../../backends/guard/control-client.ts";
import { CONTROL_REQUESTS_MAX, createLineReader } from "../../backends/guard/control-protocol.ts";
import { serveControl } from "../../backends/guard/control.ts";
import { createSettingsHolder, type SettingsHolder } from "../../backends/guard/settings.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { AuditPage, AuditRequest, GuardConfig } from "../../controller/ports/guard.ts";

const CANARY = "canary-of-the-model-key";
const REQUEST: AuditRequest = { cursor: "", waitMs: 20_000, linesMax: 10 };
const PAGE: AuditPage = { lines: [], cursor: "c", health: { ok: true } };

function config(part: object = {}): GuardConfig {
  return {
    digest: "digest-1",
    token: "t".repeat(32),
    policy: {
      rules: [
        {
          name: "model",
          host: "api.example",
          ports: [443],
          protocol: "HTTPS",
          action: "Allow",
          cidrs: [],
          webSocket: false,
          uninspected: "Refuse",
          inject: [{ header: "x-api-key", valueTemplate: "{value}", secret: "model/key" }],
        },
      ],
      dlp: "Block",
      audit: "Full",
      budget: {},
    },
    placeholders: {},
    secretRefs: ["model/key"],
    secrets: { "model/key": CANARY },
    ...part,
  };
}

/** Both ends of one stream, and everything that passed from the guard. */
function channel(): { client: Duplex; guard: { input: PassThrough; output: PassThrough }; said: () => string } {
  const [input, output] = [new PassThrough(), new PassThrough()];
  let said = "";
  output.on("data", (chunk: Buffer) => (said += chunk.toString()));
  return { client: Duplex.from({ readable: output, writable: input }), guard: { input, output }, said: () => said };
}

interface Rig {
  client: Duplex;
  settings: SettingsHolder;
  said: () => string;
  /** Answers the reads of the audit that wait. */
  readers: {
    request: AuditRequest;
    signal: AbortSignal | undefined;
    resolve: (page: Omit<AuditPage, "digest">) => void;
  }[];
  asked: (count: number) => Promise<void>;
}

function rig(part: { authority?: Promise<{ certificate: string }> } = {}): Rig {
  const { client, guard, said } = channel();
  const settings = createSettingsHolder();
  const readers: Rig["readers"] = [];
  const news = new EventEmitter();
  const audit: AuditJournal = {
    write: () => true,
    health: () => ({ ok: true }),
    close: () => {},
    read: (request, signal) =>
      new Promise((resolve) => {
        readers.push({ request, signal, resolve });
        news.emit("read");
      }),
  };
  const authority = part.authority ?? Promise.resolve({ certificate: "the certificate" });
  serveControl({ settings, audit, authority }, guard);
  const asked = (count: number) =>
    new Promise<void>((resolve) => {
      const look = () => readers.length >= count && resolve();
      news.on("read", look);
      look();
    });
  return { client, settings, said, readers, asked };
}

/** The next lines that arrive, parsed. */
function lines(stream: Duplex, count: number): Promise<{ id: string; ok: boolean; error?: { reason: string } }[]> {
  return new Promise((resolve) => {
    const got: string[] = [];
    const reader = createLineReader((line) => {
      got.push(line);
      if (got.length === count) resolve(got.map((one) => JSON.parse(one)));
    });
    stream.on("data", (chunk: Buffer) => reader.push(chunk));
  });
}

async function failureOf(promise: Promise<unknown>): Promise<BackendError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof BackendError) return error;
  throw new Error("it did not fail with a BackendError", { cause: error });
}

describe("control channel", () => {
  it("settings are in force when configure returns with the certificate", async () => {
    const { client, settings } = rig();

    const configured = await createControlClient(client).configure(config());

    expect(configured).toEqual({ digest: "digest-1", caCertificate: "the certificate" });
    expect(settings.current()?.digest).toBe("digest-1");
  });

  it("settings that the guard cannot use are Invalid with its reason, and no value of theirs comes back", async () => {
    const { client, settings, said } = rig();
    const control = createControlClient(client);

    const short = await failureOf(control.configure(config({ token: `${CANARY}!` })));
    const missing = await failureOf(control.configure(config({ secrets: { "other/key": CANARY } })));

    expect([short.kind, short.reason]).toEqual(["Invalid", "TokenInvalid"]);
    expect([missing.kind, missing.reason]).toEqual(["Invalid", "SecretMissing"]);
    expect(said()).not.toContain("canary");
    expect(settings.current()).toBeUndefined();
  });

  it("a field that this guard does not know is refused: it could be the one that narrows a rule", async () => {
    const { client, said } = rig();
    const control = createControlClient(client);
    const [rule] = config().policy.rules;
    const policies = [
      { ...config().policy, onlyAtNight: CANARY },
      { ...config().policy, rules: [{ ...rule, onlyAtNight: CANARY }] },
      { ...config().policy, rules: [{ ...rule, ports: ["443"] }] },
      { ...config().policy, dlp: CANARY },
    ];

    for (const policy of policies) {
      const error = await failureOf(control.configure(config({ policy })));
      expect([error.kind, error.reason]).toEqual(["Invalid", "RequestInvalid"]);
      expect(error.message).toContain("config.policy");
    }
    expect(said()).not.toContain("canary");
  });

  it("a guard whose authority could not be made takes no settings", async () => {
    const { client, settings } = rig({ authority: Promise.reject(new Error(CANARY)) });

    const error = await failureOf(createControlClient(client).configure(config()));

    expect(error.kind).toBe("Transient");
    expect(error.message).not.toContain("canary");
    expect(settings.current()).toBeUndefined();
  });

  it("a page carries the digest of the settings in force, and overlapping requests get their own answers", async () => {
    const { client, readers, asked } = rig();
    const control = createControlClient(client);

    const first = control.audit(REQUEST);
    const second = control.audit({ ...REQUEST, cursor: "second" });
    await asked(2);
    await control.configure(config());
    readers[1]?.resolve({ ...PAGE, cursor: "of the second" });
    readers[0]?.resolve({ ...PAGE, cursor: "of the first" });

    expect(await second).toEqual({ ...PAGE, cursor: "of the second", digest: "digest-1" });
    expect(await first).toEqual({ ...PAGE, cursor: "of the first", digest: "digest-1" });
    expect(readers[1]?.request).toEqual({ ...REQUEST, cursor: "second" });
  });

  it("several clients on one stream hear only their own answers", async () => {
    const { client, settings } = rig();
    const clients = Array.from({ length: 5 }, () => createControlClient(client));
    client.emit("data", Buffer.from('{"ready":true}\nnot even JSON\n'));

    const all = await Promise.all(clients.map((one, n) => one.configure(config({ digest: `digest-${n}` }))));

    expect(all.map(({ digest }) => digest)).toEqual(["digest-0", "digest-1", "digest-2", "digest-3", "digest-4"]);
    expect(settings.current()?.digest).toBe("digest-4");
  });

  it("half a line of a client that died does not spoil the request of the next", async () => {
    const { client } = rig();
    client.write('{"id":"dead","type":"configure","config":{"dig');

    expect((await createControlClient(client).configure(config())).digest).toBe("digest-1");
  });

  it("lines that are no requests are dropped or refused, and never said again", async () => {
    const { client, said } = rig();
    const answers = lines(client, 3);

    client.write(`${CANARY}\n{"id":"${CANARY} with spaces","type":"audit"}\n[1]\nnull\n`);
    client.write(`{"id":"1","type":"${CANARY}"}\n{"id":"2","type":"audit","request":"${CANARY}"}\n`);
    client.write(`{"id":"3","type":"configure"}\n`);

    const got = await answers;
    expect(got.map(({ id, error }) => [id, error?.reason])).toEqual(
      ["1", "2", "3"].map((id) => [id, "RequestInvalid"]),
    );
    expect(said()).not.toContain("canary");
  });

  it("more readers at once than the bound are told to come again, and keep no settings out", async () => {
    const { client, asked, readers } = rig();
    const control = createControlClient(client);
    const waiting = Array.from({ length: CONTROL_REQUESTS_MAX }, () => control.audit(REQUEST));
    await asked(CONTROL_REQUESTS_MAX);

    const error = await failureOf(control.audit(REQUEST));

    expect([error.kind, error.reason]).toEqual(["Transient", "Busy"]);
    expect((await control.configure(config())).digest).toBe("digest-1");
    for (const { resolve } of readers) resolve(PAGE);
    expect(await Promise.all(waiting)).toHaveLength(CONTROL_REQUESTS_MAX);
  });

  it("a client that goes away ends the reads that wait for it", async () => {
    const { client, asked, readers } = rig();
    const reading = failureOf(createControlClient(client).audit(REQUEST));
    await asked(1);

    client.destroy();

    expect([(await reading).kind, (await reading).reason]).toEqual(["NotFound", "GuardGone"]);
    const signal = readers[0]?.signal;
    await new Promise<void>((resolve) => {
      if (signal?.aborted === true) resolve();
      signal?.addEventListener("abort", () => resolve());
    });
    expect(signal?.aborted).toBe(true);
  });
});

describe("control client", () => {
  it("a guard that ends makes every call NotFound, those that come later too", async () => {
    const { client, guard } = channel();
    const control = createControlClient(client);
    const running = failureOf(control.configure(config()));
    guard.output.end();

    expect((await running).kind).toBe("NotFound");
    expect((await failureOf(control.audit(REQUEST))).kind).toBe("NotFound");
  });

  it("a caller that gives up and an owner that closes do not wait for the guard", async () => {
    const { client } = channel();
    const control = createControlClient(client);
    const given = new AbortController();
    const aborted = failureOf(control.audit(REQUEST, given.signal));
    given.abort();
    expect((await aborted).reason).toBe("Aborted");
    expect((await failureOf(control.audit(REQUEST, AbortSignal.abort()))).reason).toBe("Aborted");

    const closed = failureOf(control.audit(REQUEST));
    control.close();

    expect((await closed).kind).toBe("Transient");
    expect(client.listenerCount("data")).toBe(0);
  });

  it("a guard that does not answer is Transient after the caller's wait and a little more", async () => {
    const { client } = channel();

    const error = await failureOf(createControlClient(client, { auditMs: 5 }).audit({ ...REQUEST, waitMs: 5 }));

    expect([error.kind, error.reason]).toEqual(["Transient", "GuardTimeout"]);
  });

  it("settings beyond what the channel takes are refused before they are sent", async () => {
    const { client, guard } = channel();
    const secrets = { "model/key": "x".repeat(16 * 1024 * 1024) };

    const error = await failureOf(createControlClient(client).configure(config({ secrets })));

    expect([error.kind, error.reason]).toEqual(["Invalid", "SettingsTooLarge"]);
    expect(guard.input.readableLength).toBe(0);
  });
});

describe("line reader", () => {
  it("lines arrive whole however they are cut into chunks", () => {
    const text = Buffer.from('one\n\ntwo ü€𝄞\n{"three":3}\nnot ended');
    for (let size = 1; size <= text.length; size += 1) {
      const got: string[] = [];
      const reader = createLineReader((line) => got.push(line));
      for (let at = 0; at < text.length; at += size) reader.push(text.subarray(at, at + size));
      expect(got).toEqual(["one", "two ü€𝄞", '{"three":3}']);
    }
  });

  it("a line beyond the bound is left out as a whole and its successor is not", () => {
    const got: string[] = [];
    const reader = createLineReader((line) => got.push(line), 10);

    for (const chunk of ["0123456789\n", "0123456789", "0\n", "01234", "5678901234", "next\n", "fine\n"]) {
      reader.push(Buffer.from(chunk));
    }

    expect(got).toEqual(["0123456789", "fine"]);
  });
});
