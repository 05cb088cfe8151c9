import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { docker, processesOf } from "../e2e/traces.ts";
import { CANARY, get } from "./attempts.ts";
import type { Scene } from "./bottle-scene.ts";

const FORMS = [CANARY, Buffer.from(CANARY).toString("base64").replace(/=+$/, ""), Buffer.from(CANARY).toString("hex")];
const FILE_BYTES_MAX = 64 * 1024 * 1024;

/** Cases 34, 40, 42 and 45 of the threat model: where a credential must not be found. */
export function secretRules({ rig }: Scene): void {
  it("40: what the agent sends as a credential is replaced on the bound host, which alone gets the real one", async () => {
    const { world } = rig();
    const since = (await rig().lines("a")).length;
    world.upstream.seen.length = 0;
    const sent = [
      "Authorization: Bearer mine",
      "AUTHORIZATION: twice",
      "X-Api-Key: mine",
      "x_api_key: mine",
      "Forwarded: for=1.2.3.4",
    ];

    const findings = await rig().attack("a", [
      { kind: "tunnel", authority: world.at("bound.test"), request: get(world.at("bound.test"), "/headers", sent) },
      { kind: "tunnel", authority: world.at("allowed.test"), request: get(world.at("allowed.test"), "/headers") },
    ]);

    expect(findings.map(({ status }) => status)).toEqual([200, 200]);
    const [bound, other] = ["bound.test", "allowed.test"].map((host) =>
      world.upstream.seen.find(({ headers }) => headers.host === world.at(host)),
    );
    const values = (bound?.rawHeaders ?? []).filter((_, n, all) =>
      /^(authorization|x.api.key|forwarded)$/i.test(all[n - 1] ?? ""),
    );
    expect(values.filter((value) => value !== "for=1.2.3.4").toSorted()).toEqual(
      [`Bearer ${CANARY}`, CANARY].toSorted(),
    );
    expect(JSON.stringify(other?.rawHeaders)).not.toContain(CANARY);
    // The upstream repeats its headers: what comes back shows none of it.
    for (const form of FORMS) expect(JSON.stringify(findings)).not.toContain(form);
    const lines = await rig().newLines("a", since, 2);
    expect(lines.find(({ host }) => host === "bound.test")?.injected.toSorted()).toEqual([
      "authorization",
      "x-api-key",
    ]);
    world.upstream.seen.length = 0;
  });

  it("34: nothing that the agent can read holds the credential", async () => {
    const places =
      "/home/agent /workspace /run /tmp /var /etc /proc/self /proc/[0-9]*/environ /proc/[0-9]*/cmdline /dev/shm";
    // The patterns are put together in the shell: the command line of the search is itself looked at.
    const patterns = FORMS.map((form) => `echo '${form.slice(0, 9)}''${form.slice(9)}'`).join("; ");
    const exceptions = "-D skip --exclude-dir=task --exclude-dir=attr --exclude=pagemap --exclude=mem";
    const search = `p=$(${patterns}); echo "$p" | grep -rlsaF -f - ${exceptions} ${places} | grep -v /fd/`;
    for (const name of ["a", "b"]) {
      const [control, found] = await rig().sh(name, "grep -lsa CANARY_API /proc/[0-9]*/environ", search);
      expect([control !== "", found]).toEqual([true, ""]);
    }
    const [env] = await rig().sh("a", "env; cat /workspace/environment /workspace/first");
    for (const form of FORMS) expect(env).not.toContain(form);
    expect(env).toMatch(/^CANARY_API=\S{20,}$/m);
  });

  it("34: nothing that others may see of the bottle holds it: what the engine shows, files, command lines", async () => {
    const { here } = rig();
    const uid = await rig().uid("a");
    if (rig().type === "Docker") {
      const ids = (await docker(["ps", "-aq", "--no-trunc", "--filter", `label=bot-bottle.dev/uid=${uid}`]))
        .trim()
        .split("\n");
      expect(ids.length).toBeGreaterThanOrEqual(2);
      const image = (await docker(["inspect", "--format", "{{.Image}}", `bb-${uid}-guard`])).trim();
      const shown = [
        await docker(["inspect", ...ids]),
        await docker(["history", "--no-trunc", image]),
        await docker(["image", "inspect", image]),
        ...(await Promise.all(ids.map((id) => docker(["logs", id])))),
      ];
      for (const form of FORMS) expect(shown.join("\n")).not.toContain(form);
    }
    // The store itself holds Secrets, and nothing else does.
    const holding = filesBelow(here.stateDir).filter((path) => FORMS.some((form) => readFileSync(path).includes(form)));
    expect(holding.filter((path) => !/bot-bottle\.db(-wal|-shm)?$/.test(path))).toEqual([]);
    for (const path of filesBelow(here.stateDir).filter((one) => /bot-bottle\.db/.test(one))) {
      expect(statSync(path).mode & 0o077, path).toBe(0);
    }
    const words = processesOf(here.stateDir).flatMap((pid) =>
      ["cmdline", "environ"].map((file) => textOf(`/proc/${pid}/${file}`)),
    );
    for (const form of FORMS) expect(words.join("\n")).not.toContain(form);
  });

  it("42: neither the guard nor its key, its sockets or its audit is in the bottle, and each bottle has an authority of its own", async () => {
    const keys = "grep -rls -D skip -e 'BEGIN.*PRIVATE KEY' /home/agent /workspace /run /tmp /dev/shm";
    const places = "ls -d /sockets /guard /bot-bottle /run/bot-bottle /sockets/audit 2>/dev/null";
    const programs = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
    const [found, seen, running, mine] = await rig().sh("a", keys, places, programs, "cat $NODE_EXTRA_CA_CERTS");
    expect([found, seen]).toEqual(["", ""]);
    expect(running).not.toMatch(/--sockets|--control|holder/);
    const authorities = [mine, ...(await rig().sh("b", "cat $NODE_EXTRA_CA_CERTS"))];
    expect(new Set(authorities).size).toBe(2);
    for (const authority of authorities)
      expect(authority).toMatch(/^-----BEGIN CERTIFICATE-----\n[^]*-----END CERTIFICATE-----\n$/);
  });

  it("45: nothing that the controller says, shows or keeps for people holds the credential", async () => {
    const { world, here } = rig();
    const since = (await rig().lines("a")).length;
    const leak = (host: string) =>
      get(world.at(host), `/${CANARY}?key=${CANARY}`, [`Authorization: Basic ${btoa(`u:${CANARY}`)}`]);
    const findings = await rig().attack("a", [
      { kind: "tunnel", authority: world.at("bound.test"), request: leak("bound.test") },
      { kind: "tunnel", authority: world.at("allowed.test"), request: leak("allowed.test") },
      { kind: "tunnel", authority: world.at("evil.test"), request: leak("evil.test") },
    ]);
    expect(findings.map(({ status }) => status)).toEqual([403, 403, 403]);
    await rig().newLines("a", since, 3);

    const shown = await Promise.all(
      [
        ["describe", "bottle", "a"],
        ["describe", "secret", "canary"],
        ["get", "bottles", "-o", "yaml"],
        ["get", "secrets", "-o", "wide"],
        ["egress", "a", "-o", "json"],
        ["egress", "a", "-o", "wide"],
        ["policy", "show", "a"],
        ["logs", "a"],
      ].map((words) => rig().verb(...words)),
    );

    expect(shown[4]?.split("\n").length).toBeGreaterThan(3);
    const said = [...shown, rig().serve().stdout(), rig().serve().stderr(), JSON.stringify(await here.bottle("a"))];
    // A text of its own for each that does: the whole of them is long.
    const showing = said.flatMap((text) =>
      text.split("\n").filter((line) => FORMS.some((form) => line.includes(form))),
    );
    expect(showing).toEqual([]);
  });
}

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return filesBelow(path);
    return entry.isFile() && statSync(path).size < FILE_BYTES_MAX ? [path] : [];
  });
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
