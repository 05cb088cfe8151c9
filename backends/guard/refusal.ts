/** What a refused request asked for, cut to lengths that are safe to send back. */
export interface RefusedTarget {
  host: string;
  port: number | null;
  method: string;
  path: string;
}

/** The body of every refusal. An agent reads it to learn what was refused, why, and how to ask for it. */
export interface Refusal extends RefusedTarget {
  rule: string;
  reason: string;
  howToAsk: string;
}

const FIELD_LENGTH_MAX = 1024;

export function refusal(target: RefusedTarget): Refusal {
  return {
    rule: "default-deny",
    ...target,
    reason: "no egress rule of this bottle allows this destination",
    howToAsk: "ask the person who runs this bottle to add an egress rule for this host to its template",
  };
}

export function notEnabled(door: string): { error: string; door: string; reason: string } {
  return { error: "not enabled", door, reason: `this bottle's guard does not offer ${door}` };
}

/** Reads the destination for the answer only; nothing is ever dialled from it. */
export function refusedTarget(request: {
  method?: string | undefined;
  url?: string | undefined;
  headers: { host?: string | undefined };
}): RefusedTarget {
  const method = cut(request.method ?? "");
  const url = request.url ?? "";
  const text =
    method === "CONNECT" ? `tunnel://${url}` : url.startsWith("/") ? `http://${request.headers.host}${url}` : url;
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed === undefined) return { host: "", port: null, method, path: method === "CONNECT" ? "" : cut(url) };
  const path = method === "CONNECT" ? "" : cut(parsed.pathname + parsed.search);
  return { host: cut(parsed.hostname), port: portOf(parsed), method, path };
}

function portOf(url: URL): number | null {
  if (url.port !== "") return Number(url.port);
  if (url.protocol === "http:") return 80;
  return url.protocol === "https:" ? 443 : null;
}

function cut(text: string): string {
  return text.slice(0, FIELD_LENGTH_MAX);
}
