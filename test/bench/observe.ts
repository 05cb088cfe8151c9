import { execFile } from "node:child_process";
import { tmpdir } from "node:os";
import { promisify } from "node:util";
import { ownerFilter } from "../../backends/docker/names.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { makeBottles } from "./many-bottles.ts";
import { limited, type Measurement } from "./measurement.ts";

const BOTTLES = 100;
const RUNNING = 5;
const ROUNDS = 41;

/** One look at a hundred bottles, against the two lists by the docker command line. */
export async function benchObserve(): Promise<Measurement[]> {
  const image = ensureBusyboxImage();
  const bottles = await makeBottles({ count: BOTTLES, running: RUNNING, image, stateDir: tmpdir() });
  try {
    const filter = `label=${ownerFilter(bottles.context.owner)}`;
    const ours: number[] = [];
    const peer: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const began = performance.now();
      const seen = await bottles.backend.observe();
      const looked = performance.now();
      const lists = await Promise.all([
        promisify(execFile)("docker", ["ps", "-a", "-q", "--filter", filter]),
        promisify(execFile)("docker", ["volume", "ls", "-q", "--filter", filter]),
      ]);
      const listed = performance.now();
      ours.push(looked - began);
      peer.push(listed - looked);
      const counts = lists.map(({ stdout }) => stdout.trim().split("\n").length);
      if (seen.bottles.size !== BOTTLES || counts.some((count) => count !== 3 * BOTTLES)) {
        throw new Error(`saw ${seen.bottles.size} bottles and ${counts.join(" and ")} objects`);
      }
    }
    return [limited(`observe of ${BOTTLES} bottles, p50, ms`, { ours, peer }, { atMost: 15, unit: "ms" })];
  } finally {
    await bottles.end();
  }
}
