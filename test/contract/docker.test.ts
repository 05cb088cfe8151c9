import { randomUUID } from "node:crypto";
import { createDockerBackend } from "../../backends/docker/index.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { backendContract } from "./backend-contract.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

backendContract("docker", ["docker", "busybox"], async () => {
  const image = ensureBusyboxImage();
  const create = () => createDockerBackend({ owner: `test-${randomUUID()}`, now: Date.now, log: SILENT });
  return { backend: create(), stranger: create(), image, close: async () => {} };
});
