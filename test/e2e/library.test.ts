import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { BUILD_DIR } from "../helpers/build.ts";
import { BUSYBOX_IMAGE, ensureBusyboxImage } from "../helpers/busybox-image.ts";
import type { Need } from "../helpers/needs-setup.ts";
import { describeWith } from "../helpers/needs.ts";
import { bottleManifest, isFrozen, outcomeOf, runsTurn, untilFile } from "./bottles.ts";
import { createInstallation, type Installation } from "./installation.ts";
import { traces } from "./traces.ts";

type Library = typeof import("../../controller/index.ts");

const AGENT = { provider: { type: "Custom" as const, custom: { command: ["sh", "-c"] } } };

/** The package as another program imports it. */
async function library(): Promise<Library> {
  return import(/* @vite-ignore */ pathToFileURL(join(BUILD_DIR, "controller/index.js")).href);
}

const HOSTS = [
  { type: "Bubblewrap", needs: ["bubblewrap"] },
  { type: "Docker", needs: ["docker", "busybox"] },
] as const satisfies readonly { type: string; needs: readonly Need[] }[];

for (const { type, needs } of HOSTS) {
  describeWith(needs, `the library on ${type}`, () => {
    if (type === "Docker") ensureBusyboxImage();
    beforeEach(() => void vi.stubEnv("BOT_BOTTLE_IMAGE", BUSYBOX_IMAGE));
    afterEach(() => void vi.unstubAllEnvs());

    it.each([{ served: false }, { served: true }])(
      "a bottle is started, resumed, frozen and destroyed by function calls; a controller runs already: $served",
      async ({ served }) => {
        await using here = createInstallation();
        if (served) await here.serve();
        const { startHeadless, resumeHeadless, freeze, destroy } = await library();
        const { stateDir } = here;

        const name = await startHeadless(AGENT, { prompt: "echo milk > list", backend: type, label: "shop", stateDir });
        const bottle = await frozen(here, name);
        expect(bottle?.spec).toMatchObject({ label: "shop", backend: { type } });
        expect(outcomeOf(bottle, "1")).toBe("Done");

        await resumeHeadless(name, { prompt: "cat list", stateDir });
        expect(await here.logs(name, "2")).toBe("milk\n");
        await frozen(here, name);

        await expect(resumeHeadless(name, { prompt: "exit 7", stateDir })).rejects.toMatchObject({
          name: "BottleError",
          exitCode: 7,
          message: expect.stringContaining(name),
        });
        // A bottle whose turn failed is kept for a look at it.
        await frozen(here, name);

        await freeze(name, { stateDir });
        expect((await here.bottle(name))?.spec.operatingMode).toBe("Frozen");
        await destroy(name, { stateDir });
        await destroy(name, { stateDir });
        expect(await here.bottle(name)).toBeUndefined();
        if (!served) expect(await traces(here)).toEqual([]);
      },
    );

    it("freeze ends a running turn, which goes on when the bottle may run again", async () => {
      await using here = createInstallation();
      await here.serve();
      const { freeze, destroy } = await library();
      const { stateDir } = here;
      here.write("b.yaml", JSON.stringify(bottleManifest("b", [untilFile("go")], { backend: { type } })));
      expect((await here.cli(["apply", "-f", join(here.bottles, "b.yaml")])).code).toBe(0);
      await here.until("b", "running turn 1", runsTurn("1"));

      await freeze("b", { stateDir });

      expect((await frozen(here, "b"))?.status?.turns).toMatchObject([
        { id: "1", outcome: "Interrupted", attempts: 1 },
      ]);
      await destroy("b", { stateDir });
    });
  });
}

describeWith(["bubblewrap"], "a fault in the library", () => {
  it("is a BottleError whose exit code is that of the command line", async () => {
    await using here = createInstallation();
    await here.serve([], { BOT_BOTTLE_BACKEND: "bubblewrap" });
    const { startHeadless, resumeHeadless, freeze, BottleError } = await library();
    const { stateDir } = here;

    const cases = [
      { exitCode: 3, call: () => resumeHeadless("nobody", { prompt: "x", stateDir }) },
      { exitCode: 3, call: () => freeze("nobody", { stateDir }) },
      { exitCode: 4, call: () => startHeadless("no-such-agent", { prompt: "x", stateDir }) },
      { exitCode: 4, call: () => startHeadless(AGENT, { prompt: "", stateDir }) },
      { exitCode: 5, call: () => startHeadless(AGENT, { prompt: untilFile("never"), timeoutMs: 1_000, stateDir }) },
    ];

    for (const { exitCode, call } of cases) {
      const error = await call().then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(BottleError);
      expect(error).toMatchObject({ exitCode });
    }
  });

  it("a label that is taken gets the next number, and so does a name", async () => {
    await using here = createInstallation();
    await here.serve([], { BOT_BOTTLE_BACKEND: "bubblewrap" });
    const { startHeadless } = await library();
    const { stateDir } = here;

    const first = await startHeadless(AGENT, { prompt: "true", label: "nightly", stateDir });
    const second = await startHeadless(AGENT, { prompt: "true", label: "nightly", stateDir });

    expect([first, second]).toEqual(["bottle", "bottle-2"]);
    expect((await here.bottle(second))?.spec.label).toBe("nightly-2");
  });
});

/** A call that ended has left the bottle with its disk alone. */
async function frozen(here: Installation, name: string) {
  const bottle = await here.bottle(name);
  expect(bottle && isFrozen(bottle)).toBe(true);
  return bottle;
}
