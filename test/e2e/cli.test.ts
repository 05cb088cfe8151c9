import { execFile } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { keyOf } from "../../controller/api/meta.ts";
import { BUILD_DIR } from "../helpers/build.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { BACKENDS, bottleYaml, restsAfter, untilFile } from "./bottles.ts";
import { createInstallation, type Installation } from "./installation.ts";
import { processesOf, traces } from "./traces.ts";

const execute = promisify(execFile);

/** Every verb with the options that its help must name. */
const VERBS: Readonly<Record<string, readonly string[]>> = {
  quickstart: ["--backend"],
  serve: ["--watch", "--backend", "--default-image"],
  apply: ["--filename", "--wait", "--timeout", "--dry-run"],
  plan: ["--filename"],
  get: ["--all-namespaces", "--watch", "--output", "--no-headers"],
  describe: [],
  logs: ["--turn", "--follow"],
  egress: ["--follow", "--output", "--denied", "--since", "--limit"],
  policy: ["explain", "show"],
  turn: ["--prompt", "--prompt-file", "--id", "--wait", "--timeout"],
  attach: ["--timeout"],
  exec: ["--stdin", "--tty"],
  cp: [],
  freeze: ["--wait", "--timeout"],
  resume: ["--prompt", "--wait"],
  delete: ["--filename", "--wait", "--no-wait", "--timeout"],
  export: ["--output"],
  import: ["--name", "--backend"],
  cleanup: ["--yes", "--grace"],
  doctor: [],
  crds: ["--dir"],
  version: [],
};

describe("help", () => {
  let here: Installation;
  beforeAll(() => {
    here = createInstallation();
  });
  afterAll(() => here[Symbol.asyncDispose]());

  it("names every verb and the exit codes", async () => {
    const help = await here.cli(["--help"]);

    const listed = [...help.stdout.matchAll(/^ {2}([a-z]+)(?: \[command\])? {2,}/gm)].map(([, verb]) => verb);
    expect(listed.filter((verb) => verb !== "help" && !/^\d+$/.test(verb ?? ""))).toEqual(Object.keys(VERBS));
    expect(help.stdout).toContain("Exit codes:");
    expect(help.code).toBe(0);
  });

  it.each(Object.entries(VERBS))("of %s names its options", async (verb, options) => {
    const help = await here.cli([verb, "--help"]);

    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain(`Usage: bot-bottle ${verb} `);
    for (const option of [...options, "--help"]) expect(help.stdout).toMatch(new RegExp(`^  .*${option}\\b`, "m"));
  });

  it.each([
    { words: ["aply"], says: /unknown command 'aply'.*\n.*apply/ },
    { words: ["get", "botles"], says: /botles.*bottles/ },
    { words: ["get", "bottles", "--outptu", "json"], says: /--outptu.*\n?.*--output/ },
    { words: [], says: /Usage: bot-bottle/ },
  ])("a slip in $words is wrong usage and is put right", async ({ words, says }) => {
    const refused = await here.cli(words);

    expect(refused.code).toBe(2);
    expect(`${refused.stdout}${refused.stderr}`).toMatch(says);
  });
});

