import { describe, expect, onTestFinished, test } from "vitest";
import { controllerPid, holdControllerLock } from "../../controller/stores/sqlite/lock.ts";
import { bottle, eventsUntil } from "../contract/store-fixtures.ts";
import { startChild, type Child } from "./child.ts";
import { open, temporaryFolder } from "./temporary.ts";

function temporaryFile(): string {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return folder.file;
}

function child(script: string, file: string): Child {
  const started = startChild(script, [file]);
  onTestFinished(() => started.kill());
  return started;
}

function opened(file: string) {
  const database = open(file);
  onTestFinished(() => database.close());
  return database;
}

/** In the child: creates bottles and reports each once it is stored. */
function creates(prefix: string, count: number): string {
  return `
    const { store, close } = open();
    say("open");
    for (let n = 0; n < ${count}; n++) {
      const made = await store.create({ ...${JSON.stringify(bottle("x"))}, metadata: { name: "${prefix}-" + n } });
      say(made.metadata.name + " " + made.metadata.resourceVersion);
    }
    close();
  `;
}

const HOLD = `
  const lock = holdControllerLock(file);
  say(lock === undefined ? "refused" : "held");
  setInterval(() => {}, 1000);
`;

describe("one store file in several processes", () => {
  test("a waiting watch is told what another process writes, in order", async () => {
    const file = temporaryFile();
    const { store } = opened(file);
    const { resourceVersion } = await store.list("Bottle");
    const told = eventsUntil(store, { kinds: ["Bottle"], resourceVersion }, (seen) => {
      return seen.type === "ADDED" && seen.object.metadata.name === "child-4";
    });

    child(creates("child", 5), file);

    const names = (await told).map((seen) => (seen.type === "BOOKMARK" ? seen.type : seen.object.metadata.name));
    expect(names.filter((name) => name !== "BOOKMARK")).toEqual([0, 1, 2, 3, 4].map((n) => `child-${n}`));
  });

  test("two connections of one process tell each other too, and have one installation id", async () => {
    const file = temporaryFile();
    const [writer, reader] = [opened(file), opened(file)];
    const { resourceVersion } = await reader.store.list("Bottle");
    const told = eventsUntil(reader.store, { kinds: ["Bottle"], resourceVersion }, ({ type }) => type === "ADDED");
    // By then the watch has read what there is and waits.
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    const started = performance.now();

    const made = await writer.store.create<"Bottle">(bottle("a"));

    expect(await told).toEqual([{ type: "ADDED", object: made }]);
    // The next bookmark, after five seconds, would find the change too: it must not have waited for that.
    expect(performance.now() - started).toBeLessThan(4_000);
    expect(reader.installationId).toBe(writer.installationId);
  });

  test("two processes that write at the same time never take the same version and lose nothing", async () => {
    const file = temporaryFile();
    const { store } = opened(file);
    const other = child(creates("child", 50), file);
    expect(await other.line()).toBe("open");

    const mine: string[] = [];
    for (let n = 0; n < 50; n++) {
      const made = await store.create<"Bottle">(bottle(`own-${n}`));
      mine.push(made.metadata.resourceVersion);
    }
    const theirs: string[] = [];
    for (let line = await other.line(); line !== undefined; line = await other.line()) {
      theirs.push(line.split(" ")[1] ?? "");
    }

    expect(new Set([...mine, ...theirs]).size).toBe(100);
    const list = await store.list("Bottle");
    expect(list.items).toHaveLength(100);
    expect(list.resourceVersion).toBe("100");
  });

  test("processes that open a new file at the same moment all succeed and agree on the installation id", async () => {
    const file = temporaryFile();
    const script = "const { installationId, close } = open(); say(installationId); close();";

    const children = [1, 2, 3].map(() => child(script, file));
    const ids = await Promise.all(children.map((started) => started.line()));

    expect(ids[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(new Set(ids).size).toBe(1);
  });

  test("what a process reported as stored is there after kill -9, and the file opens", async () => {
    const file = temporaryFile();
    const writer = child(creates("child", 100_000), file);
    expect(await writer.line()).toBe("open");
    const reported: string[] = [];
    while (reported.length < 40) reported.push((await writer.line()) ?? "");

    await writer.kill();

    const { store } = opened(file);
    const { items } = await store.list("Bottle");
    const kept = new Set(items.map(({ metadata }) => `${metadata.name} ${metadata.resourceVersion}`));
    expect(reported.filter((line) => !kept.has(line))).toEqual([]);
    const next = await store.create<"Bottle">(bottle("after"));
    expect(Number(next.metadata.resourceVersion)).toBe(items.length + 1);
  });
});

describe("the controller lock", () => {
  test("a second holder is refused, in the same process too, until the first releases", () => {
    const file = temporaryFile();
    const first = holdControllerLock(file);
    onTestFinished(() => first?.release());

    expect(first).toBeDefined();
    expect(controllerPid(file)).toBe(process.pid);
    expect(holdControllerLock(file)).toBeUndefined();
    first?.release();
    first?.release();
    expect(controllerPid(file)).toBeUndefined();
    const second = holdControllerLock(file);
    expect(second).toBeDefined();
    second?.release();
  });

  test("nobody holds a lock that was never taken", () => {
    expect(controllerPid(temporaryFile())).toBeUndefined();
  });

  test("kill -9 of the holder frees the lock; while it lives its process id is known", async () => {
    const file = temporaryFile();
    const holder = child(HOLD, file);
    expect(await holder.line()).toBe("held");

    expect(holdControllerLock(file)).toBeUndefined();
    expect(controllerPid(file)).toBe(holder.process.pid);
    await holder.kill();

    expect(controllerPid(file)).toBeUndefined();
    const mine = holdControllerLock(file);
    expect(mine).toBeDefined();
    mine?.release();
  });

  test("of several processes that start at the same moment exactly one gets it", async () => {
    const file = temporaryFile();

    const answers = await Promise.all([1, 2, 3].map(() => child(HOLD, file).line()));

    expect(answers.toSorted()).toEqual(["held", "refused", "refused"]);
  });

  test("asking who holds it does not keep anybody from taking it", async () => {
    const file = temporaryFile();
    const started = child(HOLD, file);
    const answers: string[] = [];
    const answered = started.line().then((answer) => answers.push(answer ?? "ended"));
    while (answers.length === 0) {
      controllerPid(file);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
    await answered;

    expect(answers).toEqual(["held"]);
    expect(controllerPid(file)).toBe(started.process.pid);
  });
});
