import { randomUUID } from "node:crypto";
import { execFileSync, spawnSync } from "node:child_process";
import { rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { beforeAll, expect, it } from "vitest";
import { failure } from "../contract/bottles.ts";
import { settings } from "../contract/guard-rules.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { docker, DockerBed } from "./docker-bed.ts";

const ENGINE = "/var/run/docker.sock";
const NOW = { cursor: "", waitMs: 0, linesMax: 10 };

async function guardOf(bed: DockerBed, uid: string): Promise<{ uid: string; guardId: string }> {
  const unit = await bed.until(uid, ({ role, state }) => role === "guard" && state === "running");
  return { uid, guardId: unit.id };
}

function volumeDir(uid: string, part: string): string {
  return docker("volume", "inspect", "-f", "{{.Mountpoint}}", `bb-${uid}-${part}`);
}

/** The engine behind a door that can be slammed: connections are cut, and the next ones go through. */
async function slammable() {
  const socketPath = join(tmpdir(), `bot-bottle-${randomUUID()}.sock`);
  const clients = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (client) => {
    const engine = connect({ path: ENGINE, allowHalfOpen: true });
    clients.add(client);
    client.on("close", () => (clients.delete(client), engine.destroy()));
    engine.on("close", () => client.destroy());
    client.on("error", () => client.destroy());
    engine.on("error", () => engine.destroy());
    client.pipe(engine);
    engine.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  const slam = () => {
    for (const client of clients) client.destroy();
  };
  const dispose = async () => {
    slam();
    server.close();
  };
  return { socketPath, clients, slam, [Symbol.asyncDispose]: dispose };
}

describeWith(["docker", "busybox", "root"], "docker backend: the way to the guard", () => {
  beforeAll(() => void ensureBusyboxImage());

  it("values of secrets are in nothing that the engine shows or keeps, and in no file of the bottle", async () => {
    await using bed = new DockerBed();
    const { uid } = await bed.prepared();
    const guard = await guardOf(bed, uid);
    const canary = `canary${randomUUID()}`;
    const secrets = { "api/key": canary };

    await bed.backend.configureGuard(guard, settings("one", { secrets, secretRefs: Object.keys(secrets) }));
    await bed.backend.readAudit(guard, NOW);

    const root = docker("info", "-f", "{{.DockerRootDir}}");
    const kept = [join(root, "containers", guard.guardId), volumeDir(uid, "sockets"), volumeDir(uid, "home")];
    expect(spawnSync("grep", ["-r", "-l", canary, ...kept], { encoding: "utf8" })).toMatchObject({ status: 1 });
    expect(docker("inspect", guard.guardId)).not.toContain(canary);
    expect(docker("logs", guard.guardId)).not.toContain(canary);
    expect(docker("top", guard.guardId)).not.toContain(canary);
  });

  it("requests to a guard share one connection; one that is cut is replaced, also under a request", async () => {
    await using bed = new DockerBed();
    const { uid } = await bed.prepared();
    const guard = await guardOf(bed, uid);
    await using door = await slammable();
    const backend = bed.another({ socketPath: door.socketPath });
    await backend.configureGuard(guard, settings("one"));
    await Promise.all([1, 2, 3, 4, 5].map(() => backend.readAudit(guard, NOW)));
    await expect.poll(() => door.clients.size, { timeout: 5_000 }).toBe(1);

    const waiting = backend.readAudit(guard, { ...NOW, waitMs: 1_000 });
    await backend.readAudit(guard, NOW);
    door.slam();

    expect((await waiting).digest).toBe("one");
    expect((await backend.configureGuard(guard, settings("two"))).digest).toBe("two");
    door.slam();
    expect((await backend.readAudit(guard, NOW)).digest).toBe("two");
  });

  it("a process that asked a guard something ends, though the connection is kept", async () => {
    await using bed = new DockerBed();
    const { uid } = await bed.prepared();
    const guard = await guardOf(bed, uid);
    const index = new URL("../../.build/backends/docker/index.js", import.meta.url);
    const script = `
import { createDockerBackend } from ${JSON.stringify(index)};
const log = { debug() {}, info() {}, warn() {}, error() {} };
const backend = createDockerBackend({ owner: ${JSON.stringify(bed.owner)}, now: Date.now, log });
console.log((await backend.configureGuard(${JSON.stringify(guard)}, ${JSON.stringify(settings("one"))})).digest);
`;

    const said = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
      timeout: 15_000,
    });

    expect(said).toBe("one\n");
  });

  it("guard and holder are told this host's addresses, and the guard its name servers and further authorities", async () => {
    const file = join(tmpdir(), `bot-bottle-${randomUUID()}.pem`);
    writeFileSync(file, String(rootCertificates[0]));
    try {
      await using bed = new DockerBed({ guardDns: ["192.0.2.1", "192.0.2.2:5353"], guardUpstreamCa: file });
      const { uid } = await bed.prepared();
      const words = ["holder", "guard"].map((role): string[] =>
        JSON.parse(docker("inspect", "-f", "{{json .Config.Entrypoint}}", `bb-${uid}-${role}`)),
      );
      const [holder = [], guard = []] = words;
      const own = Object.values(networkInterfaces())
        .flatMap((found) => found ?? [])
        .filter(({ internal, family }) => !internal && family === "IPv4");

      expect(own.length).toBeGreaterThan(0);
      for (const { address } of own) for (const told of words) expect(after(told, "--host-address")).toContain(address);
      expect([after(guard, "--dns"), after(holder, "--dns")]).toEqual([["192.0.2.1", "192.0.2.2:5353"], []]);
      const [inside = ""] = after(guard, "--upstream-ca");
      const trusted = join(volumeDir(uid, "sockets"), inside.replace("/sockets/", ""));
      expect(statSync(trusted)).toMatchObject({ uid: 0, size: String(rootCertificates[0]).length });
      expect((await bed.backend.configureGuard(await guardOf(bed, uid), settings("one"))).digest).toBe("one");
    } finally {
      rmSync(file);
    }
  });

  it("a file of authorities that cannot be used is the user's to correct, and nothing starts without it", async () => {
    for (const path of ["/nowhere/ca.pem", "/etc/hostname"]) {
      await using bed = new DockerBed({ guardUpstreamCa: path });
      const blueprint = bed.blueprint();

      const refused = await failure(bed.backend.prepare(blueprint));

      expect([refused?.kind, refused?.reason]).toEqual(["Invalid", "UpstreamCaUnusable"]);
      expect(refused?.message).toContain(`"${path}"`);
      expect(await bed.units(blueprint.uid)).toEqual([]);
    }
  });
});

/** The words that follow this one. */
function after(words: readonly string[], name: string): string[] {
  return words.flatMap((word, index) => (words[index - 1] === name ? [word] : []));
}