describeWith(["bubblewrap"], "the command line", () => {
  const env = { BOT_BOTTLE_BACKEND: "bubblewrap" };

  it("exits as its help says: 3 not found, 4 refused, 5 timed out, 75 interrupted, 124 deadline, 130 Ctrl-C", async () => {
    await using here = createInstallation({ env });
    await here.serve();
    for (const words of [
      ["get", "bottle", "no"],
      ["describe", "bottle", "no"],
      ["freeze", "no"],
      ["delete", "bottle", "no"],
    ]) {
      expect(await here.cli(words)).toMatchObject({ code: 3, stderr: expect.stringContaining('"no" does not exist') });
    }

    const lifecycle = { afterTurn: "Freeze", turnDeadlineSeconds: 1 } as const;
    const slow = bottleYaml("slow", [`echo working; ${untilFile("never")}`]);
    expect(await here.cli(["apply", "-f", "-", "--wait", "--timeout", "1s"], { stdin: slow })).toMatchObject({
      code: 5,
    });
    expect((await here.cli(["turn", "slow", "--id", "1", "--prompt", "x"])).code).toBe(4);

    const attached = here.start(["attach", "slow"]);
    await attached.says(/^working$/m);
    expect((await here.cli(["freeze", "slow"])).code).toBe(0);
    expect((await attached.ended).code).toBe(75);

    await here.cli(["apply", "-f", "-"], { stdin: bottleYaml("late", [], { lifecycle }) });
    expect((await here.cli(["turn", "late", "--prompt", untilFile("never"), "--wait"])).code).toBe(124);

    const watching = here.start(["get", "bottles", "--watch"]);
    await watching.says(/^late /m);
    expect((await watching.end("SIGINT")).code).toBe(130);
  });

  it("get prints a table, more of it, names, YAML and JSON; describe tells the story", async () => {
    await using here = createInstallation({ env });
    await here.serve();
    expect((await here.cli(["apply", "-f", "-", "--wait"], { stdin: bottleYaml("b", ["echo hi"]) })).code).toBe(0);
    const get = async (...words: string[]) => (await here.cli(["get", "bottles", ...words])).stdout;

    expect(await get()).toMatch(/^NAME +AGENT +BACKEND +READY +FROZEN +TURN +OUTCOME +EXIT +AGE\nb +/);
    expect((await get("-o", "wide")).split("\n")[0]?.length).toBeGreaterThan((await get()).split("\n")[0]?.length ?? 0);
    expect(await get("-o", "name")).toBe("bottle/b\n");
    const { uid } = (await here.bottle("b"))?.metadata ?? {};
    expect(JSON.parse(await get("-o", "json"))).toMatchObject({
      kind: "List",
      items: [{ metadata: { name: "b", uid } }],
    });
    expect(parse(await get("b", "-o", "yaml"))).toMatchObject({ kind: "Bottle", metadata: { name: "b", uid } });
    expect((await here.cli(["get", "bt/b", "-o", "name"])).stdout).toBe("bottle/b\n");
    const described = await here.cli(["describe", "bottle", "b"]);
    expect(described.code).toBe(0);
    for (const part of ["b", "Conditions", "EgressEnforced", "ProbePassed", "Events", "TurnDone"]) {
      expect(described.stdout).toContain(part);
    }
  });

  it("plan says what would happen and changes nothing", async () => {
    await using here = createInstallation({ env });
    here.write("b.yaml", bottleYaml("b", ["echo hi"]));
    const before = (await here.store.list("Bottle")).resourceVersion;

    const planned = await here.cli(["plan", "-f", here.bottles]);

    expect(planned.code).toBe(0);
    expect(planned.stdout).toMatch(/b.*\n?.*create/i);
    expect(await here.store.list("Bottle")).toEqual({ items: [], resourceVersion: before });
    expect(await traces(here)).toEqual([]);
  });
});

describeWith(["docker", "busybox", "bubblewrap"], "cleanup", () => {
  ensureBusyboxImage();

  it("shows what nobody declares any more, leaves what is young, and removes the rest when it is told to", async () => {
    await using here = createInstallation();
    const serve = await here.serve();
    for (const type of BACKENDS) {
      await here.cli(["apply", "-f", "-"], { stdin: bottleYaml(type.toLowerCase(), ["true"], { backend: { type } }) });
    }
    await here.cli(["apply", "-f", "-"], { stdin: bottleYaml("kept", ["true"], { backend: { type: "Bubblewrap" } }) });
    for (const name of ["docker", "bubblewrap", "kept"]) await here.until(name, "frozen after turn 1", restsAfter("1"));
    await serve.end();
    for (const name of ["docker", "bubblewrap"]) await orphan(here, name);

    const young = await here.cli(["cleanup", "--grace", "1h"]);
    expect(young).toMatchObject({ code: 0, stdout: "", stderr: expect.stringContaining("nothing is left over") });
    const shown = await here.cli(["cleanup", "--grace", "0s"]);
    expect(shown.stdout.match(/default\/(docker|bubblewrap)/g)).toEqual(["default/docker", "default/bubblewrap"]);
    expect(shown).toMatchObject({ code: 0, stderr: expect.stringContaining("--yes") });
    expect((await traces(here)).length).toBeGreaterThan(3);

    expect((await here.cli(["cleanup", "--grace", "0s", "--yes"])).code).toBe(0);

    const kept = await here.bottle("kept");
    expect(await traces(here)).toEqual([`.hints/${kept?.metadata.uid}`, kept?.metadata.uid]);
  });
});

