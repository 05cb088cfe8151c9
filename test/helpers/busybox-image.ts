import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The agent image of tests with the Docker Engine: one static busybox, made here because no image can be pulled on a closed network. */
export const BUSYBOX_IMAGE = "bot-bottle-test/busybox:1";

export function ensureBusyboxImage(): string {
  if (spawnSync("docker", ["image", "inspect", BUSYBOX_IMAGE]).status === 0) return BUSYBOX_IMAGE;
  const root = mkdtempSync(join(tmpdir(), "bot-bottle-busybox-"));
  try {
    mkdirSync(join(root, "bin"));
    copyFileSync("/bin/busybox", join(root, "bin/busybox"));
    const applets = execFileSync("busybox", ["--list"], { encoding: "utf8" })
      .split("\n")
      .filter((name) => name !== "" && name !== "busybox");
    for (const applet of applets) symlinkSync("busybox", join(root, "bin", applet));
    execFileSync("sh", ["-c", `tar -C '${root}' -c . | docker import -c 'ENV PATH=/bin' - ${BUSYBOX_IMAGE}`], {
      stdio: "pipe",
    });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
  return BUSYBOX_IMAGE;
}
