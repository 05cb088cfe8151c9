import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Bottle } from "../../controller/api/bottle.ts";
import type { Condition } from "../../controller/api/conditions.ts";
import type { EgressRule } from "../../controller/api/egress.ts";
import { CANARY } from "../escape/attempts.ts";
import type { Running } from "./installation.ts";
import { NEEDS, secretManifest, startRig, templateManifest, type BottleRig } from "../escape/bottle-rig.ts";
import { describeWith } from "../helpers/needs.ts";
import { BACKENDS, bottleManifest, condition, outcomeOf } from "./bottles.ts";
import { docker, traces } from "./traces.ts";

const TIMEOUT_MS = 180_000;
const KEEP = { afterTurn: "Keep", turnDeadlineSeconds: 900 } as const;
const SECRET = { name: "keys", key: "api" };
/** What a guard answered to one request, and by which rule: `ok 200`, `closed 403`; `000`: nothing. */
const ASK = String.raw`curl -s -w ' %{http_code}' "$URL" | tr -d '\n' | sed 's/.*"rule":"\([^"]*\)".*} */\1 /; s/^ //'`;
/** An agent that asks all the time, and says so when the answer changes. */
const ASKING = `last=; while :; do now=$(${ASK}); [ "$now" = "$last" ] || echo "$now"; last=$now; sleep 0.2; done`;

/**
 * What becomes of a bottle when a part of its guard fails: nothing leaves, people are told why, another bottle of the same controller goes on,
 * and all is well again when the cause is mended. A scan that throws cannot be brought about from outside: it ends the guard's process, as the
 * test that kills the guard does.
 */
