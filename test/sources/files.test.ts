import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { bottleYaml, folderRig, templateYaml, withFolder } from "./fixtures.ts";

describe("a folder declares", () => {
  it("what its files say, also in subfolders and several in one file", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", `${bottleYaml("a1")}---\n${bottleYaml("a2")}`);
      rig.write("deep/er/b.yml", bottleYaml("b"));
      rig.write(
        "c.json",
        JSON.stringify({
          apiVersion: "bot-bottle.dev/v1alpha1",
          kind: "BottleTemplate",
          metadata: { name: "c" },
          spec: {},
        }),
      );

      await rig.settle();

      expect(await rig.bottles()).toEqual(["a1", "a2", "b"]);
      expect((await rig.store.list("BottleTemplate")).items).toHaveLength(1);
      const { annotations } = (await rig.bottle("b"))?.metadata ?? {};
      expect(annotations?.[ANNOTATIONS.source]).toBe(rig.sourceName);
      expect(annotations?.[ANNOTATIONS.sourcePath]).toBe("deep/er/b.yml");
    }));

  it("nothing by dotfiles, editor files and other names", () =>
    withFolder(async (rig) => {
      for (const name of [".a.yaml", ".#a.yaml", "a.yaml~", "#a.yaml#", "a.yaml.swp", "README.md", "~a.yaml"]) {
        rig.write(name, bottleYaml("no"));
      }
      rig.write(".git/a.yaml", bottleYaml("no"));
      rig.write("yes.yaml", bottleYaml("yes"));

      await rig.settle();

      expect(await rig.bottles()).toEqual(["yes"]);
    }));

  it("nothing until a file has stopped changing, so that a half-written one is never believed", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a").slice(0, 60));
      await rig.source.scan();
      rig.clock.advance(299);
      rig.write("a.yaml", bottleYaml("a"));
      await rig.source.scan();
      rig.clock.advance(299);
      await rig.source.scan();
      expect(await rig.bottles()).toEqual([]);
      expect(await rig.events()).toEqual([]);

      rig.clock.advance(1);
      await rig.source.scan();

      expect(await rig.bottles()).toEqual(["a"]);
    }));

  it("through a link to a file, but not through a link to a folder, which may lead in circles", () =>
    withFolder(async (rig) => {
      rig.write(".data/a.yaml", bottleYaml("a"));
      symlinkSync(".data/a.yaml", join(rig.dir, "a.yaml"));
      symlinkSync(rig.dir, join(rig.dir, "loop"));

      await rig.settle();

      expect(await rig.bottles()).toEqual(["a"]);
    }));

  it("once per object: the first path wins and the other file is told", () =>
    withFolder(async (rig) => {
      rig.write("b.yaml", bottleYaml("same", { spec: "label: second" }));
      rig.write("a.yaml", bottleYaml("same", { spec: "label: first" }));

      await rig.settle();

      expect((await rig.bottle("same"))?.spec.label).toBe("first");
      expect(await rig.events()).toEqual([
        expect.stringMatching(/^File DeclaredTwice: b\.yaml: .*declared by "a\.yaml"/),
      ]);
    }));

  it("changes of a file, and a second look without a change writes nothing", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("t.yaml", templateYaml("t"));
      await rig.settle();
      rig.write("a.yaml", bottleYaml("a", { spec: "label: changed" }));
      await rig.settle();
      expect((await rig.bottle("a"))?.spec.label).toBe("changed");
      const writes = rig.writes().length;

      await rig.pass();
      await rig.pass();

      expect(rig.writes().length).toBe(writes);
    }));

  it("nothing new after a restart of the controller: zero writes over an unchanged folder", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      rig.write("broken.yaml", bottleYaml("b", { spec: "color: nocolor" }));
      await rig.settle();

      await using again = folderRig({ dir: rig.dir, store: rig.store });
      await again.pass();

      // The refused one is tried once more by the new controller, and refused again.
      expect(again.writes().filter((write) => write !== "create b")).toEqual([]);
      expect(await again.bottle("b")).toBeUndefined();
    }));

  it("back what somebody else changed in a field that the file writes", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a", { spec: "label: mine" }));
      await rig.settle();
      const bottle = await rig.bottle("a");
      if (bottle === undefined) throw new Error("no bottle");
      await rig.store.update<"Bottle">({ ...bottle, spec: { ...bottle.spec, label: "theirs" } });

      await rig.source.scan();

      expect((await rig.bottle("a"))?.spec.label).toBe("mine");
    }));

  it("not away what others added: a turn from the command line, and frozen", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      const bottle = await rig.bottle("a");
      if (bottle === undefined) throw new Error("no bottle");
      const turns = [...(bottle.spec.turns ?? []), { id: "by-hand", prompt: "more" }];
      await rig.store.update<"Bottle">({ ...bottle, spec: { ...bottle.spec, turns, operatingMode: "Frozen" } });

      rig.write("a.yaml", bottleYaml("a", { turns: ["say hello", "from the file"] }));
      await rig.settle();

      const { spec } = (await rig.bottle("a")) ?? {};
      expect(spec?.turns?.map((turn) => turn.id)).toEqual(["1", "by-hand", "2"]);
      expect(spec?.operatingMode).toBe("Frozen");
    }));
});

