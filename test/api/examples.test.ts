import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import { type Manifest, parseManifests } from "../../controller/api/manifest.ts";
import type { SecretResource } from "../../controller/api/secret.ts";
import { resolveBottle } from "../../controller/plan/resolve.ts";

const folder = new URL("../../crds/examples/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));

/** The objects in a text, admitted; a failure if one of them is refused. */
function admitted(text: string, origin: string): Manifest[] {
  return parseManifests(text, origin).documents.map((document) => {
    if (!document.ok) throw document.error;
    return admit(document.object.kind, document.object, undefined) as Manifest;
  });
}

it.each(files)("the example %s is admitted, and what it refers to is in it", (file) => {
  const objects = admitted(readFileSync(new URL(file, folder), "utf8"), file);
  const find = (kind: string, name: string) =>
    objects.find((object) => object.kind === kind && object.metadata.name === name) as never;

  expect(objects.length).toBeGreaterThan(0);
  for (const object of objects.filter(({ kind }) => kind === "Bottle")) {
    const resolution = resolveBottle(object as unknown as Bottle, {
      agent: (name) => find("Agent", name),
      template: (name) => find("BottleTemplate", name),
      secret(name) {
        const secret: Pick<SecretResource, "data"> = find("Secret", name) ?? { data: {} };
        return { keys: new Set(Object.keys(secret.data)), version: "1" };
      },
    });
    expect(resolution).toMatchObject({ ok: true });
  }
});

it("every example in crds/README.md is admitted", () => {
  const text = readFileSync(new URL("../../crds/README.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/```yaml\n(.*?)```/gs)].map((match) => match[1] ?? "");
  const kinds = blocks.flatMap((block) => admitted(block, "README.md").map(({ kind }) => kind));

  expect(new Set(kinds)).toEqual(new Set(["Secret", "Bottle", "BottleTemplate", "Agent"]));
});
