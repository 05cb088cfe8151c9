import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { applyDraft } from "../../controller/sources/apply.ts";
import { bottleDraft, bottleYaml, folderRig, withFolder } from "./fixtures.ts";

describe("what a folder declares no more", () => {
  it("is deleted after two looks a second apart, not after one", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("b.yaml", bottleYaml("b"));
      await rig.settle();
      rig.remove("a.yaml");

      await rig.source.scan();
      rig.clock.advance(999);
      await rig.source.scan();
      expect(await rig.bottles()).toEqual(["a", "b"]);
      rig.clock.advance(1);
      await rig.source.scan();

      expect(await rig.bottles()).toEqual(["b"]);
    }));

  it("is let go, not deleted, if it was there before the folder declared it", () =>
    withFolder(async (rig) => {
      await applyDraft(rig.store, bottleDraft("a"));
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("b.yaml", bottleYaml("b"));
      await rig.settle();
      expect((await rig.bottle("a"))?.metadata.annotations?.[ANNOTATIONS.source]).toBe(rig.sourceName);
      rig.remove("a.yaml");

      await rig.pass();

      expect(await rig.bottles()).toEqual(["a", "b"]);
      expect((await rig.bottle("a"))?.metadata.annotations?.[ANNOTATIONS.source]).toBeUndefined();
    }));

  it("stays if it is back by the second look: an atomic replacement destroys nothing", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("b.yaml", bottleYaml("b"));
      await rig.settle();
      rig.remove("a.yaml");
      await rig.source.scan();
      rig.write("a.yaml", bottleYaml("a"));
      rig.clock.advance(5000);

      await rig.pass();

      expect(await rig.bottles()).toEqual(["a", "b"]);
      expect(rig.writes()).not.toContain("delete a");
    }));

  it("is the same bottle after its file was renamed into another folder", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      const before = await rig.bottle("a");
      mkdirSync(join(rig.dir, "sub"));
      renameSync(join(rig.dir, "a.yaml"), join(rig.dir, "sub/moved.yaml"));

      await rig.pass();
      await rig.pass();

      const after = await rig.bottle("a");
      expect(after?.metadata.uid).toBe(before?.metadata.uid);
      expect(after?.metadata.annotations?.[ANNOTATIONS.sourcePath]).toBe("sub/moved.yaml");
    }));

  it("stays while a file that no object came from cannot be read: it may be the renamed one", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("b.yaml", bottleYaml("b"));
      await rig.settle();
      rig.remove("a.yaml");
      rig.write("renamed.yaml", "kind: [");

      await rig.pass();
      await rig.pass();

      expect(await rig.bottles()).toEqual(["a", "b"]);
    }));

  it("is deleted even if it went while the controller was not running", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("b.yaml", bottleYaml("b"));
      await rig.settle();
      rig.remove("a.yaml");

      await using again = folderRig({ dir: rig.dir, store: rig.store });
      await again.pass();

      expect(await rig.bottles()).toEqual(["b"]);
    }));

  it("is deleted if it was the last file of the same folder", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      rig.remove("a.yaml");

      await rig.pass();

      expect(await rig.bottles()).toEqual([]);
    }));

  it("stays if the folder is an empty one in the place of the old: that is how an unmounted one looks", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      renameSync(rig.dir, `${rig.dir}.away`);
      mkdirSync(rig.dir);

      await rig.pass();
      await rig.pass();

      rmSync(`${rig.dir}.away`, { recursive: true });
      expect(await rig.bottles()).toEqual(["a"]);
      expect(await rig.events()).toEqual([expect.stringContaining("FolderEmpty")]);
    }));

  it("stays if the folder is gone, which is told", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      renameSync(rig.dir, `${rig.dir}.away`);

      await rig.pass();
      await rig.pass();

      renameSync(`${rig.dir}.away`, rig.dir);
      expect(existsSync(rig.dir)).toBe(true);
      expect(await rig.bottles()).toEqual(["a"]);
      expect(await rig.events()).toEqual([expect.stringContaining("FolderUnreadable")]);
    }));

  it("stays if it was never this folder's: objects of people and of other folders", () =>
    withFolder(async (rig) => {
      await using other = folderRig();
      other.write("b.yaml", bottleYaml("theirs"));
      await using theirs = folderRig({ dir: other.dir, store: rig.store });
      await theirs.settle();
      await rig.store.create({
        apiVersion: "bot-bottle.dev/v1alpha1",
        kind: "BottleTemplate",
        metadata: { name: "by-hand" },
        spec: {},
      });
      rig.write("a.yaml", bottleYaml("a"));

      await rig.pass();
      await rig.pass();

      expect(await rig.bottles()).toEqual(["a", "theirs"]);
      expect((await rig.store.list("BottleTemplate")).items).toHaveLength(1);
    }));

  it("stays while its file is too large to be read", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      writeFileSync(join(rig.dir, "a.yaml"), "#".repeat(4 * 1024 * 1024 + 1));

      await rig.pass();
      await rig.pass();

      expect(await rig.bottles()).toEqual(["a"]);
    }));

  it("stays while any part of the folder was not looked at", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("b.yaml", bottleYaml("b"));
      await rig.settle();
      rig.remove("a.yaml");
      rig.write(`${"d/".repeat(18)}c.yaml`, bottleYaml("c"));

      await rig.pass();
      await rig.pass();

      expect(await rig.bottles()).toEqual(["a", "b"]);
      expect(await rig.events()).toEqual([expect.stringContaining("FolderIncomplete")]);
    }));

  it("is applied again once it is gone, if the file still declares it", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      const before = await rig.bottle("a");
      await rig.store.delete("Bottle", { namespace: "default", name: "a" });

      await rig.source.scan();

      const after = await rig.bottle("a");
      expect(after).toBeDefined();
      expect(after?.metadata.uid).not.toBe(before?.metadata.uid);
    }));
});
