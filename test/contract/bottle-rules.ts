import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, it } from "vitest";
import { HOME, WORKSPACE, type Blueprint } from "../../controller/ports/backend.ts";
import { agentOf, archive, failure, finished, FIRST, GRACE_MS, states, text, unpacked, type Suite } from "./bottles.ts";

/** More than one chunk of any transport, less than what a slow machine needs seconds for. */
const LONG_LINES = 100_000;

/** Rules of runs of an agent. The bottle is shared: each test has turns of its own. */
export function runRules(suite: Suite, blueprint: () => Blueprint): void {
  it("output of a run is what it printed, whole and in order", async () => {
    const line = "a long line of output, umlaut ä and all";

    const ran = await suite.bottles.ran(
      blueprint(),
      { type: "repeat", text: line, count: LONG_LINES },
      { turn: "long" },
    );

    expect(ran.code).toBe(0);
    expect(ran.text.length).toBe(LONG_LINES * (line.length + 1));
    expect(ran.text.endsWith(`${line}\n`)).toBe(true);
  });

  it("followed output begins at the beginning and ends with the run", async () => {
    const { bottles } = suite;
    const { uid } = blueprint();
    const { turn, attempt } = await bottles.started(blueprint(), { type: "sleep", text: "begun" }, { turn: "follow" });
    const output = bottles.bed.backend.logs({ uid, turn, attempt }, { follow: true })[Symbol.asyncIterator]();
    const first = await output.next();
    let ended = false;
    const rest = output.next().then((result) => {
      ended = true;
      return result;
    });
    await bottles.view(uid);
    await bottles.view(uid);
    const endedEarly = ended;

    await bottles.bed.backend.stopAgent({ uid, turn, attempt }, { graceMs: GRACE_MS });

    expect(Buffer.from(first.value ?? []).toString()).toBe("begun\n");
    expect(endedEarly).toBe(false);
    expect((await rest).done).toBe(true);
  });

  it("following ends when its caller gives up, and the run goes on", async () => {
    const { bottles } = suite;
    const { uid } = blueprint();
    const { turn, attempt } = await bottles.started(blueprint(), { type: "sleep", text: "begun" }, { turn: "give-up" });
    const caller = new AbortController();

    for await (const _ of bottles.bed.backend.logs({ uid, turn, attempt }, { follow: true, signal: caller.signal })) {
      caller.abort();
    }

    expect(agentOf(await bottles.view(uid), { turn, attempt })?.state).toBe("running");
    await bottles.bed.backend.stopAgent({ uid, turn, attempt }, { graceMs: GRACE_MS });
  });

  it("a stopped agent has exited by a signal, and its output can still be read", async () => {
    const { bottles } = suite;
    const { uid } = blueprint();
    const { turn, attempt } = await bottles.started(blueprint(), { type: "sleep", text: "words" }, { turn: "stop" });
    await bottles.until(uid, "printing", (view) => agentOf(view, { turn, attempt })?.state === "running");
    for await (const _ of bottles.bed.backend.logs({ uid, turn, attempt }, { follow: true })) break;

    await bottles.bed.backend.stopAgent({ uid, turn, attempt }, { graceMs: GRACE_MS });

    const stopped = agentOf(await bottles.view(uid), { turn, attempt });
    expect(stopped).toMatchObject({ state: "exited", exit: { oom: false } });
    expect([137, 143]).toContain(stopped?.exit?.code);
    expect(await bottles.output(uid, { turn, attempt })).toBe("words\n");
  });

  it("an agent has the blueprint's environment, and that of its run laid over it", async () => {
    const { bottles } = suite;
    const env = { SHAPE: "square", PROMPT: "two words\nand a 'quote' $HOME" };
    const values: string[] = [];
    for (const name of ["COLOR", "SHAPE", "PROMPT"]) {
      const ran = await bottles.ran(blueprint(), { type: "env", name }, { turn: `env-${name.toLowerCase()}`, env });
      values.push(ran.text);
    }
    expect(values).toEqual(["green", "square", env.PROMPT]);
  });

  it("words of a command line reach the program unchanged", async () => {
    const words = ["", "two words", "line\nbreak", "a 'quote' \"and\" \\ $HOME `id` *", "umlaut ä 🙂"];

    const ran = await suite.bottles.ran(blueprint(), { type: "words", words }, { turn: "words" });

    expect(ran.text).toBe(words.map((word) => `[${word}]`).join(""));
  });

  // Docker refuses the start, where a process group has begun before its program is looked for: a plan must take both.
  it("a command that does not exist fails the start as CommandNotFound, or its run with 127", async () => {
    const { bottles } = suite;
    const run = bottles.run({ type: "missing" }, { turn: "missing" });
    const key = { turn: run.turn, attempt: run.attempt };
    await bottles.bed.backend.createAgent(blueprint(), run);

    const refused = await failure(bottles.bed.backend.startAgent({ uid: blueprint().uid, ...key }));

    if (refused === undefined) {
      expect((await bottles.exited(blueprint().uid, key)).exit).toEqual({ code: 127, oom: false });
    } else {
      expect([refused.kind, refused.reason]).toEqual(["Invalid", "CommandNotFound"]);
      expect(refused.message).toContain("/no/such/program");
      expect(agentOf(await bottles.view(blueprint().uid), key)?.state).not.toBe("running");
    }
  });
}

