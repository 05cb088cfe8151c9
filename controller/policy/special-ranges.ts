/**
 * What kind of place an address is. Public is the only kind that needs no CIDR of a rule; Metadata are the services that hand
 * credentials of a machine to whoever asks from it.
 */
export type AddressClass = "Public" | "Loopback" | "Private" | "LinkLocal" | "Metadata" | "Multicast" | "Reserved";

/** Where clouds serve credentials and start-up data, and what they use to talk to their machines. */
export const METADATA_ADDRESSES: readonly string[] = [
  "169.254.169.254", // AWS, GCP, Azure, Oracle, DigitalOcean, OpenStack
  "169.254.170.2", // AWS: credentials of an ECS task
  "169.254.170.23", // AWS: credentials of an EKS pod
  "169.254.0.23", // Tencent
  "100.100.100.200", // Alibaba
  "168.63.129.16", // Azure: host agent
  "192.0.0.192", // Oracle
  "fd00:ec2::254", // AWS
  "fd00:ec2::23", // AWS: credentials of an EKS pod
  "fd20:ce::254", // GCP
  "fd00:c1::a9fe:a9fe", // Oracle
  "fd00:42::42", // Scaleway
  "fe80::a9fe:a9fe", // OpenStack
];

/**
 * The special-purpose registries of IANA for IPv4 and IPv6, and what follows from them. The first network that holds an
 * address decides. Special networks that would be reachable (anycast of AS112, AMT, ORCHID) are Reserved too: nothing an
 * agent needs is there.
 */
export const SPECIAL_RANGES: readonly (readonly [network: string, kind: AddressClass])[] = [
  ["0.0.0.0/8", "Reserved"],
  ["10.0.0.0/8", "Private"],
  ["100.64.0.0/10", "Private"],
  ["127.0.0.0/8", "Loopback"],
  ["169.254.0.0/16", "LinkLocal"],
  ["172.16.0.0/12", "Private"],
  ["192.0.0.0/24", "Reserved"],
  ["192.0.2.0/24", "Reserved"],
  ["192.31.196.0/24", "Reserved"],
  ["192.52.193.0/24", "Reserved"],
  ["192.88.99.0/24", "Reserved"],
  ["192.168.0.0/16", "Private"],
  ["192.175.48.0/24", "Reserved"],
  ["198.18.0.0/15", "Reserved"],
  ["198.51.100.0/24", "Reserved"],
  ["203.0.113.0/24", "Reserved"],
  ["224.0.0.0/4", "Multicast"],
  ["240.0.0.0/4", "Reserved"],
  ["0.0.0.0/0", "Public"],
  ["::1/128", "Loopback"],
  ["64:ff9b::/96", "Public"],
  ["64:ff9b:1::/48", "Private"],
  ["2001::/23", "Reserved"],
  ["2001:db8::/32", "Reserved"],
  ["2002::/16", "Reserved"],
  ["2620:4f:8000::/48", "Reserved"],
  ["3fff::/20", "Reserved"],
  ["2000::/3", "Public"],
  ["fc00::/7", "Private"],
  ["fec0::/10", "Private"],
  ["fe80::/10", "LinkLocal"],
  ["ff00::/8", "Multicast"],
  // Outside 2000::/3 nothing is given out as global unicast: what is not named above cannot be meant.
  ["::/0", "Reserved"],
];

/** Where an IPv4 address hides in an IPv6 one: the network, and the places of its four bytes; Teredo turns the client's bits round. */
export const EMBEDDINGS: readonly { network: string; bytes: readonly number[]; inverted?: true }[] = [
  { network: "::/96", bytes: [12, 13, 14, 15] }, // compatible
  { network: "::ffff:0:0/96", bytes: [12, 13, 14, 15] }, // mapped
  { network: "::ffff:0:0:0/96", bytes: [12, 13, 14, 15] }, // translated
  { network: "64:ff9b::/96", bytes: [12, 13, 14, 15] }, // NAT64
  // The operator chooses how long the NAT64 prefix is (RFC 6052), so every place is looked into.
  { network: "64:ff9b:1::/48", bytes: [12, 13, 14, 15] },
  { network: "64:ff9b:1::/48", bytes: [6, 7, 9, 10] },
  { network: "64:ff9b:1::/48", bytes: [7, 9, 10, 11] },
  { network: "64:ff9b:1::/48", bytes: [9, 10, 11, 12] },
  { network: "2002::/16", bytes: [2, 3, 4, 5] }, // 6to4
  { network: "2001::/32", bytes: [4, 5, 6, 7] }, // Teredo: server
  { network: "2001::/32", bytes: [12, 13, 14, 15], inverted: true }, // Teredo: client
];
