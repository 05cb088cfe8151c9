/** Names questions to a person. The same question has the same ticket, so that an agent that tries again does not ask twice. */
export interface Tickets {
  of(question: string): string;
}

const TICKETS_MAX = 256;

export function createTickets(randomId: () => string): Tickets {
  /** In order of use. */
  const known = new Map<string, string>();
  return {
    of(question) {
      const ticket = known.get(question) ?? randomId();
      known.delete(question);
      known.set(question, ticket);
      for (const oldest of known.keys()) {
        if (known.size <= TICKETS_MAX) break;
        known.delete(oldest);
      }
      return ticket;
    },
  };
}
