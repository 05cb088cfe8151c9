import { EventEmitter, once } from "node:events";
import { lstatSync, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createAuditJournal } from "./audit-journal.ts";
import type { Authority } from "./authority.ts";
import { CONTROL_SOCKET } from "./control-protocol.ts";
import { serveControl, type ControlParts } from "./control.ts";
import { DOORS, type Door } from "./doors.ts";
import { createRole, type RoleParts } from "./roles.ts";
import { createSettingsHolder } from "./settings.ts";

export interface GuardOptions extends Pick<RoleParts, "hostAddresses" | "dns" | "upstreamCa" | "extraCa"> {
  /** Directory of the doors' sockets, and of the control channel's if that is a socket. */
  sockets: string;
  /** Directory of the audit, for this guard alone. */
  audit: string;
  control: "stdio" | "socket";
  /** Doors that this guard listens at. Absent: all. */
  roles?: readonly Door["name"][] | undefined;
}

export interface Guard {
  servers: readonly Server[];
  close(): Promise<void>;
}

const CONTROL_CLIENTS_MAX = 8;
const now = (): number => Date.now();

/** The bottle's guard. Until it is configured it refuses everything: it resolves no name and opens no connection. */
export async function startGuard(options: GuardOptions): Promise<Guard> {
  // Set before the first socket exists: a socket made with a wider mode and narrowed later is open in between.
  process.umask(0o177);
  const settings = createSettingsHolder();
  const audit = createAuditJournal({ dir: options.audit, now });
  const progress = new EventEmitter();
  const authority = once(progress, "open").then(makeAuthority);
  // Whoever needs it is told of a failure; until then it is nobody's.
  authority.catch(() => {});
  const parts = { ...options, settings, audit, authority, now };
  const sockets = new Set<Socket>();
  const doors = DOORS.filter(({ name }) => options.roles === undefined || options.roles.includes(name));
  const servers = await Promise.all([
    ...doors.map(async (door) => listen(await createRole(door, parts), join(options.sockets, door.socket))),
    ...openControl(parts, options),
  ]);
  progress.emit("open");
  for (const server of servers) follow(server, sockets);
  const close = async (): Promise<void> => {
    const closed = servers.map((server) => new Promise((resolve) => server.close(resolve)));
    for (const socket of sockets) socket.destroy();
    await Promise.all(closed);
    audit.close();
  };
  return { servers, close };
}

/** Made when the doors are open, because the library takes longer to load than they do; settings come later than that, and need not wait. */
async function makeAuthority(): Promise<Authority> {
  const { createAuthority } = await import("./authority.ts");
  return createAuthority({ now });
}

function openControl(parts: ControlParts, options: GuardOptions): Promise<Server>[] {
  if (options.control === "stdio") {
    serveControl(parts, { input: process.stdin, output: process.stdout });
    return [];
  }
  const server = createServer((client) => serveControl(parts, { input: client, output: client }));
  server.maxConnections = CONTROL_CLIENTS_MAX;
  return [listen(server, join(options.sockets, CONTROL_SOCKET))];
}

async function listen(server: Server, path: string): Promise<Server> {
  removeStale(path);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  return server;
}

/** Keep-alive connections and tunnels would keep a server from closing for as long as their clients like. */
function follow(server: Server, sockets: Set<Socket>): void {
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
}

/** A guard that was killed leaves its sockets behind, and a path that exists cannot be listened on. */
function removeStale(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new Error(`cannot listen on "${path}": it exists and is not a socket; remove it`);
  unlinkSync(path);
}
