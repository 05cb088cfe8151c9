import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createBubblewrapBackend } from "../../backends/bubblewrap/index.ts";
import { Bottles, FIRST, unitOf } from "../contract/bottles.ts";
import { describeWith } from "../helpers/needs.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
const BUILD = fileURLToPath(new URL("../../.build", import.meta.url));
const ORDINARY_USER = 12_345;

/** Listeners of the host, and a folder of ours: what an agent must not find. */
interface Host {
  dir: string;
  port: number;
  servers: Server[];
}

/** Prints one fact a line, as an agent sees it. */
function inside(host: Host, stateDir: string): string {
  return `
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
tcp() { timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$1 && printf 'GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' >&3 && head -c 8 <&3" 2>/dev/null || printf refused; }
unixSocket() { perl -e 'use Socket; socket(S,AF_UNIX,SOCK_STREAM,0); connect(S,pack_sockaddr_un(($ARGV[1] ? "\\0" : "").$ARGV[0])) ? print "reached" : print "refused"' "$@"; }
seen() { ls -A "$1" 2>/dev/null | tr '\\n' ' '; }
echo "caps=$(status CapInh)$(status CapPrm)$(status CapEff)$(status CapBnd)$(status CapAmb)"
echo "noNewPrivs=$(status NoNewPrivs) seccomp=$(status Seccomp)"
echo "coreBlocks=$(ulimit -Hc)"
echo "user=$(id -u):$(id -g):$(id -un)"
echo "interfaces=$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n')"
echo "root=$(seen /)"
echo "home=$(seen /home)"
echo "etc=$(seen /etc | grep -Ec 'shadow|ssh|sudoers')"
echo "sys=$(seen /sys)"
echo "state=$(seen ${stateDir})$(seen /bot-bottle)"
echo "tmp=$(seen /tmp)"
echo "hostname=$(hostname)"
echo "hostTcp=$(tcp ${host.port})"
echo "hostPath=$(unixSocket ${host.dir}/socket)"
echo "hostAbstract=$(unixSocket bot-bottle-test-${host.port} abstract)"
echo "docker=$(unixSocket /var/run/docker.sock)"
for port in 7001 7002 7003 7004; do echo "door$port=$(tcp $port)"; done
echo "vsock=$(perl -e 'socket(S,40,1,0) ? print "made" : print $!')"
echo "ioUring=$(perl -e '$! = 0; syscall(425, 1, 0); print $!')"
echo "userNamespace=$(unshare -U true 2>/dev/null && echo made || echo refused)"
echo "rootWritable=$(touch /x /usr/x /etc/x 2>/dev/null && echo yes || echo no)"
echo "diskWritable=$(touch /home/agent/x /workspace/x /tmp/x && echo yes)"
echo "processes=$(ls /proc | grep -c '^[0-9]')"
echo "env=$(env | cut -d= -f1 | grep -v '^_$' | sort | tr '\\n' ' ')"
`;
}

const SEALED = {
  caps: "0".repeat(80),
  noNewPrivs: "1 seccomp=2",
  coreBlocks: "0",
  user: "1000:1000:agent",
  interfaces: "lo",
  home: "agent ",
  etc: "0",
  sys: "",
  state: "",
  tmp: "",
  hostname: "sealed",
  hostTcp: "refused",
  hostPath: "refused",
  hostAbstract: "refused",
  docker: "refused",
  door7001: "HTTP/1.1",
  door7002: "HTTP/1.1",
  door7003: "HTTP/1.1",
  door7004: "HTTP/1.1",
  vsock: "Address family not supported by protocol",
  ioUring: "Function not implemented",
  userNamespace: "refused",
  rootWritable: "no",
  diskWritable: "yes",
  env: "COLOR HOME LOGNAME PATH PWD SHELL SHLVL USER ",
};