export function execRules(suite: Suite, blueprint: () => Blueprint): void {
  const exec = (program: Parameters<Suite["bottles"]["argv"]>[0], tty = false) =>
    suite.bottles.bed.backend.exec(blueprint(), { argv: suite.bottles.argv(program), tty });

  it("a command in a bottle gives its output and its exit code", async () => {
    expect(await finished(await exec({ type: "print", text: "hello" }))).toEqual({
      stdout: "hello",
      stderr: "",
      code: 0,
    });
    expect((await finished(await exec({ type: "exit", code: 9 }))).code).toBe(9);
  });

  it("a command reads its input to the end, and writes as much", async () => {
    const input = "0123456789\n".repeat(20_000);

    const done = await finished(await exec({ type: "echo" }), input);

    expect(done.code).toBe(0);
    expect(done.stdout === input, `${done.stdout.length} of ${input.length} characters came back`).toBe(true);
  });

  it("a command with a terminal has one", async () => {
    expect((await finished(await exec({ type: "tty" }, true))).stdout).toBe("terminal\r\n");
    expect((await finished(await exec({ type: "tty" }, false))).stdout).toBe("pipe\n");
  });

  it("a command works on the agent's disk", async () => {
    await finished(await exec({ type: "write", path: `${HOME}/from-session`, text: "hello" }));

    const ran = await suite.bottles.ran(blueprint(), { type: "cat", path: `${HOME}/from-session` }, { turn: "disk" });

    expect(ran).toEqual({ code: 0, text: "hello" });
  });

  it("a command that is killed ends, and nothing of it stays", async () => {
    const { bottles } = suite;
    const session = await exec({ type: "sleep", text: "begun" });
    const begun = new Promise((resolve) => session.stdout.once("data", (chunk: Uint8Array) => resolve(String(chunk))));
    expect(await begun).toBe("begun\n");

    await session.kill();

    expect(await session.exit).not.toBe(0);
    await bottles.until(blueprint().uid, "without sessions", (view) => !states(view).join().includes("session"));
  });

  it("a command runs beside an agent, on its disk, and the agent goes on", async () => {
    const { bottles } = suite;
    const run = await bottles.started(blueprint(), { type: "sleep", text: "" }, { turn: "beside" });
    await bottles.agentIn(blueprint().uid, run, "running");

    const wrote = await finished(await exec({ type: "write", path: `${WORKSPACE}/beside`, text: "both" }));
    const read = await finished(await exec({ type: "cat", path: `${WORKSPACE}/beside` }));
    const failed = await finished(await exec({ type: "exit", code: 9 }));

    expect([wrote.code, read, failed.code]).toEqual([0, { stdout: "both", stderr: "", code: 0 }, 9]);
    expect(agentOf(await bottles.view(blueprint().uid), run)?.state).toBe("running");
    const echoed = await finished(await exec({ type: "echo" }), "typed");
    expect(echoed).toEqual({ stdout: "typed", stderr: "", code: 0 });
    expect((await finished(await exec({ type: "tty" }, true))).stdout).toBe("terminal\r\n");
  });
}

