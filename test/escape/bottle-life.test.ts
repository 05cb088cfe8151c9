import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { guardToken } from "../../controller/loop/guard-token.ts";
import { bottleManifest, BACKENDS, outcomeOf, restsAfter } from "../e2e/bottles.ts";
import { followEngine } from "../e2e/engine-events.ts";
import { docker, traces } from "../e2e/traces.ts";
import { describeWith } from "../helpers/needs.ts";
import { CANARY } from "./attempts.ts";
import { NEEDS, secretManifest, startRig, templateManifest, type BottleRig } from "./bottle-rig.ts";
import { HOSTS } from "./bottle-scene.ts";

const TIMEOUT_MS = 240_000;
/** The first thing an agent does is a request; then it says who it is, as hashes: what it holds must not be in a transcript that is looked through. */
const WHO = [
  `curl -sS -o /dev/null -w 'first %{http_code}\\n' "$URL"`,
  "for name in HTTPS_PROXY CANARY_API; do printf '%s ' $name; eval echo \"\\$$name\" | sha256sum | cut -c1-64; done",
  "printf 'authority '; sha256sum < $NODE_EXTRA_CA_CERTS | cut -c1-64",
  "printf 'limits '; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | head -n 1; ulimit -u",
].join("\n");
/** So many requests of each kind. */
const [ALLOWED, DENIED] = [24, 12];

