import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { docker, DockerBed } from "./docker-bed.ts";

describeWith(["docker", "busybox", "root"], "docker backend: what an engine that was stopped left behind", () => {
  beforeAll(() => void ensureBusyboxImage());

  it("an empty volume that a stopped engine left without its labels is made anew, one with content is left alone", async () => {
    await using bed = new DockerBed();
    const blueprint = bed.blueprint();
    for (const part of ["home", "sockets"]) docker("volume", "create", `bb-${blueprint.uid}-${part}`);

    await bed.backend.prepare(blueprint);
    const view = (await bed.backend.observe()).bottles.get(blueprint.uid);

    expect(view?.disk.map((part) => part.part).toSorted()).toEqual(["home", "sockets", "workspace"]);
    const other = bed.blueprint();
    const full = `bb-${other.uid}-home`;
    const mount = docker("volume", "inspect", "-f", "{{.Mountpoint}}", docker("volume", "create", full));
    writeFileSync(join(mount, "kept"), "text");
    await expect(bed.backend.prepare(other)).rejects.toMatchObject({ reason: "ForeignObject" });
    expect(readdirSync(mount)).toEqual(["kept"]);
    docker("volume", "rm", full);
  });
});
