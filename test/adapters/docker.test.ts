import { readlinkSync } from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { beforeAll, expect, it } from "vitest";
import { BackendError, HOME, WORKSPACE } from "../../controller/ports/backend.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { docker, DockerBed } from "./docker-bed.ts";

async function refusal(promise: Promise<unknown>): Promise<BackendError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof BackendError) return error;
    throw error;
  }
  throw new Error("the verb succeeded");
}

const ASK = (port: number) => `printf 'GET /x HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 ${port}`;

describeWith(["docker", "busybox", "root"], "docker backend: the seal", () => {
  beforeAll(() => void ensureBusyboxImage());

  it("an agent is unprivileged, on a read-only root, with loopback only and no way to sockets or engine", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();

    const { text } = await bed.ran(
      blueprint,
      [
        "id -u; id -g",
        "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status",
        "touch /etc/x 2>/dev/null && echo root-is-writable",
        "grep -vE '^(Inter| face| *lo:)' /proc/net/dev",
        "tail -n +2 /proc/net/route",
        "ls /sockets /var/run/docker.sock /run/docker.sock 2>/dev/null",
        "grep -c sockets /proc/mounts",
        "touch /tmp/x /run/x $HOME/x /workspace/x && pwd && echo $HOME",
        "ulimit -n; ulimit -c",
      ].join("\n"),
    );

    expect(text.replaceAll("\t", " ").trim().split("\n")).toEqual([
      "1000",
      "1000",
      "CapEff: 0000000000000000",
      "NoNewPrivs: 1",
      "Seccomp: 2",
      "0",
      WORKSPACE,
      HOME,
      "16384",
      "0",
    ]);
  });

  it("an agent reaches no listener of the host", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    const reached: string[] = [];
    const server = createServer((socket) => {
      reached.push(String(socket.remoteAddress));
      socket.end("host\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const hosts = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
    const targets = [...hosts.filter(({ family }) => family === "IPv4").map((found) => found.address), "172.17.0.1"];

    const { text } = await bed.ran(
      blueprint,
      targets.map((host) => `nc -w 2 ${host} ${port} </dev/null 2>&1 || echo refused`).join("\n"),
    );
    await new Promise((resolve) => server.close(resolve));

    expect(reached).toEqual([]);
    expect(text).not.toContain("host\n");
    expect(text.match(/^refused$/gm)?.length).toBe(targets.length);
  });

  it("the guard answers on four ports of loopback, and before it has settings it refuses on each of them", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    const holder = await bed.until(blueprint.uid, (unit) => unit.role === "holder");
    const probe = await bed.backend.probe({ uid: blueprint.uid, holderId: holder.id });

    const answers: string[] = [];
    for (const port of [7001, 7002, 7003, 7004]) {
      answers.push((await bed.ran(blueprint, ASK(port), `port-${port}`)).text);
    }

    expect(probe).toMatchObject({ passed: true });
    expect(answers.map((answer) => answer.split(" ")[1])).toEqual(Array(4).fill("503"));
    expect(JSON.parse(answers[3]?.split("\r\n\r\n")[1] ?? "")).toMatchObject({ door: "forge" });
  });

  it("the agent shares the holder's namespace, and the guard has another one", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    const { text } = await bed.ran(blueprint, "readlink /proc/self/ns/net");
    const modes = ["holder", "guard"].map((role) =>
      docker(
        "inspect",
        "-f",
        "{{.HostConfig.NetworkMode}} {{.HostConfig.Privileged}} {{.Config.User}}",
        `bb-${blueprint.uid}-${role}`,
      ),
    );
    const namespaces = ["holder", "guard"].map((role) => {
      const pid = docker("inspect", "-f", "{{.State.Pid}}", `bb-${blueprint.uid}-${role}`);
      return readlinkSync(`/proc/${pid}/ns/net`);
    });

    expect(modes).toEqual(["none false 7000:7000", "bridge false 7000:7000"]);
    expect(text.trim()).toBe(namespaces[0]);
    expect(namespaces[1]).not.toBe(namespaces[0]);
  });

  it("labels and command lines that others may list hold no environment and no prompt", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    await bed.backend.createAgent(blueprint, {
      turn: "1",
      attempt: 1,
      argv: ["/bin/true"],
      env: { BOT_BOTTLE_PROMPT: "a private prompt" },
    });

    const labels = docker("inspect", "-f", "{{json .Config.Labels}}", `bb-${blueprint.uid}-agent-1-1`);

    expect(labels).not.toContain("private");
    expect(Object.keys(JSON.parse(labels)).sort()).toEqual(
      [
        "attempt",
        "created",
        "generation",
        "managed-by",
        "name",
        "namespace",
        "owner",
        "role",
        "spec-hash",
        "turn",
        "uid",
      ].map((key) => `bot-bottle.dev/${key}`),
    );
  });
});

