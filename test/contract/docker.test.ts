import { randomUUID } from "node:crypto";
import { createDockerBackend } from "../../backends/docker/index.ts";
import type { Backend } from "../../controller/ports/backend.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { ensureToolsImage } from "../helpers/tools-image.ts";
import { backendContract } from "./backend-contract.ts";
import type { Bed } from "./bottles.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

const bed = async (): Promise<Bed> => {
  const owner = `test-${randomUUID()}`;
  return {
    backend: controller(owner),
    another: () => controller(owner),
    stranger: controller(`test-${randomUUID()}`),
    image: ensureBusyboxImage(),
    toolsImage: ensureToolsImage(),
    close: async () => {},
  };
};

backendContract("docker", ["docker", "busybox", "curl"], bed, { guard: "Program" });

/** One more controller on this engine: runs of this test do not see each other. */
function controller(owner: string): Backend {
  return createDockerBackend({ owner, now: Date.now, log: SILENT });
}
