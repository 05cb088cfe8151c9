import { beforeAll, expect, it } from "vitest";
import { TRUST_DIR } from "../../controller/ports/backend.ts";
import { archive } from "../contract/bottles.ts";
import { settings } from "../contract/guard-rules.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { DockerBed } from "./docker-bed.ts";

describeWith(["docker", "busybox", "root"], "docker backend: crashes", () => {
  beforeAll(() => void ensureBusyboxImage());

  it("a launch that dies at any request is finished by the next one", async () => {
    await using bed = new DockerBed();
    const run = {
      turn: "1",
      attempt: 1,
      argv: ["/bin/sh", "-c", "echo x >> /workspace/runs; wc -l < /workspace/runs"],
      env: {},
    };
    for (let point = 1; ; point += 1) {
      let count = 0;
      let died = false;
      // Nothing after the point happens either, on whichever of the parallel ways it would: the process is gone.
      const dying = bed.another({
        failpoint: (_label, phase) => {
          if (phase === "after") count += 1;
          died ||= count >= point;
          if (died) throw new Error("the process ends here");
        },
      });
      const blueprint = bed.blueprint();
      const launch = async (backend: typeof dying) => {
        await backend.prepare(blueprint);
        await backend.createAgent(blueprint, run);
        const { uid } = blueprint;
        const guard = (await backend.observe()).bottles.get(uid)?.units.find((unit) => unit.role === "guard");
        const unit = { uid, guardId: guard?.id ?? "" };
        const { caCertificate } = await backend.configureGuard(unit, settings("one"));
        await backend.copyIn(uid, TRUST_DIR, archive({ name: "ca.pem", bytes: caCertificate }));
        await backend.readAudit(unit, { cursor: "", waitMs: 0, linesMax: 1 });
        await backend.startAgent({ uid: blueprint.uid, turn: "1", attempt: 1 });
      };
      await launch(dying).catch(() => {});

      await launch(bed.backend);

      const unit = await bed.until(blueprint.uid, (found) => found.role === "agent" && found.state === "exited");
      expect(unit.exit, `died at request ${point}`).toEqual({ code: 0, oom: false });
      const units = await bed.units(blueprint.uid);
      expect(units.map(({ role }) => role).sort()).toEqual(["agent", "guard", "holder"]);
      const chunks: Uint8Array[] = [];
      for await (const chunk of bed.backend.logs({ uid: blueprint.uid, turn: "1", attempt: 1 }, { follow: false })) {
        chunks.push(chunk);
      }
      expect(Buffer.concat(chunks).toString().trim(), `died at request ${point}`).toBe("1");
      await bed.backend.removeUnits(
        blueprint.uid,
        units.map(({ id }) => id),
      );
      await bed.backend.removeDisk(blueprint.uid);
      if (!died) break;
    }
    expect(bed.leftovers()).toEqual([]);
  });
});
