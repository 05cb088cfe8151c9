import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { BACKENDS, bottleYaml, condition, isFrozen, outcomeOf, restsAfter, runsTurn, untilFile } from "./bottles.ts";
import { createInstallation, type Installation } from "./installation.ts";
import { docker, dockerTraces, processesOf, traces } from "./traces.ts";

describeWith(["docker", "busybox", "bubblewrap"], "serve with a watched folder", () => {
  ensureBusyboxImage();

  it("a bottle lives as its file says: made, run, frozen, woken by an appended turn, and gone without a trace", async () => {
    await using here = createInstallation();
    const serve = await here.serve(["--watch", here.bottles]);

    await onEach(async (type, name) => {
      const first = "echo milk > ~/list; echo eggs > eggs; ls";
      here.write(`${name}.yaml`, bottleYaml(name, [first], { backend: { type } }));
      const frozen = await here.until(name, "frozen after turn 1", restsAfter("1"));

      expect(outcomeOf(frozen, "1")).toBe("Done");
      expect(condition(frozen, "Ready")).toMatchObject({ status: "True", reason: "Frozen" });
      expect(condition(frozen, "EgressEnforced")).toMatchObject({ status: "True", reason: "ProbePassed" });
      expect((await here.cli(["logs", name])).stdout).toBe("eggs\n");

      here.write(`${name}.yaml`, bottleYaml(name, [first, "cat ~/list eggs"], { backend: { type } }));
      const again = await here.until(name, "frozen after turn 2", restsAfter("2"));

      expect(outcomeOf(again, "2")).toBe("Done");
      expect((await here.cli(["logs", name, "--turn", "2"])).stdout).toBe("milk\neggs\n");
      expect((await here.cli(["logs", name, "--turn", "1"])).stdout).toBe("eggs\n");
    });

    // Frozen is the disk alone: no container, no network, no process.
    const volumes = await dockerTraces(here);
    expect(volumes.map((each) => each.replace(/bb-[0-9a-f-]{36}/, "bb"))).toEqual([
      "volume bb-home",
      "volume bb-workspace",
    ]);
    expect(processesOf(here.stateDir)).toEqual([serve.pid]);

    await onEach(async (_type, name) => {
      here.remove(`${name}.yaml`);
      await here.untilGone(name);
    });
    expect((await serve.end()).code).toBe(0);
    expect(await traces(here)).toEqual([]);
  });

  it("an exported bottle goes on under another name where it is imported", async () => {
    await using here = createInstallation();
    await here.serve(["--watch", here.bottles]);

    await onEach(async (type, name) => {
      here.write(`${name}.yaml`, bottleYaml(name, ["echo milk > ~/list; echo first"], { backend: { type } }));
      await here.until(name, "frozen", restsAfter("1"));
      const archive = join(here.dir, `${name}.tar`);
      expect((await here.cli(["export", name, "-o", archive])).code).toBe(0);
      here.remove(`${name}.yaml`);
      await here.untilGone(name);

      const copy = `${name}-copy`;
      expect(await here.cli(["import", archive, "--name", copy])).toMatchObject({
        code: 0,
        stdout: `bottle/${copy} imported on ${name}\n`,
      });
      // Its first turn was done in its former life and is not run again.
      const imported = await here.until(copy, "frozen", isFrozen);
      expect(imported.status?.turns).toMatchObject([{ id: "1", state: "Ended", outcome: "Done", attempts: 1 }]);
      expect(await here.logs(copy, "1")).toBe("first\n");

      const turn = await here.cli(["turn", copy, "--prompt", "cat ~/list", "--wait"]);
      expect(turn).toMatchObject({ code: 0, stdout: expect.stringContaining("milk\n") });
      expect((await here.cli(["delete", "bottle", copy, "--wait"])).code).toBe(0);
    });
    expect(await dockerTraces(here)).toEqual([]);
  });

  it("a turn that is frozen midway goes on as the same turn on the same disk", async () => {
    await using here = createInstallation();
    await here.serve(["--watch", here.bottles]);

    await onEach(async (type, name) => {
      const script = `echo "attempt $BOT_BOTTLE_ATTEMPT" >> seen; [ $BOT_BOTTLE_ATTEMPT = 1 ] && { ${untilFile("never")}; }; cat seen`;
      here.write(`${name}.yaml`, bottleYaml(name, [script], { backend: { type } }));
      await here.until(name, "running turn 1", runsTurn("1"));
      await untilSeen(here, name, "/workspace/seen");

      expect((await here.cli(["freeze", name, "--wait"])).code).toBe(0);
      const frozen = await here.bottle(name);
      expect(frozen?.status?.turns).toMatchObject([{ id: "1", outcome: "Interrupted", attempts: 1 }]);
      expect(frozen && condition(frozen, "Frozen")?.status).toBe("True");

      expect((await here.cli(["resume", name])).code).toBe(0);
      const ended = await here.until(name, "frozen with turn 1 done", restsAfter("1"));
      expect(ended.status?.turns).toMatchObject([{ id: "1", outcome: "Done", attempts: 2 }]);
      expect(await here.logs(name, "1")).toBe("attempt 1\nattempt 2\n");
    });
  });

  it("turn --wait shows the agent's output and exits with its code", async () => {
    await using here = createInstallation();
    await here.serve(["--watch", here.bottles]);

    await onEach(async (type, name) => {
      here.write(`${name}.yaml`, bottleYaml(name, [], { backend: { type } }));
      await here.until(name, "accepted", (bottle) => condition(bottle, "Ready")?.reason === "NeverLaunched");

      const good = await here.cli(["turn", name, "--prompt", "echo well", "--wait"]);
      expect(good).toMatchObject({ code: 0, stdout: expect.stringMatching(/^well$/m) });
      const bad = await here.cli(["turn", name, "--prompt", "echo oh; exit 7", "--wait"]);
      expect(bad).toMatchObject({ code: 7, stdout: expect.stringMatching(/^oh$/m) });
      expect(outcomeOf(await here.bottle(name), "2")).toBe("Failed");
    });
  });

  it("SIGTERM lets a controller go while agents work on, and the next one takes them over", async () => {
    await using here = createInstallation();
    const first = await here.serve(["--watch", here.bottles]);
    await onEach(async (type, name) => {
      const script = `echo "attempt $BOT_BOTTLE_ATTEMPT" >> seen; ${untilFile("go")}; cat seen`;
      here.write(`${name}.yaml`, bottleYaml(name, [script], { backend: { type } }));
      await here.until(name, "running turn 1", runsTurn("1"));
      await untilSeen(here, name, "/workspace/seen");
    });

    expect(await first.end("SIGTERM")).toMatchObject({ code: 0, signal: null });

    // The agents end while nobody looks.
    await onEach(async (_type, name) => {
      here.write("go", "");
      expect((await here.cli(["cp", join(here.bottles, "go"), `${name}:/workspace/go`])).stderr).toBe("");
    });
    here.remove("go");
    const before = await docker([
      "ps",
      "--filter",
      `label=bot-bottle.dev/owner=${here.owner}`,
      "--format",
      "{{.Names}}",
    ]);
    expect(before).toContain("-holder");

    await here.serve(["--watch", here.bottles]);
    await onEach(async (_type, name) => {
      const ended = await here.until(name, "frozen after turn 1", restsAfter("1"));
      expect(ended.status?.turns).toMatchObject([{ id: "1", outcome: "Done", attempts: 1 }]);
      expect(await here.logs(name, "1")).toBe("attempt 1\n");
    });
  });
});

/** The same on every backend, side by side; a bottle's name is that of its backend. */
async function onEach(body: (type: (typeof BACKENDS)[number], name: string) => Promise<void>): Promise<void> {
  const done = await Promise.allSettled(BACKENDS.map((type) => body(type, type.toLowerCase())));
  for (const each of done) if (each.status === "rejected") throw each.reason;
}

/** Waits until the agent has written a file: the turn's process exists before its script has done anything. */
async function untilSeen(here: Installation, name: string, path: string): Promise<void> {
  const copy = join(here.dir, `${name}.copy`);
  await expect
    .poll(
      async () => {
        await here.cli(["cp", `${name}:${path}`, copy]);
        return existsSync(copy) ? readFileSync(copy, "utf8") : "";
      },
      { timeout: 30_000 },
    )
    .not.toBe("");
}