/** These freeze the shared bottle half-way, and so come last. */
export function copyRules(suite: Suite, blueprint: () => Blueprint): void {
  const bytes = Uint8Array.from({ length: 300_000 }, (_, index) => (index * 31 + (index >> 8)) % 256);
  let outside = "";
  beforeAll(() => {
    outside = mkdtempSync(join(tmpdir(), "bot-bottle-outside-"));
  });
  afterAll(() => rmSync(outside, { recursive: true, force: true }));
  const copyIn = (...entries: Parameters<typeof archive>) =>
    suite.bottles.bed.backend.copyIn(blueprint().uid, WORKSPACE, archive(...entries));
  const copyOut = async (path: string) => unpacked(await suite.bottles.bed.backend.copyOut(blueprint().uid, path));

  it("bytes copied in come out the same, running and frozen", async () => {
    await copyIn({ name: "tree/one.bin", bytes }, { name: "tree/deep/two", bytes: "two" });
    const read = await suite.bottles.ran(
      blueprint(),
      { type: "cat", path: `${WORKSPACE}/tree/deep/two` },
      { turn: "in" },
    );
    const running = await copyOut(`${WORKSPACE}/tree/one.bin`);
    await suite.bottles.removeUnits(blueprint().uid);
    const frozen = await copyOut(`${WORKSPACE}/tree/one.bin`);
    await copyIn({ name: "tree/three", bytes: "three" });
    const tree = await copyOut(`${WORKSPACE}/tree`);

    expect(read).toEqual({ code: 0, text: "two" });
    for (const entries of [running, frozen]) {
      expect(entries.map((entry) => entry.name)).toEqual(["one.bin"]);
      expect(entries[0]?.bytes.equals(bytes)).toBe(true);
    }
    expect(tree[0]?.name).toBe("tree/");
    const files = tree.filter((entry) => !entry.name.endsWith("/")).map((entry) => entry.name);
    expect(files.sort()).toEqual(["tree/deep/two", "tree/one.bin", "tree/three"]);
  });

  it("an archive that names a path outside its directory is refused", async () => {
    for (const name of ["../escaped", "a/../../escaped", `${outside}/escaped`]) {
      const refused = await failure(copyIn({ name, bytes: "out" }));
      expect(refused?.kind, name).toBe("Invalid");
    }
    expect(readdirSync(outside)).toEqual([]);
  });

  it("an archive that leads through a link writes nothing outside the disk", async () => {
    await failure(copyIn({ name: "door", link: outside }, { name: "door/escaped", bytes: "out" }));
    await failure(copyIn({ name: "door/escaped", bytes: "out" }));
    await failure(
      suite.bottles.bed.backend.copyIn(
        blueprint().uid,
        `${WORKSPACE}/door`,
        archive({ name: "escaped", bytes: "out" }),
      ),
    );

    expect(readdirSync(outside)).toEqual([]);
  });

  it("a copy does not read what a link outside the disk points to", async () => {
    await failure(copyIn({ name: "window", link: "/etc" }));

    const entries = await failure(copyOut(`${WORKSPACE}/window/hostname`));

    expect(entries?.kind).toMatch(/NotFound|Invalid/);
  });

  it("a path that is not on the disk is refused, one that is absent on it is NotFound", async () => {
    expect((await failure(copyOut(`${WORKSPACE}/nothing`)))?.kind).toBe("NotFound");
    for (const path of ["/etc/passwd", `${HOME}/../../etc/passwd`, "workspace"]) {
      expect((await failure(copyOut(path)))?.kind, path).toBe("Invalid");
    }
  });

  it("something that is no archive is refused", async () => {
    const noise = Readable.from([Buffer.from("no archive ".repeat(200))]);

    expect((await failure(suite.bottles.bed.backend.copyIn(blueprint().uid, HOME, noise)))?.kind).toBe("Invalid");
  });

  it("a command in a frozen bottle is Unavailable", async () => {
    const { bottles } = suite;
    await bottles.removeUnits(blueprint().uid);

    const argv = bottles.argv({ type: "exit", code: 0 });
    const refused = await failure(bottles.bed.backend.exec(blueprint(), { argv, tty: false }));

    expect(refused?.kind).toBe("Unavailable");
  });
}

export function absenceRules(suite: Suite): void {
  it("stopping and removing what is absent succeeds", async () => {
    const { backend } = suite.bottles.bed;
    const { uid } = suite.bottles.blueprint();

    await backend.stopAgent({ uid, ...FIRST }, { graceMs: GRACE_MS });
    await backend.removeUnits(uid, ["absent"]);
    await backend.removeUnits(uid, []);
    await backend.removeDisk(uid);

    expect(await suite.bottles.view(uid)).toBeUndefined();
  });

  it("starting, reading and copying what is absent is NotFound", async () => {
    const { backend } = suite.bottles.bed;
    const { uid } = suite.bottles.blueprint();

    const refusals = [
      await failure(backend.startAgent({ uid, ...FIRST })),
      await failure(text(backend.logs({ uid, ...FIRST }, { follow: false }))),
      await failure(backend.copyOut(uid, WORKSPACE)),
      await failure(backend.copyIn(uid, WORKSPACE, archive({ name: "note", bytes: "" }))),
    ];

    expect(refusals.map((refused) => refused?.kind)).toEqual(["NotFound", "NotFound", "NotFound", "NotFound"]);
  });
}