describe("a fault in a folder", () => {
  it("of syntax changes nothing of what the file declared, and is told", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", `${bottleYaml("a1")}---\n${bottleYaml("a2")}`);
      await rig.settle();
      rig.write("a.yaml", `${bottleYaml("a1", { spec: "label: new" })}---\nkind: [unclosed\n`);

      await rig.pass();
      await rig.pass();

      expect(await rig.bottles()).toEqual(["a1", "a2"]);
      const bottle = await rig.bottle("a1");
      expect(bottle?.spec.label).toBeUndefined();
      expect(bottle?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toContain("a.yaml");
      expect(await rig.events()).toEqual([expect.stringContaining("File FileInvalid: a.yaml")]);
    }));

  it("of one document leaves its object as it is and applies the others", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", `${bottleYaml("a1")}---\n${bottleYaml("a2")}`);
      await rig.settle();
      rig.write(
        "a.yaml",
        `${bottleYaml("a1", { spec: "color: nocolor" })}---\n${bottleYaml("a2", { spec: "label: new" })}`,
      );

      await rig.pass();

      const refused = await rig.bottle("a1");
      expect(refused?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toContain("spec.color");
      expect((await rig.bottle("a2"))?.spec.label).toBe("new");
      expect(await rig.events()).toEqual([expect.stringMatching(/^Bottle Refused: a\.yaml: .*spec\.color/)]);
    }));

  it("is forgotten when the file is right again, also if it is the same as before", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      rig.write("a.yaml", bottleYaml("a", { turns: ["another prompt for a delivered turn"] }));
      await rig.settle();
      expect((await rig.bottle("a"))?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toContain("append-only");

      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();

      expect((await rig.bottle("a"))?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toBeUndefined();
    }));

  it("refuses a turn that was declared and is not any more, with the reason", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a", { turns: ["one", "two"] }));
      await rig.settle();
      rig.write("a.yaml", bottleYaml("a", { turns: ["one"] }));

      await rig.settle();

      const bottle = await rig.bottle("a");
      expect(bottle?.spec.turns).toHaveLength(2);
      expect(bottle?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toContain("append-only");
    }));

  it("in a kind or name deletes nothing of that file: it may only be misspelt", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", bottleYaml("a"));
      await rig.settle();
      rig.write("a.yaml", bottleYaml("a").replace("kind: Bottle", "kind: Bottel"));

      await rig.pass();
      await rig.pass();

      expect(await rig.bottles()).toEqual(["a"]);
    }));

  it("is told once, not on every look", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", "kind: [");
      rig.write("b.yaml", bottleYaml("b"));

      for (let look = 0; look < 5; look += 1) await rig.pass();
      rig.write("b.yaml", bottleYaml("b", { spec: "label: x" }));
      await rig.pass();

      const events = (await rig.store.list("Event")).items;
      expect(events.map((event) => event.count)).toEqual([1]);
    }));

  it("of templates that extend each other in a circle is refused before it is stored", () =>
    withFolder(async (rig) => {
      rig.write("a.yaml", templateYaml("a", "b"));
      rig.write("b.yaml", templateYaml("b"));
      await rig.settle();
      rig.write("b.yaml", templateYaml("b", "a"));

      await rig.settle();

      const b = await rig.store.get("BottleTemplate", { namespace: "default", name: "b" });
      expect(b?.spec.extendsRef).toBeUndefined();
      expect(b?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toContain("a -> b -> a");
      const a = await rig.store.get("BottleTemplate", { namespace: "default", name: "a" });
      expect(a?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toBeUndefined();
    }));

  it("does not take over what another source declares, and says who does", () =>
    withFolder(async (rig) => {
      await using other = folderRig();
      other.write("theirs.yaml", bottleYaml("a", { spec: "label: theirs" }));
      await using theirs = folderRig({ dir: other.dir, store: rig.store });
      await theirs.settle();
      rig.write("mine.yaml", bottleYaml("a", { spec: "label: mine" }));

      await rig.settle();

      expect((await rig.bottle("a"))?.spec.label).toBe("theirs");
      expect(await rig.events()).toEqual([
        expect.stringContaining(`declared by ${other.sourceName} (file theirs.yaml)`),
      ]);
      expect((await rig.bottle("a"))?.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toBeUndefined();
    }));
});
