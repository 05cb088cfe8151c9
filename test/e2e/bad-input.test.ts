import { join } from "node:path";
import { stringify } from "yaml";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { EventResource } from "../../controller/api/event.ts";
import { API_VERSION, keyOf } from "../../controller/api/meta.ts";
import type { BottleTemplate } from "../../controller/api/template.ts";
import { BUSYBOX_IMAGE, ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { BAD_INPUTS } from "./bad-inputs.ts";
import { BACKENDS, bottleYaml, condition, restsAfter, runsTurn, untilFile, type SpecDraft } from "./bottles.ts";
import { createInstallation, DEADLINE_MS, type Installation } from "./installation.ts";

const STACK = /^\s+at /m;
const ON_BUBBLEWRAP = { BOT_BOTTLE_BACKEND: "bubblewrap" };

describeWith(["bubblewrap"], "a mistake in a manifest", () => {
  let here: Installation;
  beforeAll(() => {
    here = createInstallation({ env: ON_BUBBLEWRAP });
  });
  afterAll(() => here[Symbol.asyncDispose]());

  it.each(Object.entries(BAD_INPUTS))("apply refuses with field, value and remedy: %s", async (name, bad) => {
    const file = `${name}.yaml`;
    if (bad.before !== undefined) {
      expect((await here.cli(["apply", "-f", "-"], { stdin: bad.before })).code).toBe(0);
    }
    here.write(file, bad.content);

    const refused = await here.cli(["apply", "-f", join(here.bottles, file)]);

    expect(refused).toMatchObject({ code: 4, stdout: "" });
    expect(refused.stderr).toMatch(bad.says);
    expect(refused.stderr).not.toMatch(STACK);
    expect(refused.stderr.length).toBeLessThan(2_000);
  });
});

describeWith(["bubblewrap"], "a mistake in the watched folder", () => {
  it("each is told as an event, and on its object where there is one, while another bottle goes on", async () => {
    await using here = createInstallation({ env: ON_BUBBLEWRAP });
    await here.serve(["--watch", here.bottles]);
    here.write("steady.yaml", bottleYaml("steady", [untilFile("go")]));
    for (const [name, { before }] of Object.entries(BAD_INPUTS)) {
      if (before !== undefined) here.write(`${name}.yaml`, before);
    }
    await here.until("steady", "running turn 1", runsTurn("1"));
    for (const [name, { before }] of Object.entries(BAD_INPUTS)) {
      if (before !== undefined)
        await here.until(name, "accepted", (bottle) => condition(bottle, "Accepted")?.status === "True");
    }

    for (const [name, { content }] of Object.entries(BAD_INPUTS)) here.write(`${name}.yaml`, content);

    for (const [name, bad] of Object.entries(BAD_INPUTS)) {
      const event = await eventOf(here, (each) => bad.says.test(each.message));
      expect(event.type).toBe("Warning");
      expect(event.involvedObject).toMatchObject(
        bad.before === undefined ? { kind: "File", name: `${name}-yaml` } : { kind: "Bottle", name },
      );
      if (bad.before === undefined) continue;
      const bottle = await here.until(name, "refused", (each) => condition(each, "Accepted")?.status === "False");
      expect(condition(bottle, "Accepted")?.reason).toBe("UpdateRejected");
      expect(condition(bottle, "Accepted")?.message).toMatch(bad.says);
    }

    // The declaration that is good again is accepted.
    here.write("edited-turn.yaml", BAD_INPUTS["edited-turn"]?.before ?? "");
    await here.until("edited-turn", "accepted again", (bottle) => condition(bottle, "Accepted")?.status === "True");
    here.write("go", "");
    expect((await here.cli(["cp", join(here.bottles, "go"), "steady:/workspace/go"])).code).toBe(0);
    const steady = await here.until("steady", "frozen after turn 1", restsAfter("1"));
    expect(steady.status?.turns).toMatchObject([{ id: "1", outcome: "Done", attempts: 1 }]);
  });

  it("templates that are made a circle behind a bottle's back are named on the bottle, and it goes on when they are mended", async () => {
    await using here = createInstallation({ env: ON_BUBBLEWRAP });
    await here.serve(["--watch", here.bottles]);
    await change(here, "low", {});
    await change(here, "high", { extendsRef: { name: "low" } });
    const frozen: SpecDraft = { templateRefs: [{ name: "high" }], operatingMode: "Frozen" };
    here.write("b.yaml", bottleYaml("b", ["echo one"], frozen));
    await here.until("b", "accepted", (bottle) => condition(bottle, "ResolvedRefs")?.status === "True");

    await change(here, "low", { extendsRef: { name: "high" } });
    here.write("b.yaml", bottleYaml("b", ["echo one"], { templateRefs: [{ name: "high" }] }));

    const stalled = await here.until("b", "stalled", (bottle) => condition(bottle, "Stalled")?.status === "True");
    expect(condition(stalled, "ResolvedRefs")).toMatchObject({
      status: "False",
      message: expect.stringMatching(/high -> low -> high/),
    });

    await change(here, "low", {});
    await here.until("b", "frozen after turn 1", restsAfter("1"));
    expect(await here.logs("b", "1")).toBe("one\n");
  });
});

describeWith(["docker", "busybox", "bubblewrap"], "a mistake that only a backend can find", () => {
  ensureBusyboxImage();

  it("an image that does not exist stalls its bottle by name until the template is mended", async () => {
    await using here = createInstallation({ env: { BOT_BOTTLE_BACKEND: "docker" } });
    await here.serve(["--watch", here.bottles]);
    const image = "127.0.0.1:1/acme/no-such-image:7";
    here.write("t.yaml", template("t", { image }));
    here.write("b.yaml", bottleYaml("b", ["echo here"], { templateRefs: [{ name: "t" }] }));

    const stalled = await here.until("b", "stalled", (bottle) => condition(bottle, "Stalled")?.status === "True");
    for (const type of ["Ready", "Stalled"] as const) {
      expect(condition(stalled, type)).toMatchObject({
        status: type === "Ready" ? "False" : "True",
        reason: "ImageNotFound",
        message: expect.stringContaining(image),
      });
    }
    await eventOf(here, (event) => event.reason === "ImageNotFound" && event.message.includes(image));

    here.write("t.yaml", template("t", { image: BUSYBOX_IMAGE }));
    await here.until("b", "frozen after turn 1", restsAfter("1"));
    expect(await here.logs("b", "1")).toBe("here\n");
  });

  it("a command that does not exist is a failed turn with exit code 127 that names it", async () => {
    await using here = createInstallation();
    await here.serve(["--watch", here.bottles]);
    const agent = { provider: { type: "Custom" as const, custom: { command: ["no-such-command"] } } };
    for (const type of BACKENDS) {
      const name = type.toLowerCase();
      here.write(`${name}.yaml`, bottleYaml(name, ["x"], { agent, backend: { type } }));
    }

    for (const type of BACKENDS) {
      const name = type.toLowerCase();
      const failed = await here.until(name, "frozen after turn 1", restsAfter("1"));
      expect(failed.status?.turns).toMatchObject([{ id: "1", outcome: "Failed", exitCode: 127 }]);
      expect(condition(failed, "Finished")?.reason).toBe("TurnsFailed");
      const event = await eventOf(
        here,
        ({ reason, involvedObject }) => reason === "TurnFailed" && involvedObject.name === name,
      );
      expect(`${event.message} ${await here.logs(name, "1")}`).toContain("no-such-command");
    }
  });
});

function template(name: string, spec: object): string {
  return stringify({ apiVersion: API_VERSION, kind: "BottleTemplate", metadata: { name }, spec });
}

/** Writes a template past every check that an apply makes. */
async function change(here: Installation, name: string, spec: BottleTemplate["spec"]): Promise<void> {
  const key = keyOf({ metadata: { namespace: "default", name } });
  const stored = await here.store.get("BottleTemplate", key);
  if (stored === undefined)
    await here.store.create<"BottleTemplate">({
      apiVersion: API_VERSION,
      kind: "BottleTemplate",
      metadata: { name },
      spec,
    });
  else await here.store.update<"BottleTemplate">({ ...stored, spec });
}

async function eventOf(here: Installation, is: (event: EventResource) => boolean): Promise<EventResource> {
  let found: EventResource | undefined;
  await expect
    .poll(async () => (found = (await here.store.list("Event")).items.find(is)), { timeout: DEADLINE_MS })
    .toBeDefined();
  if (found === undefined) throw new Error("unreachable: the poll above found it");
  return found;
}
