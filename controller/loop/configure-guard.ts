import type { Bottle } from "../api/bottle.ts";
import type { Step } from "../plan/steps.ts";
import { BackendError, HOME, type Backend } from "../ports/backend.ts";
import type { Store } from "../ports/store.ts";
import type { Journals } from "./journals.ts";
import { trustArchive } from "./trust-files.ts";

type Configure = Extract<Step, { kind: "configureGuard" }>;

interface ConfigureTools {
  backend: Backend;
  store: Store;
  journals: Journals;
  now: () => number;
  signal: AbortSignal;
}

/**
 * Gives a guard its settings with the values of its secrets, which live no longer than this call, and the agent's home what to trust. On record is
 * only what was done: an agent that starts by the record starts behind its rules.
 */
export async function configureGuard(step: Configure, bottle: Bottle, tools: ConfigureTools): Promise<void> {
  const { backend, store, journals, signal } = tools;
  const { guardId, settings, trust } = step;
  const { uid, namespace } = bottle.metadata;
  const secrets = await secretValues(store, namespace, settings.secretRefs);
  const { caCertificate } = await backend.configureGuard({ uid, guardId }, { ...settings, secrets }, signal);
  if (trust) await backend.copyIn(uid, HOME, trustArchive(caCertificate), signal);
  await journals.append(uid, [{ type: "GuardConfigured", timeMs: tools.now(), guardId, digest: settings.digest }]);
}

async function secretValues(
  store: Store,
  namespace: string,
  ids: readonly string[],
): Promise<Readonly<Record<string, string>>> {
  const values: Record<string, string> = {};
  for (const id of ids) {
    const [name = "", key = ""] = splitOnce(id);
    const secret = await store.get("Secret", { namespace, name });
    const data = secret !== undefined && Object.hasOwn(secret.data, key) ? secret.data[key] : undefined;
    if (data === undefined) throw notFound(name, key, namespace);
    values[id] = textOf(Buffer.from(data, "base64"), { name, key });
  }
  return values;
}

/** A name holds no slash. */
function splitOnce(id: string): string[] {
  const slash = id.indexOf("/");
  return [id.slice(0, slash), id.slice(slash + 1)];
}

/** Values go into headers. A line break at the end came from a file or an `echo`, and would make every request fail far from here. */
function textOf(bytes: Uint8Array, { name, key }: { name: string; key: string }): string {
  const what = `key "${key}" of Secret "${name}"`;
  if (bytes.length === 0) {
    throw new BackendError("Invalid", "SecretInvalid", `${what} is empty: give it a value`);
  }
  const text = Buffer.from(bytes).toString("utf8");
  // oxlint-disable-next-line no-control-regex -- control characters are what this pattern is about
  if (/[\x00-\x08\x0a-\x1f\x7f\ufffd]/.test(text)) {
    const why = "holds a line break or bytes that are no text, which no header can carry";
    throw new BackendError("Invalid", "SecretInvalid", `${what} ${why}: store it without (printf, not echo)`);
  }
  return text;
}

function notFound(name: string, key: string, namespace: string): BackendError {
  const message = `Secret "${name}" with key "${key}" does not exist in namespace "${namespace}" any more: create it or correct secretRef`;
  return new BackendError("Invalid", "SecretNotFound", message);
}