describeWith(["docker", "busybox", "root"], "docker backend: limits and refusals", () => {
  beforeAll(() => void ensureBusyboxImage());

  it("an agent that uses too much memory is shown as OOM", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared({ limits: { memoryBytes: 16 * 1024 * 1024 } });

    const { unit } = await bed.ran(blueprint, "exec dd if=/dev/zero of=/dev/null bs=64M count=1");

    expect(unit.exit).toEqual({ code: 137, oom: true });
  });

  it("an image that is nowhere is refused by name with what to do", async () => {
    await using bed = new DockerBed();

    const refused = await refusal(bed.backend.prepare(bed.blueprint({ image: "bot-bottle-test/absent:1" })));

    expect([refused.kind, refused.reason]).toEqual(["Invalid", "ImageNotFound"]);
    expect(refused.message).toContain('"bot-bottle-test/absent:1"');
    expect(refused.message).toContain("docker pull bot-bottle-test/absent:1");
  });

  it("a command that is not in the image is refused by name, also without a slash, and never started", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    for (const [index, command] of ["nowhere", "/no/such/program", "./nowhere", "/etc"].entries()) {
      const key = { turn: `t${index}`, attempt: 1 };
      await bed.backend.createAgent(blueprint, { ...key, argv: [command, "a private prompt"], env: {} });

      const refused = await refusal(bed.backend.startAgent({ uid: blueprint.uid, ...key }));

      expect([refused.kind, refused.reason], command).toEqual(["Invalid", "CommandNotFound"]);
      expect(refused.message).toContain(`"${command}"`);
      expect(refused.message).not.toContain("private");
    }
    expect((await bed.units(blueprint.uid)).filter((unit) => unit.role === "agent").map((unit) => unit.state)).toEqual(
      Array(4).fill("created"),
    );
  });

  it("a program that the agent wrote to its disk can be its command", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    await bed.ran(blueprint, "printf '#!/bin/sh\\nexit 3\\n' > /workspace/tool && chmod +x /workspace/tool");
    const key = { turn: "2", attempt: 1 };

    await bed.backend.createAgent(blueprint, { ...key, argv: ["./tool"], env: {} });
    await bed.backend.startAgent({ uid: blueprint.uid, ...key });

    const unit = await bed.until(blueprint.uid, (found) => found.turn?.turn === "2" && found.state === "exited");
    expect(unit.exit).toEqual({ code: 3, oom: false });
  });

  it("an unknown runtime is the user's to correct", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared({ runtime: "nowhere" });
    const run = { turn: "1", attempt: 1, argv: ["/bin/true"], env: {} };

    const refused = await refusal(
      bed.backend
        .createAgent(blueprint, run)
        .then(() => bed.backend.startAgent({ uid: blueprint.uid, turn: "1", attempt: 1 })),
    );

    expect(refused.kind).toBe("Invalid");
    expect(refused.message).toContain("nowhere");
  });

  it("an engine that is not there is Unavailable, and says what to type", async () => {
    await using bed = new DockerBed({ socketPath: "/nowhere/docker.sock" });

    const found = await bed.backend.available();
    const refused = await refusal(bed.backend.observe());

    expect(found).toMatchObject({ ok: false });
    expect(JSON.stringify(found)).toContain("systemctl start docker");
    expect([refused.kind, refused.reason]).toEqual(["Unavailable", "EngineUnavailable"]);
  });
});