for (const type of BACKENDS) {
  describeWith(NEEDS[type], `the life of a guarded bottle on ${type.toLowerCase()}`, () => {
    const state: { rig?: BottleRig } = {};
    const rig = (): BottleRig => {
      if (state.rig === undefined) throw new Error("there is no rig");
      return state.rig;
    };
    const rules = (...hosts: string[]) => {
      const inject = [{ header: "x-api-key", secretRef: { name: "canary", key: "key" }, placeholderEnv: "CANARY_API" }];
      return hosts.map((host) =>
        rig().world.rule({ name: host.split(".")[0] ?? "", host, ...(host === "bound.test" ? { inject } : {}) }),
      );
    };
    const template = (name: string, hosts: string[]) => {
      const env = {
        URL: rig().world.url("allowed.test", "/"),
        EVIL: rig().world.url("evil.test", "/"),
        OTHER: rig().world.url("other.test", ""),
      };
      return templateManifest(
        name,
        { rules: rules(...hosts) },
        { env: Object.entries(env).map(([key, value]) => ({ name: key, value })) },
      );
    };
    beforeAll(async () => {
      state.rig = await startRig(type, { hosts: HOSTS });
      await rig().apply(secretManifest("canary", { key: CANARY }), template("plain", ["allowed.test", "bound.test"]));
    });
    afterAll(() => state.rig?.[Symbol.asyncDispose]());

    it(
      "62, 64: a bottle that wakes has the same policy, token and limits, another authority, and was never without its rules; its disk holds none of them",
      { timeout: TIMEOUT_MS },
      async () => {
        const { here, database } = rig();
        await using engine = type === "Docker" ? await followEngine() : undefined;
        const spec = { templateRefs: [{ name: "plain" }], resources: { pids: 128 } };
        await rig().apply(bottleManifest("sleeper", [WHO], spec));
        const first = await here.until("sleeper", "frozen after turn 1", restsAfter("1"));
        const archive = join(here.dir, "sleeper.tar");
        await rig().verb("export", "sleeper", "-o", archive);
        const uid = await rig().uid("sleeper");

        await rig().restart("SIGKILL");
        await rig().verb("turn", "sleeper", "--prompt", WHO);
        const second = await here.until("sleeper", "frozen after turn 2", restsAfter("2"));
        await rig().verb("import", archive, "--name", "copy");
        await rig().verb("turn", "copy", "--prompt", WHO);
        const copied = await here.until("copy", "frozen after turn 2", restsAfter("2"));

        const [before, after, other] = [
          await told("sleeper", "1"),
          await told("sleeper", "2"),
          await told("copy", "2"),
        ];
        expect([before["first"], after["first"], other["first"]]).toEqual(["200", "200", "200"]);
        for (const same of ["HTTPS_PROXY", "CANARY_API", "limits"]) expect(after[same], same).toBe(before[same]);
        for (const own of ["HTTPS_PROXY", "CANARY_API", "authority"]) expect(other[own], own).not.toBe(before[own]);
        expect(after["authority"]).not.toBe(before["authority"]);
        expect(second.status?.resolved).toEqual(first.status?.resolved);
        expect(copied.status?.resolved?.policyDigest).toBe(first.status?.resolved?.policyDigest);

        // On record in this order: the guard had its rules, and only then was the agent to start.
        const entries = (await database.journal.read(uid)).map(({ entry }) => entry);
        const order = entries.flatMap((entry) =>
          /^(GuardConfigured|TurnStarting)$/.test(entry.type) ? [entry.type] : [],
        );
        expect(order).toEqual(["GuardConfigured", "TurnStarting", "GuardConfigured", "TurnStarting"]);
        expect(new Set(entries.map((entry) => (entry.type === "GuardConfigured" ? entry.guardId : ""))).size).toBe(3);
        if (engine !== undefined) {
          expect(engine.unguarded(here.owner)).toEqual([]);
          expect(engine.agentStarts(here.owner)).toEqual({ "turn 1 attempt 1": 1, "turn 2 attempt 1": 2 });
        }
        const bytes = readFileSync(archive);
        for (const secret of [CANARY, "PRIVATE KEY", tokenOf(uid), "upstream-ca"])
          expect(bytes.includes(secret), secret).toBe(false);
        await rig().verb("delete", "bottle", "sleeper", "copy");
      },
    );

    it(
      "63: rules that are widened let through more at once, and rules that are narrowed end what is open, under the same agent",
      { timeout: TIMEOUT_MS },
      async () => {
        const { here } = rig();
        await rig().apply(template("changing", ["allowed.test", "other.test"]));
        const script = [
          `curl -sN "$OTHER/events?n=100000&ms=50" > stream & stream=$!`,
          `until [ -s stream ]; do sleep 0.1; done; echo streaming`,
          `until curl -sf -o /dev/null "$EVIL"; do sleep 0.3; done; echo widened`,
          `wait $stream; [ $? -ne 0 ] && echo closed; curl -s -o /dev/null -w 'allowed %{http_code}\\n' "$URL"`,
        ].join("\n");
        await rig().apply(bottleManifest("changed", [script], { templateRefs: [{ name: "changing" }] }));
        await here.until("changed", "working", (bottle) => bottle.status?.turns?.[0]?.state === "Running");
        const attached = here.start(["attach", "changed"]);

        await attached.says(/^streaming$/m);
        await rig().apply(template("changing", ["allowed.test", "other.test", "evil.test"]));
        await attached.says(/^widened$/m);
        await rig().apply(template("changing", ["allowed.test", "evil.test"]));
        await attached.says(/^closed$/m);

        expect((await attached.ended).stdout).toMatch(/^allowed 200$/m);
        const after = await here.until("changed", "at rest", restsAfter("1"));
        expect(after.status?.turns?.[0]).toMatchObject({ outcome: "Done", attempts: 1 });
        const lines = await rig().lines("changed");
        expect(lines.filter(({ host }) => host === "other.test")).toMatchObject([
          { path: "/events", rule: "narrowed" },
        ]);
        expect(lines.filter(({ host, verdict }) => host === "evil.test" && verdict === "Allowed")).toHaveLength(1);
        await rig().verb("delete", "bottle", "changed");
      },
    );

    it(
      `66, 67: ${ALLOWED} allowed and ${DENIED} refused requests are ${ALLOWED + DENIED} lines, though the agent floods its log, closes it and kills all it has`,
      { timeout: TIMEOUT_MS },
      async () => {
        const { here } = rig();
        const script = [
          `${many("URL", "allowed", ALLOWED)} & ${many("EVIL", "denied", DENIED)} & wait; echo asked`,
          "yes 'a line of a log that never ends' | head -c 30000000",
          "exec > /dev/null 2>&1",
          `curl -s -o /dev/null "$URL"last`,
          "kill -9 -1; kill -9 $$",
        ].join("\n");
        await rig().apply(bottleManifest("wild", [script], { templateRefs: [{ name: "plain" }] }));

        const bottle = await here.until("wild", "at rest", restsAfter("1"));

        expect(outcomeOf(bottle, "1")).toBe("Failed");
        const lines = await rig().lines("wild");
        const wanted = [...paths("allowed", ALLOWED), ...paths("denied", DENIED), "/last"].toSorted();
        expect(lines.map(({ path }) => path).toSorted()).toEqual(wanted);
        expect(
          lines
            .filter(({ verdict }) => verdict === "Denied")
            .map(({ path }) => path)
            .toSorted(),
        ).toEqual(paths("denied", DENIED).toSorted());
        expect(bottle.status?.egress).toMatchObject({ allowed: ALLOWED + 1, denied: DENIED });
        const transcript = await here.logs("wild", "1");
        expect(transcript.length).toBeGreaterThan(100_000);
        expect(transcript.length).toBeLessThanOrEqual(24 * 1024 * 1024);
        await rig().verb("delete", "bottle", "wild");
      },
    );

    if (type === "Docker") {
      it(
        "11: a fork bomb and a memory hog meet their limits, and neither the guard nor another bottle notices",
        { timeout: TIMEOUT_MS },
        async () => {
          const { here } = rig();
          const bomb = `n=0; while [ $n -lt 200 ] && sleep 15 & [ -n "$!" ]; do n=$((n+1)); done; echo`;
          const fork = `sh -c '${bomb}' 2>&1 | grep -ci fork; curl -s -o /dev/null -w 'answered %{http_code}\\n' "$URL"`;
          const hog = "python3 -c 'x = bytearray(512 << 20)'";
          const resources = { memory: "96Mi", pids: 48 };
          const spec = {
            templateRefs: [{ name: "plain" }],
            lifecycle: { afterTurn: "Keep", turnDeadlineSeconds: 120 } as const,
          };
          await rig().apply(
            bottleManifest("calm", ["true"], spec),
            bottleManifest("hog", [fork, hog], { ...spec, resources }),
          );

          const hogs = await here.until("hog", "after turn 2", (seen) => outcomeOf(seen, "2") !== undefined);

          expect([outcomeOf(hogs, "1"), outcomeOf(hogs, "2")]).toEqual(["Done", "OOMKilled"]);
          expect(await here.logs("hog", "1")).toMatch(/^[1-9][0-9]*\nanswered 200\n$/);
          await rig().untilReady("calm");
          expect(await rig().sh("calm", `curl -s -o /dev/null -w '%{http_code}' "$URL"`)).toEqual(["200"]);
          const uid = await rig().uid("hog");
          expect(
            (await docker(["inspect", "--format", "{{.State.Running}} {{.RestartCount}}", `bb-${uid}-guard`])).trim(),
          ).toBe("true 0");
          await rig().verb("delete", "bottle", "calm", "hog");
        },
      );
    }

    it("nothing is left of these bottles", async () => {
      await rig().serve().end();

      expect(await traces(rig().here)).toEqual([]);
    });

    async function told(name: string, turn: string): Promise<Record<string, string>> {
      const lines = (await rig().here.logs(name, turn)).trim().split("\n");
      return Object.fromEntries(lines.map((line) => line.split(/ (.*)/).slice(0, 2)));
    }
    /** As the controller derives it. */
    function tokenOf(uid: string): string {
      return guardToken(rig().database.guardKey, uid);
    }
  });
}

function paths(kind: string, count: number): string[] {
  return Array.from({ length: count }, (_, n) => `/${kind}/${n}`);
}

/** Asks for each of them, several at a time; the address is in this variable. */
function many(variable: string, kind: string, count: number): string {
  return `seq 0 ${count - 1} | xargs -P 6 -I{} curl -s -o /dev/null "$${variable}"${kind}/{}`;
}
