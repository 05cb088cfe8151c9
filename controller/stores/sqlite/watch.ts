import { StatusError } from "../../api/errors.ts";
import type { KindMap, KindName } from "../../api/kinds.ts";
import type { Store, WatchEvent } from "../../ports/store.ts";
import type { Changes } from "./changes.ts";
import type { Connection } from "./connection.ts";
import { parseEntity } from "./entity.ts";
import type { Change, History } from "./history.ts";

/** Half of what the port promises, so that a bookmark is in time on a busy machine too. */
const BOOKMARK_MS = 5_000;
/** A watcher holds at most one page: a slow one reads the rest from the file when it gets there. */
const PAGE_CHANGES_MAX = 256;
const PAGE_CHARACTERS_MAX = 1_048_576;

interface Parts {
  connection: Connection;
  history: History;
  changes: Changes;
}

interface Page {
  changes: Change[];
  /** Everything up to here was looked at. */
  upTo: number;
}

/** Watches read the log of the file, so they see the writes of all processes, and nothing falls between two reads. */
export function openWatch(parts: Parts): Store["watch"] {
  return (kinds, options) => follow(parts, kinds, options);
}

async function* follow<K extends KindName>(
  { connection, history, changes }: Parts,
  kinds: readonly K[],
  options: { resourceVersion: string; signal: AbortSignal },
): AsyncGenerator<WatchEvent<KindMap[K]>> {
  const { signal } = options;
  let version = parseVersion(options.resourceVersion);
  let bookmarkAt = performance.now() + BOOKMARK_MS;
  while (!signal.aborted && !changes.isClosed()) {
    const { mark, page } = await connection.read(() => ({
      mark: changes.mark(),
      page: readPage(history, version, kinds),
    }));
    for (const change of page.changes) {
      if (signal.aborted) return;
      yield { type: change.type, object: parseEntity(change) as unknown as KindMap[K] };
    }
    version = page.upTo;
    if (page.changes.length > 0) {
      bookmarkAt = performance.now() + BOOKMARK_MS;
      continue;
    }
    await changes.wait(mark, { timeoutMs: Math.max(bookmarkAt - performance.now(), 0), signal });
    if (performance.now() < bookmarkAt || signal.aborted || changes.isClosed()) continue;
    yield { type: "BOOKMARK", resourceVersion: String(version) };
    bookmarkAt = performance.now() + BOOKMARK_MS;
  }
}

function readPage(history: History, after: number, kinds: readonly string[]): Page {
  const changes: Change[] = [];
  let characters = 0;
  for (const change of history.after(after, kinds)) {
    changes.push(change);
    characters += change.body.length;
    if (changes.length >= PAGE_CHANGES_MAX || characters >= PAGE_CHARACTERS_MAX) {
      return { changes, upTo: change.version };
    }
  }
  return { changes, upTo: history.head() };
}

function parseVersion(text: string): number {
  const version = Number(text);
  if (/^[0-9]+$/.test(text) && Number.isSafeInteger(version)) return version;
  const quoted = JSON.stringify(text.slice(0, 80));
  throw new StatusError("BadRequest", `cannot watch from resourceVersion ${quoted}: take one from a list or an object`);
}