function facts(output: string): Record<string, string> {
  const lines = output.split("\n").filter((line) => line.includes("="));
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

describeWith(["bubblewrap"], "the bubblewrap sandbox, seen from inside", () => {
  const host: Host = { dir: "", port: 0, servers: [] };
  let stateDir = "";
  let suite: Bottles | undefined;
  const bottles = () => {
    if (suite === undefined) throw new Error("the suite has not begun");
    return suite;
  };

  /** Until the guard has answered the holder, both are certainly at work. */
  const proven = async (uid: string) => {
    const holderId = unitOf(await bottles().view(uid), "holder").id;
    expect(await bottles().bed.backend.probe({ uid, holderId })).toMatchObject({ passed: true });
  };

  beforeAll(async () => {
    host.dir = mkdtempSync(join(tmpdir(), "bot-bottle-host-"));
    stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-seal-"));
    host.servers.push(await listening({ host: "127.0.0.1", port: 0 }));
    const address = host.servers[0]?.address();
    host.port = typeof address === "object" && address !== null ? address.port : 0;
    host.servers.push(await listening({ path: join(host.dir, "socket") }));
    host.servers.push(await listening({ path: `\0bot-bottle-test-${host.port}` }));
    chmodSync(host.dir, 0o755);
    chmodSync(join(host.dir, "socket"), 0o777);
    const backend = createBubblewrapBackend({ stateDir, owner: "us", now: Date.now, log: SILENT });
    suite = new Bottles({ backend, stranger: backend, close: async () => {} });
  });
  afterAll(async () => {
    await suite?.removeAll();
    for (const server of host.servers) server.close();
    rmSync(host.dir, { recursive: true, force: true });
    rmSync(stateDir, { recursive: true, force: true });
  });

  it("an agent is no one, sees nothing of the host, and reaches the guard alone", async () => {
    const blueprint = await bottles().prepared({ name: "sealed", env: { COLOR: "green" } });
    await proven(blueprint.uid);
    const argv = ["/bin/bash", "-c", inside(host, stateDir)];

    const ran = await bottles().ran(blueprint, { type: "missing" }, { argv });

    const found = facts(ran.text);
    expect(found, ran.text).toMatchObject(SEALED);
    const system = new Set(["bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "sbin"]);
    const rest = (found["root"] ?? "").split(" ").filter((name) => name !== "" && !system.has(name));
    expect(rest).toEqual(["tmp", "usr", "workspace"]);
    expect(Number(found["processes"])).toBeLessThan(8);
  });

  it("no process of a bottle that runs with the agent's rights is root on the host", async () => {
    const blueprint = await bottles().prepared();
    await proven(blueprint.uid);
    await bottles().started(blueprint, { type: "sleep", text: "x" });
    for await (const _ of bottles().bed.backend.logs({ uid: blueprint.uid, ...FIRST }, { follow: true })) break;

    const users = ["agent-1-1", "holder", "guard"].map((unit) => hostUser(stateDir, blueprint.uid, unit));

    const [agent, holder, guard] = users;
    expect(users).not.toContain(0);
    expect(holder).toBe(guard);
    if (process.getuid?.() === 0) {
      expect(agent).not.toBe(guard);
      const other = await bottles().prepared();
      await proven(other.uid);
      expect(hostUser(stateDir, other.uid, "guard")).not.toBe(guard);
    }
  });

  it("an agent that makes processes without end is stopped at its limit", async () => {
    const blueprint = await bottles().prepared({ limits: { pids: 40 } });
    const script = 'for (1..100) { my $p = fork; if (!defined $p) { print "refused: $!"; last } sleep 60 if !$p }';
    const argv = ["perl", "-e", script];

    const ran = await bottles().ran(blueprint, { type: "missing" }, { argv });

    expect(ran.text).toBe("refused: Resource temporarily unavailable");
  });

  it("a guard and a holder leave no core file, which would hold secrets", async () => {
    const blueprint = await bottles().prepared();
    await proven(blueprint.uid);
    for (const unit of ["holder", "guard"]) {
      const limits = readFileSync(`/proc/${sandboxPid(stateDir, blueprint.uid, unit)}/limits`, "utf8");
      expect(limits).toMatch(/^Max core file size +0 +0 /m);
    }
  });

  it("a guard and a holder have neither the disk nor the agent's rights", async () => {
    const blueprint = await bottles().prepared();
    await proven(blueprint.uid);
    for (const unit of ["holder", "guard"]) {
      const mounts = readFileSync(`/proc/${sandboxPid(stateDir, blueprint.uid, unit)}/mounts`, "utf8");
      const places = mounts.split("\n").map((line) => line.split(" ")[1] ?? "");
      expect(places).toContain("/bot-bottle/sockets");
      expect(places.filter((place) => /^\/(home|workspace|sys|root|run|var)/.test(place))).toEqual([]);
    }
  });

  describeWith(["root"], "started by an ordinary user", () => {
    it("it is the same", () => {
      const home = mkdtempSync(join(tmpdir(), "bot-bottle-ordinary-"));
      try {
        const theirs = join(home, "state");
        mkdirSync(theirs);
        execFileSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, home]);
        const ids = [`--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, "--clear-groups"];
        const script = asOrdinaryUser(theirs, inside(host, theirs));
        const node = [process.execPath, "--input-type=module", "-e", script];

        const output = execFileSync("setpriv", [...ids, "--", ...node], {
          encoding: "utf8",
          cwd: "/",
          timeout: 60_000,
        });

        expect(facts(output), output).toMatchObject(SEALED);
        expect(output).toContain('left=[".check"');
      } finally {
        rmSync(home, { recursive: true, force: true });
      }
    });
  });
});

/** A whole life of a bottle in a process of its own, because a process cannot become another user and come back. */
function asOrdinaryUser(stateDir: string, script: string): string {
  return `
import { readdirSync } from "node:fs";
import { createBubblewrapBackend } from ${JSON.stringify(join(BUILD, "backends/bubblewrap/index.js"))};
const log = { debug() {}, info() {}, warn: console.log, error: console.log };
const stateDir = ${JSON.stringify(stateDir)};
const backend = createBubblewrapBackend({ stateDir, owner: "us", now: Date.now, log });
const found = await backend.available();
if (!found.ok) throw new Error(JSON.stringify(found));
const uid = "ordinary";
const blueprint = { uid, namespace: "d", name: "sealed", generation: 1, specHash: "s", env: { COLOR: "green" }, limits: {} };
await backend.prepare(blueprint);
const { units } = (await backend.observe()).bottles.get(uid);
const probe = await backend.probe({ uid, holderId: units.find((unit) => unit.role === "holder").id });
if (!probe.passed) throw new Error(probe.detail);
const key = { turn: "1", attempt: 1 };
await backend.createAgent(blueprint, { ...key, argv: ["/bin/bash", "-c", ${JSON.stringify(script)}], env: {} });
await backend.startAgent({ uid, ...key });
for await (const chunk of backend.logs({ uid, ...key }, { follow: true })) process.stdout.write(chunk);
await backend.removeUnits(uid, (await backend.observe()).bottles.get(uid).units.map((unit) => unit.id));
await backend.removeDisk(uid);
console.log("left=" + JSON.stringify(readdirSync(stateDir).sort()));
`;
}

function listening(where: { host: string; port: number } | { path: string }): Promise<Server> {
  const server = createServer((socket) => socket.end("reached!"));
  return new Promise((resolve) => server.listen(where, () => resolve(server)));
}

function sandboxPid(stateDir: string, uid: string, unit: string): number {
  const status = readFileSync(join(stateDir, uid, "units", unit, "status"), "utf8").split("\n")[0] ?? "";
  return Number(/"child-pid": (\d+)/.exec(status)?.[1]);
}

function hostUser(stateDir: string, uid: string, unit: string): number {
  const status = readFileSync(`/proc/${sandboxPid(stateDir, uid, unit)}/status`, "utf8");
  return Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]);
}
