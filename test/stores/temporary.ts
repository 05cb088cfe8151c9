import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Admission } from "../../controller/ports/store.ts";
import { openDatabase, type OpenedDatabase, type OpenOptions } from "../../controller/stores/sqlite/open-database.ts";

export const admitAll: Admission = (_kind, object) => object;

export interface TemporaryFolder {
  path: string;
  file: string;
  remove(): void;
}

export function temporaryFolder(): TemporaryFolder {
  const path = mkdtempSync(join(tmpdir(), "bot-bottle-store-"));
  return {
    path,
    file: join(path, "state", "store.db"),
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

export function open(file: string, options: Partial<OpenOptions> = {}): OpenedDatabase {
  return openDatabase({ file, admission: admitAll, now: Date.now, ...options });
}

/** A store on a file of its own that is gone after `dispose`. */
export function openTemporary(options: Partial<OpenOptions> = {}) {
  const folder = temporaryFolder();
  const opened = open(folder.file, options);
  async function dispose(): Promise<void> {
    opened.close();
    folder.remove();
  }
  return { ...opened, file: folder.file, dispose };
}