/** Takes the bottle out of the store and leaves its disk, as a lost database does. */
async function orphan(here: Installation, name: string): Promise<void> {
  const bottle = await here.bottle(name);
  if (bottle === undefined) throw new Error(`no bottle "${name}"`);
  await here.store.update<"Bottle">({ ...bottle, metadata: { ...bottle.metadata, finalizers: [] } });
  await here.store.delete("Bottle", keyOf(bottle));
}

describeWith(["bubblewrap", "root"], "doctor", () => {
  it("says what is missing and what to type, and exits 6 where no backend works", async () => {
    await using here = createInstallation();
    const env = { ...process.env, BOT_BOTTLE_STATE_DIR: here.stateDir, DOCKER_HOST: `unix://${here.dir}/no.sock` };
    const main = join(BUILD_DIR, "controller/main.js");
    // In a mount namespace of its own, so that bwrap is hidden from this process alone.
    const script = `for each in $(which -a bwrap); do mount --bind /dev/null "$each"; done; exec "$0" "$@"`;

    const found = await execute("unshare", ["--mount", "sh", "-c", script, process.execPath, main, "doctor"], {
      env,
    }).then(
      ({ stdout }) => ({ code: 0, stdout }),
      ({ code, stdout }: { code: number; stdout: string }) => ({ code, stdout }),
    );

    expect(found.code).toBe(6);
    expect(found.stdout).toMatch(/^bubblewrap +missing .*bubblewrap/m);
    expect(found.stdout).toMatch(new RegExp(`^docker +missing .*${here.dir}/no.sock.*docker`, "m"));
    expect(found.stdout).toMatch(/^program +ok /m);
  });
});

describeWith(["bubblewrap"], "quickstart", () => {
  it("plays a bottle's whole story and leaves nothing behind", async () => {
    await using here = createInstallation();
    const tmp = join(here.dir, "tmp");
    mkdirSync(tmp);

    const played = await here.cli(["quickstart", "--backend", "bubblewrap"], { env: { TMPDIR: tmp } });

    expect(played.code).toBe(0);
    expect(played.stdout).toMatch(
      /1\. A backend[^]*2\. The bottle[^]*3\. Turn 1[^]*4\. Turn 2[^]*5\. What[^]*6\. Deleting/,
    );
    expect(played.stdout).toContain("asked: and what did I say before?\nnotes so far:\nwrite this down\n");
    expect(readdirSync(tmp)).toEqual([]);
    expect(processesOf(tmp)).toEqual([]);
  });
});

describeWith(["docker", "bubblewrap"], "quickstart without an image", () => {
  it("says why docker does not do and goes on with bubblewrap", async () => {
    await using here = createInstallation();
    const tmp = join(here.dir, "tmp");
    mkdirSync(tmp);
    const image = "127.0.0.1:1/acme/no-such-image:7";

    const played = await here.cli(["quickstart"], { env: { TMPDIR: tmp, BOT_BOTTLE_IMAGE: image } });

    expect(played.code).toBe(0);
    expect(played.stdout).toMatch(/docker: .*no-such-image:7[^]*bubblewrap it is[^]*6\. Deleting/);
    expect(readdirSync(tmp)).toEqual([]);
  });
});
