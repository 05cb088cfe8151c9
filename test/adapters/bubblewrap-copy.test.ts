import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import tar from "tar-stream";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createBubblewrapBackend } from "../../backends/bubblewrap/index.ts";
import { HOME, WORKSPACE } from "../../controller/ports/backend.ts";
import { archive, Bottles, failure, FIRST, GRACE_MS, unpacked } from "../contract/bottles.ts";
import { describeWith } from "../helpers/needs.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

describeWith(["bubblewrap"], "copies to and from a disk of the bubblewrap backend", () => {
  let stateDir = "";
  let outside = "";
  let suite: Bottles | undefined;
  const bottles = () => {
    if (suite === undefined) throw new Error("the suite has not begun");
    return suite;
  };
  const disk = (uid: string, path: string) => join(stateDir, uid, "disk", path);
  const imported = async () => {
    const blueprint = bottles().blueprint();
    await bottles().bed.backend.createDisk(blueprint);
    return blueprint.uid;
  };

  beforeAll(() => {
    stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-copy-"));
    outside = mkdtempSync(join(tmpdir(), "bot-bottle-outside-"));
    writeFileSync(join(outside, "secret"), "the host's");
    const options = { stateDir, owner: "us", now: Date.now, log: SILENT };
    const backend = createBubblewrapBackend(options);
    suite = new Bottles({ backend, stranger: backend, close: async () => {} });
  });
  afterAll(async () => {
    await suite?.removeAll();
    for (const dir of [stateDir, outside]) rmSync(dir, { recursive: true, force: true });
  });

  it("links that an agent planted lead a copy nowhere", async () => {
    const uid = await imported();
    const { backend } = bottles().bed;
    for (const target of [outside, "/", "/etc", "/proc/self/root", "../../../../../.."]) {
      rmSync(disk(uid, "workspace/door"), { force: true });
      symlinkSync(target, disk(uid, "workspace/door"));
      for (const directory of [`${WORKSPACE}/door`, `${WORKSPACE}/door/below`, `${WORKSPACE}/door${outside}`]) {
        await failure(backend.copyIn(uid, directory, archive({ name: "escaped", bytes: "x" })));
      }
      await failure(backend.copyIn(uid, WORKSPACE, archive({ name: "door/escaped", bytes: "x" })));
      for (const path of [
        `${WORKSPACE}/door/secret`,
        `${WORKSPACE}/door${outside}/secret`,
        `${WORKSPACE}/door/passwd`,
      ]) {
        expect((await failure(backend.copyOut(uid, path)))?.kind, `${target} ${path}`).toMatch(/NotFound|Invalid/);
      }
    }
    expect(readdirSync(outside)).toEqual(["secret"]);
  });

  it("a link itself comes out as a link", async () => {
    const uid = await imported();
    symlinkSync(join(outside, "secret"), disk(uid, "workspace/link"));

    const pack = await bottles().bed.backend.copyOut(uid, WORKSPACE);

    const found: (string | null | undefined)[][] = [];
    for await (const entry of pack.pipe(tar.extract())) {
      found.push([entry.header.name, entry.header.type, entry.header.linkname]);
      entry.resume();
    }
    expect(found).toContainEqual(["workspace/link", "symlink", join(outside, "secret")]);
  });

  it("a directory that an agent exchanges for a link all the time lets no copy out", async () => {
    const blueprint = await bottles().prepared();
    const { backend } = bottles().bed;
    const swap = `mkdir real; while :; do ln -sfn ${outside} door; rm -rf door; mkdir door; rmdir door; done`;
    await bottles().started(blueprint, { type: "missing" }, { argv: ["/bin/sh", "-c", `${swap} 2>/dev/null`] });

    for (let round = 0; round < 25; round += 1) {
      const entries = [
        { name: "door/escaped", bytes: "x" },
        { name: "door/deep/escaped", bytes: "x" },
      ];
      await failure(backend.copyIn(blueprint.uid, WORKSPACE, archive(...entries)));
      const read = await backend.copyOut(blueprint.uid, `${WORKSPACE}/door/secret`).catch(() => undefined);
      expect(read).toBeUndefined();
    }
    await backend.stopAgent({ uid: blueprint.uid, ...FIRST }, { graceMs: GRACE_MS });

    expect(readdirSync(outside)).toEqual(["secret"]);
  });

  it("what is copied in belongs to the agent, with its mode", async () => {
    const uid = await imported();
    const pack = tar.pack();
    pack.entry({ name: "run.sh", mode: 0o755, uid: 0, gid: 0 }, "#!/bin/sh\n");
    pack.finalize();

    await bottles().bed.backend.copyIn(uid, `${HOME}/new/place`, Readable.from(pack));

    const found = statSync(disk(uid, "home/new/place/run.sh"));
    expect(found.uid).toBe(statSync(disk(uid, "home")).uid);
    expect(found.uid).not.toBe(0);
    expect(found.mode & 0o777).toBe(0o755);
  });

  it("entries that are neither files nor directories nor links are refused, and hard links to other places", async () => {
    const uid = await imported();
    for (const header of [
      { name: "device", type: "character-device" as const },
      { name: "fifo", type: "fifo" as const },
      { name: "hard", type: "link" as const, linkname: "/etc/passwd" },
      { name: "hard", type: "link" as const, linkname: "../../etc/passwd" },
    ]) {
      const pack = tar.pack();
      pack.entry(header);
      pack.finalize();
      const refused = await failure(bottles().bed.backend.copyIn(uid, WORKSPACE, Readable.from(pack)));
      expect(refused?.kind, header.name).toBe("Invalid");
    }
    expect(readdirSync(disk(uid, "workspace"))).toEqual([]);
  });

  it("a large tree goes out of one disk and into another unchanged", async () => {
    const [from, to] = [await imported(), await imported()];
    mkdirSync(disk(from, "workspace/tree"));
    for (let index = 0; index < 300; index += 1) {
      writeFileSync(disk(from, `workspace/tree/${"long-name-".repeat(12)}${index}`), Buffer.alloc(10_000, index));
    }
    const { backend } = bottles().bed;

    await backend.copyIn(to, HOME, await backend.copyOut(from, `${WORKSPACE}/tree`));

    const names = readdirSync(disk(from, "workspace/tree"));
    expect(readdirSync(disk(to, "home/tree")).sort()).toEqual([...names].sort());
    for (const name of names) {
      expect(
        readFileSync(disk(to, `home/tree/${name}`)).equals(readFileSync(disk(from, `workspace/tree/${name}`))),
      ).toBe(true);
    }
    expect((await unpacked(await backend.copyOut(to, `${HOME}/tree`)))[0]?.name).toBe("tree/");
  });

  it("a caller that gives up ends the copy", async () => {
    const uid = await imported();
    const caller = new AbortController();
    const endless = new Readable({ read() {} });
    setImmediate(() => caller.abort());

    const refused = await failure(bottles().bed.backend.copyIn(uid, WORKSPACE, endless, caller.signal));

    expect(refused?.kind).toBe("Transient");
  });
});
