import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createEventRecorder } from "../../controller/loop/events.ts";
import { createFolderSource } from "../../controller/sources/files.ts";
import { bottleYaml, countingStore, folderRig, SILENT } from "./fixtures.ts";

const WAIT = { timeout: 10_000, interval: 20 };

function now(): number {
  return Date.now();
}

/** The source as `serve` runs it, on the clock of the wall; `pollMs` so long that only hints can be what wakes it. */
async function running(
  body: (rig: ReturnType<typeof folderRig>, writes: () => string[]) => Promise<void>,
): Promise<void> {
  await using rig = folderRig();
  const { store, writes } = countingStore(rig.store);
  const events = createEventRecorder({ store: rig.store, now, log: SILENT });
  const source = createFolderSource({
    dir: rig.dir,
    store,
    events,
    log: SILENT,
    now,
    pollMs: 60_000,
    stableMs: 50,
    absentMs: 100,
  });
  const stop = new AbortController();
  const ended = source.run(stop.signal);
  try {
    await body(rig, writes);
  } finally {
    stop.abort();
    await ended;
  }
}

describe("a running folder source", () => {
  it("sees files come, change, move by rename and go, without waiting for its poll", () =>
    running(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await expect.poll(() => rig.bottles(), WAIT).toEqual(["a"]);

      writeFileSync(join(rig.dir, ".a.tmp"), bottleYaml("a", { spec: "label: new" }));
      renameSync(join(rig.dir, ".a.tmp"), join(rig.dir, "a.yaml"));
      await expect.poll(async () => (await rig.bottle("a"))?.spec.label, WAIT).toBe("new");

      rig.write("sub/b.yaml", bottleYaml("b"));
      await expect.poll(() => rig.bottles(), WAIT).toEqual(["a", "b"]);
      rig.write("sub/b.yaml", bottleYaml("b", { spec: "label: deep" }));
      await expect.poll(async () => (await rig.bottle("b"))?.spec.label, WAIT).toBe("deep");

      rig.remove("a.yaml");
      await expect.poll(() => rig.bottles(), WAIT).toEqual(["b"]);
    }));

  it("brings back what was deleted by hand as soon as the store tells of it", () =>
    running(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await expect.poll(() => rig.bottles(), WAIT).toEqual(["a"]);
      const before = (await rig.bottle("a"))?.metadata.uid;

      await rig.store.delete("Bottle", { namespace: "default", name: "a" });

      await expect.poll(() => rig.bottles(), WAIT).toEqual(["a"]);
      expect((await rig.bottle("a"))?.metadata.uid).not.toBe(before);
    }));

  it("is not woken by statuses, which change all the time", () =>
    running(async (rig, writes) => {
      rig.write("a.yaml", bottleYaml("a"));
      await expect.poll(() => rig.bottles(), WAIT).toEqual(["a"]);
      const bottle = await rig.bottle("a");
      const count = writes().length;

      for (let generation = 1; generation <= 20; generation += 1) {
        const status = { observedGeneration: generation };
        await rig.store.patchStatus(
          "Bottle",
          { namespace: "default", name: "a" },
          { uid: bottle?.metadata.uid ?? "", status },
        );
      }
      rig.write("b.yaml", bottleYaml("b"));
      await expect.poll(() => rig.bottles(), WAIT).toEqual(["a", "b"]);

      expect(writes().slice(count)).toEqual(["create b"]);
    }));
});
