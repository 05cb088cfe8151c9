import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { CONNECTIONS_MAX, DOORS, type Door } from "./doors.ts";

/** A stream of tokens may pause for minutes; an hour without one byte in either direction is a forgotten connection. */
const IDLE_MS_MAX = 3_600_000;

/**
 * Owns the bottle's network namespace and forwards the doors' ports to the guard's sockets, byte for byte. It reads nothing of what passes.
 * Connections made before the guard listens are closed; the probe waits for the guard, so an agent never sees that.
 */
export async function startHolder(options: { sockets: string; doors?: readonly Door[] }): Promise<Server[]> {
  const doors = options.doors ?? DOORS;
  return Promise.all(doors.map((door) => listen(door.port, join(options.sockets, door.socket))));
}

async function listen(port: number, socketPath: string): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => forward(client, socketPath));
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return server;
}

function forward(client: Socket, socketPath: string): void {
  const guard = connect({ path: socketPath, allowHalfOpen: true });
  pass(client, guard);
  pass(guard, client);
}

/** `pipe` passes on back-pressure and a half-close; a broken or idle end takes the other one with it. */
function pass(from: Socket, to: Socket): void {
  from.on("error", () => to.destroy());
  from.on("close", (hadError) => {
    if (hadError) to.destroy();
  });
  from.setTimeout(IDLE_MS_MAX, () => {
    from.destroy();
    to.destroy();
  });
  from.pipe(to);
}