describeWith(["docker", "busybox", "root"], "docker backend: the disk", () => {
  beforeAll(() => void ensureBusyboxImage());

  it("volumes of a launch that died before they were handed over become the agent's", async () => {
    await using bed = new DockerBed();
    const blueprint = bed.blueprint();
    const dying = bed.another({
      failpoint: (label) => {
        if (label.startsWith("container.")) throw new Error("the process ends here");
      },
    });
    await expect(dying.prepare(blueprint)).rejects.toThrow("the process ends here");
    expect(bed.leftovers()).toContain(`bb-${blueprint.uid}-home`);

    await bed.backend.prepare(blueprint);
    const { unit, text } = await bed.ran(
      blueprint,
      "stat -c '%u:%g %a' $HOME /workspace && touch $HOME/a /workspace/a",
    );

    expect(unit.exit?.code, text).toBe(0);
    expect(text).toBe("1000:1000 755\n1000:1000 755\n");
  });

  it("an image whose home belongs to root does not take an empty home from the agent", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    await bed.ran(blueprint, "true");
    await bed.ran(blueprint, "true", "2");

    expect((await bed.ran(blueprint, "stat -c %u $HOME /workspace", "3")).text).toBe("1000\n1000\n");
  });

  it("what is copied in belongs to the agent, whoever packed it, and existing directories keep their mode", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    await bed.ran(blueprint, "mkdir -m 700 $HOME/private");
    const tar = pack();
    tar.entry({ name: "./", type: "directory", mode: 0o777, uid: 0, gid: 0 });
    tar.entry({ name: "deep/er/file", mode: 0o4755, uid: 0, gid: 5 }, "text");
    tar.entry({ name: "link", type: "symlink", linkname: "deep/er/file", uid: 0 });
    tar.entry({ name: "hard", type: "link", linkname: "deep/er/file", uid: 0 });
    tar.entry({ name: "away", type: "symlink", linkname: "/usr/bin/python3", uid: 0 });
    tar.entry({ name: "climbing", type: "symlink", linkname: "../../../usr/bin/python3", uid: 0 });
    tar.finalize();

    await bed.backend.copyIn(blueprint.uid, `${HOME}/private`, Readable.from(tar));
    const { text } = await bed.ran(
      blueprint,
      "cd $HOME/private && stat -c '%u:%g %a %n' . deep deep/er deep/er/file && cat link hard && echo && readlink away && readlink climbing",
      "2",
    );

    expect(text.split("\n")).toEqual([
      "1000:1000 700 .",
      "1000:1000 755 deep",
      "1000:1000 755 deep/er",
      "1000:1000 755 deep/er/file",
      "texttext",
      "/usr/bin/python3",
      "/usr/bin/python3",
      "",
    ]);
  });

  it("archives that reach beyond the disk are refused, and nothing of ours stays behind", async () => {
    await using bed = new DockerBed();
    const blueprint = bed.blueprint();
    await bed.backend.createDisk(blueprint);
    const before = bed.leftovers();
    type Header = Parameters<ReturnType<typeof pack>["entry"]>[0];
    const bad: Header[][] = [
      [{ name: "../out" }],
      [{ name: "a/../../out" }],
      [{ name: "/etc/out" }],
      [{ name: "link", type: "link", linkname: "../../etc/passwd" }],
      [{ name: "link", type: "link", linkname: "not-in-the-archive" }],
      [{ name: "door", type: "symlink", linkname: "/home/agent" }, { name: "door/in" }],
      [{ name: "null", type: "character-device", devmajor: 1, devminor: 3 }],
      [{ name: "pipe", type: "fifo" }],
    ];
    for (const headers of bad) {
      const tar = pack();
      for (const header of headers) {
        if (header.type === undefined) tar.entry(header, "text");
        else tar.entry(header);
      }
      tar.finalize();

      const refused = await refusal(bed.backend.copyIn(blueprint.uid, WORKSPACE, Readable.from(tar)));

      expect([refused.kind, refused.reason], JSON.stringify(headers)).toEqual(["Invalid", "ArchiveRefused"]);
    }
    expect(bed.leftovers()).toEqual(before);
  });

  it("removing units and disk leaves nothing with the owner's label", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared();
    await bed.ran(blueprint, "true");
    for await (const _ of await bed.backend.copyOut(blueprint.uid, WORKSPACE)) continue;
    const ids = (await bed.units(blueprint.uid)).map((unit) => unit.id);

    await bed.backend.removeUnits(blueprint.uid, ids);
    for await (const _ of await bed.backend.copyOut(blueprint.uid, HOME)) continue;
    await bed.backend.removeDisk(blueprint.uid);

    expect(bed.leftovers()).toEqual([]);
  });
});
