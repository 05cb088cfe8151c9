import { randomUUID } from "node:crypto";
import { createDockerBackend } from "../../backends/docker/index.ts";
import type { Backend } from "../../controller/ports/backend.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { backendContract } from "./backend-contract.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

backendContract("docker", ["docker", "busybox"], async () => {
  const image = ensureBusyboxImage();
  return { backend: installation(), stranger: installation(), image, close: async () => {} };
});

/** One more controller on this engine: runs of this test do not see each other. */
function installation(): Backend {
  return createDockerBackend({ owner: `test-${randomUUID()}`, now: Date.now, log: SILENT });
}
