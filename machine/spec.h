/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM is made of: one struct, one text form (TOML), for the command, the
 * library and the process that runs the VM.
 *
 *   engine = "auto"            # kvm, dbt, or whichever works
 *   cpus = 1
 *   memory = 536870912         # bytes, a multiple of 2 MiB
 *   kernel = "/path/vmlinuz"   # bzImage or vmlinux
 *   cmdline = "quiet"
 *   initrd = ["/path/a"]       # put together in this order
 *   restore = "/path"          # snapshot to go on from (machine/snapshot.h), optional
 *   stream = "5252:1073741824"  # of that: the one that the owner wants, by its ports; default: any of the agent's
 *   no_code = false            # nor take what is in the snapshot for that
 *   code = "/path"             # what the engine kept for that, or for a boot (machine/code_file.h), optional
 *   guest_conf = "root=..."    # /roux.conf of the guest (abi/guest_conf.h), optional
 *   vsock = true
 *   balloon = false            # virtio-balloon: free memory goes back to the host
 *   balloon_yield = false      # a guest short of memory may take back what it was asked to give up
 *   merge = false              # the host may merge pages with those of others (KSM)
 *   gdb_port = 1234            # GDB may connect to 127.0.0.1:1234 (0: a free port), optional
 *   gdb_wait = false           # do not start before GDB says so
 *
 *   [[share]]                  # virtio-fs
 *   tag = "root"
 *   path = "/some/folder"
 *   read_only = true
 *   cache = "always"           # always, auto, none
 *
 *   [[disk]]                   # virtio-blk: vda, vdb, ...
 *   path = "/some/image"
 *   read_only = false
 *   overlay = true             # writes go to memory and are thrown away
 *   layer = "/some/layer"      # or to this file (block/block.h), which is there; optional
 *   more = ["/another"]        # files that follow on the first, in one read-only disk
 *
 *   [[net]]                    # virtio-net
 *   kind = "tap"               # tap, user, named
 *   name = "tap0"              # of the TAP device, or the network
 *   mac = "52:54:00:12:34:56"
 *   mtu = 1500
 *   pcap = "/path"             # what passes is written there, optional
 *   send_bytes = 0             # limits per second, 0: none; by the guest
 *   send_frames = 0
 *   receive_bytes = 0
 *   receive_frames = 0
 *                              # named only (machine/networks.h):
 *   socket = "/path"           # of the switch
 *   token = "0123..."          # of the place that is reserved there
 *   internal = false           # there is no way out
 *                              # user and named:
 *   guest = ["10.0.2.15/24"]   # its addresses, gateways and where it looks names up,
 *   gateway = ["10.0.2.2"]     # each for IPv4 and IPv6
 *   dns = ["10.0.2.3"]
 *   domain = "example"         # optional, as is what DHCP calls the guest:
 *   hostname = "guest"
 *   nameserver = ["192.0.2.1"] # of the host
 *   publish = ["8080:80"]      # link/user.h
 *   egress = ["deny any"]      # link/policy.h
 *   host_loopback = false
 */
#ifndef MACHINE_SPEC_H
#define MACHINE_SPEC_H

#include "link/link.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define SPEC_SHARES_MAX 16
#define SPEC_DISKS_MAX 8
#define SPEC_INITRDS_MAX 4
#define SPEC_PARTS_MAX 512	/* files of one disk */
#define SPEC_NETS_MAX 4
#define SPEC_TEXT_MAX 65536	/* bytes of the text form */

enum spec_cache { SPEC_CACHE_AUTO, SPEC_CACHE_ALWAYS, SPEC_CACHE_NONE };

/* A list of strings that grows. */
struct spec_list {
	char **at;
	unsigned n;
};

/* All strings are owned by the spec; NULL means not given. */
struct spec_share {
	char *tag, *path;
	bool read_only;
	enum spec_cache cache;
};

struct spec_disk {
	char *path, *layer;
	struct spec_list more;	/* files that follow on @path */
	bool read_only, overlay;
};

enum spec_net_kind { SPEC_NET_TAP, SPEC_NET_USER, SPEC_NET_NAMED };

struct spec_net {
	enum spec_net_kind kind;
	char *name, *pcap;
	uint8_t mac[6];
	uint16_t mtu;	/* bytes */
	struct link_limits send, receive;
	struct spec_list guest, gateway, dns, nameserver, publish, egress;
	char *domain, *hostname, *socket, *token;
	bool host_loopback, internal;
};

/* Adds a copy of @text.  0 or -ENOMEM. */
int spec_list_add(struct spec_list *list, const char *text);

struct machine_spec {
	char *engine;	/* NULL: auto */
	unsigned cpus;
	uint64_t memory;	/* bytes */
	char *kernel, *cmdline, *guest_conf;
	char *restore;	/* of a snapshot: the guest goes on from there instead of booting */
	char *code;	/* of what the engine kept for it, or without it for a boot */
	bool no_code;	/* what is in the snapshot is not ours */
	char *stream;	/* "GUEST:HOST" ports of the restored guest's connection that is wanted first */
	struct spec_list initrd;	/* at most SPEC_INITRDS_MAX */
	struct spec_share share[SPEC_SHARES_MAX];
	unsigned nshares;
	struct spec_disk disk[SPEC_DISKS_MAX];
	unsigned ndisks;
	struct spec_net net[SPEC_NETS_MAX];
	unsigned nnets;
	bool vsock;
	bool balloon, balloon_yield, merge;
	bool gdb, gdb_wait;	/* @gdb: gdb_port is given */
	uint16_t gdb_port;
};

/* Defaults: auto, 1 vCPU, 512 MiB. */
void machine_spec_init(struct machine_spec *spec);
void machine_spec_finish(struct machine_spec *spec);	/* frees the strings */

/* Checks ranges and required parts.  0 or -EINVAL with a sentence. */
int machine_spec_check(const struct machine_spec *spec, struct err *err);

/* The text form: malloc()ed, NUL-terminated; NULL when out of memory. */
char *machine_spec_text(const struct machine_spec *spec);

/* Reads the text form into an initialised spec.  0, -EINVAL with the line, -ENOMEM. */
int machine_spec_read(struct machine_spec *spec, const char *text, size_t len, struct err *err);

#endif /* MACHINE_SPEC_H */