for (const type of BACKENDS) {
  describeWith(["root", ...NEEDS[type]], `a guard that fails on ${type.toLowerCase()}`, () => {
    const state: { rig?: BottleRig; witness?: Condition; agent?: Running } = {};
    const rig = (): BottleRig => {
      if (state.rig === undefined) throw new Error("there is no rig");
      return state.rig;
    };
    const template = (name: string, part: Partial<EgressRule> = {}) => {
      const rule = rig().world.rule({
        name: "bound",
        host: "bound.test",
        inject: [{ header: "x-api-key", secretRef: SECRET }],
        ...part,
      });
      return templateManifest(
        name,
        { rules: [rule] },
        { env: [{ name: "URL", value: rig().world.url("bound.test", "/") }] },
      );
    };
    const untilGuard = (name: string, reason: string) =>
      rig().here.until(name, `with the guard ${reason}`, (seen) => guardReady(seen)?.reason === reason, 30_000);

    beforeAll(async () => {
      state.rig = await startRig(type, { hosts: ["bound.test", "plain.test"] });
      const plain = rig().world.rule({ name: "plain", host: "plain.test" });
      const env = [{ name: "URL", value: rig().world.url("plain.test", "/") }];
      await rig().apply(
        secret(),
        template("victim"),
        templateManifest("witness", { rules: [plain] }, { env }),
        bottleManifest("victim", [ASKING], { templateRefs: [{ name: "victim" }], lifecycle: KEEP }),
        bottleManifest("witness", ["true"], { templateRefs: [{ name: "witness" }], lifecycle: KEEP }),
      );
    });
    afterAll(() => state.rig?.[Symbol.asyncDispose]());

    /** Listens to the victim's agent in this attempt of its turn, from its first answer on. */
    async function follow(attempt: number): Promise<void> {
      const { here } = rig();
      const works = (seen: Bottle) =>
        seen.status?.turns?.[0]?.state === "Running" && seen.status.turns[0].attempts === attempt;
      await here.until("victim", `at work in attempt ${attempt}`, works);
      state.agent = here.start(["attach", "victim"]);
      await untilAnswer("ok 200");
    }
    /** Waits until this is what the victim's agent gets. */
    async function untilAnswer(answer: string): Promise<void> {
      await expect
        .poll(() => state.agent?.stdout().trim().split("\n").at(-1), { timeout: 40_000, interval: 100 })
        .toBe(answer);
    }
    function reached(): number {
      return rig().world.upstream.seen.filter(({ headers }) => headers.host === rig().world.at("bound.test")).length;
    }
    /** Nothing leaves the victim; a person reads why in its condition, its guard and its audit say so too; the witness goes on. */
    async function expectClosed(reason: string, answer: string): Promise<Bottle> {
      await untilAnswer(answer);
      const before = reached();
      const bottle = await untilGuard("victim", reason);
      expect(guardReady(bottle)).toMatchObject({
        status: "False",
        message: expect.stringContaining("all egress is refused"),
      });
      await expectWitness();
      expect(reached()).toBe(before);
      return bottle;
    }
    async function expectWitness(): Promise<void> {
      expect((await rig().sh("witness", ASK))[0].trim()).toBe("ok 200");
      const now = await rig().here.bottle("witness");
      expect(now === undefined ? undefined : guardReady(now)).toEqual(state.witness);
    }
    async function expectMended(): Promise<void> {
      await untilAnswer("ok 200");
      await rig().here.until("victim", "mended", (seen) => guardReady(seen)?.status === "True", 30_000);
      expect((await rig().here.bottle("victim"))?.status?.turns).toHaveLength(1);
    }

    it("lets through what it should while all is well", { timeout: TIMEOUT_MS }, async () => {
      await follow(1);
      state.witness = guardReady(await rig().untilReady("witness"));
      await expectWitness();
    });

    it("rules that make no sense: all is refused until they do", { timeout: TIMEOUT_MS }, async () => {
      await rig().apply(template("victim", { paths: [{ type: "Regex", value: "/(unclosed" }] }));

      const bottle = await expectClosed("EgressPolicyInvalid", "closed 403");

      expect(condition(bottle, "ResolvedRefs")).toMatchObject({ status: "False", reason: "EgressPolicyInvalid" });
      expect(guardReady(bottle)?.message).toContain('"bound"');
      expect(await rig().verb("describe", "bottle", "victim")).toContain("EgressClosed");
      await rig().apply(template("victim"));
      await expectMended();
    });

    it(
      "a Secret that is deleted while its bottle is up: all is refused until it is there again, with its new value",
      { timeout: TIMEOUT_MS },
      async () => {
        await rig().verb("delete", "secret", SECRET.name);

        const bottle = await expectClosed("SecretNotFound", "closed 403");

        expect(guardReady(bottle)?.message).toContain(`Secret "${SECRET.name}"`);
        expect(await rig().verb("describe", "bottle", "victim")).toContain("EgressClosed");
        await rig().apply(secretManifest(SECRET.name, { [SECRET.key]: `${CANARY}-new` }));
        rig().world.upstream.seen.length = 0;
        await expectMended();
        expect(rig().world.upstream.seen.at(-1)?.headers["x-api-key"]).toBe(`${CANARY}-new`);
        await rig().apply(secret());
      },
    );

    it(
      "an audit that cannot be written: nothing leaves until there is room, and then each refusal is accounted for",
      { timeout: TIMEOUT_MS },
      async () => {
        const pid = await guardPid("victim");
        const since = (await rig().lines("victim")).length;
        limitFiles(pid, "0");
        const bottle = await expectClosed("AuditUnwritable", "audit-unavailable 503");

        expect(guardReady(bottle)?.message).toContain("make room");
        limitFiles(pid, "unlimited");
        await expectMended();
        const lines = (await rig().lines("victim")).slice(since);
        expect(lines.filter(({ rule }) => rule === "audit-unavailable").length).toBeGreaterThanOrEqual(1);
      },
    );

    it(
      "an agent that deletes what it should trust harms only itself, and finds it again with its next guard",
      { timeout: TIMEOUT_MS },
      async () => {
        await rig().sh("victim", "rm -rf ~/.bot-bottle");

        await untilAnswer("000");
        const before = reached();
        await expectWitness();
        expect(reached()).toBe(before);

        await rig().verb("freeze", "victim");
        await rig().verb("resume", "victim");
        await follow(2);
      },
    );

    it(
      "65: a guard that is killed under a working agent: nothing leaves, the agent is ended, and goes on behind another guard",
      { timeout: TIMEOUT_MS },
      async () => {
        const journal = async () =>
          (await rig().database.journal.read(await rig().uid("victim"))).map(({ entry }) => entry);
        const agent = state.agent;
        const attempt = (await rig().here.bottle("victim"))?.status?.turns?.[0]?.attempts ?? 0;
        const entries = (await journal()).length;

        process.kill(await guardPid("victim"), "SIGKILL");

        await follow(attempt + 1);
        expect(agent?.stdout()).toMatch(/^((ok 200|000)\n)+$/);
        const told = (await journal())
          .slice(entries)
          .flatMap((entry) => (/^Turn|^Guard/.test(entry.type) ? [entry.type] : []));
        expect(told).toEqual(["TurnStopRequested", "TurnFinished", "GuardConfigured", "TurnStarting"]);
        expect(await rig().verb("describe", "bottle", "victim")).toMatch(/holder or guard/);
        await expectWitness();
        await expectMended();
      },
    );

    it(
      "without its Secret, or with authorities that cannot be read, a bottle is not launched, says why, and is when that is mended",
      { timeout: TIMEOUT_MS },
      async () => {
        const { here, world } = rig();
        const secretRef = { name: "later", key: "api" };
        await rig().apply(
          template("poor", { inject: [{ header: "x-api-key", secretRef }] }),
          bottleManifest("poor", [ASK], { templateRefs: [{ name: "poor" }] }),
        );
        const poor = await here.until("poor", "stalled", (seen) => condition(seen, "Stalled")?.status === "True");
        expect(condition(poor, "ResolvedRefs")).toMatchObject({ status: "False", reason: "SecretNotFound" });
        expect(condition(poor, "Stalled")?.message).toContain('Secret "later"');
        expect((await traces(here)).filter((trace) => trace.includes(poor.metadata.uid))).toEqual([]);

        const ca = world.env["BOT_BOTTLE_GUARD_CA"] ?? "";
        const pem = readFileSync(ca);
        writeFileSync(ca, "no certificate");
        await rig().apply(secretManifest("later", { api: CANARY }));
        const stalled = await here.until(
          "poor",
          "without authorities",
          (seen) => condition(seen, "Stalled")?.reason === "UpstreamCaUnusable",
        );
        expect(condition(stalled, "Stalled")?.message).toContain(ca);
        expect(stalled.status?.turns?.[0]?.attempts).toBe(0);
        await expectWitness();

        writeFileSync(ca, pem);
        await rig().verb("turn", "poor", "--prompt", "true");
        // A holder whose guard did not come in time is made anew with it, a minute later.
        await here.until("poor", "done", (seen) => outcomeOf(seen, "1") === "Done", 100_000);
        expect((await here.logs("poor", "1")).trim()).toBe("ok 200");
      },
    );

    it(
      "nothing is left of these bottles, and nothing said of them holds a credential",
      { timeout: TIMEOUT_MS },
      async () => {
        const shown = [
          await rig().verb("get", "bottles", "-o", "yaml"),
          await rig().verb("egress", "victim", "-o", "json"),
        ];
        for (const text of [...shown, rig().serve().stderr()]) expect(text).not.toContain(CANARY);
        await rig().verb("delete", "bottle", "victim", "witness", "poor");
        await rig().serve().end();

        expect(await traces(rig().here)).toEqual([]);
      },
    );

    /** Of the guard's process, as this machine counts. */
    async function guardPid(name: string): Promise<number> {
      const uid = await rig().uid(name);
      if (type === "Docker") return Number(await docker(["inspect", "--format", "{{.State.Pid}}", `bb-${uid}-guard`]));
      const status = readFileSync(join(rig().here.stateDir, "bubblewrap", uid, "units/guard/status"), "utf8");
      const first = /"child-pid": (\d+)/.exec(status)?.[1] ?? "";
      return Number(readFileSync(`/proc/${first}/task/${first}/children`, "utf8").trim());
    }
  });
}

function secret(): object {
  return secretManifest(SECRET.name, { [SECRET.key]: CANARY });
}

function guardReady(bottle: Bottle): Condition | undefined {
  return condition(bottle, "GuardReady");
}

/** How large a file that process may make. As its own user, who may change that without any right. */
function limitFiles(pid: number, soft: string): void {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const [user, group] = ["Uid", "Gid"].map((name) => new RegExp(`^${name}:\\t(\\d+)`, "m").exec(status)?.[1] ?? "");
  const ids = [`--reuid=${user}`, `--regid=${group}`, "--clear-groups"];
  execFileSync("setpriv", [...ids, "prlimit", "--pid", String(pid), `--fsize=${soft}:`], { timeout: 10_000 });
}
