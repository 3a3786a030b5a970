/* SPDX-License-Identifier: Apache-2.0 */
/* What machine.c and save.c share: the struct behind machine/machine.h. */
#ifndef MACHINE_INSIDE_H
#define MACHINE_INSIDE_H

#include "machine/machine.h"

#include "machine/confine.h"
#include "machine/snapshot.h"
#include "machine/spec.h"
#include "machine/worker.h"
#include "vmm/vm.h"

struct virtio_device;
struct virtio_mmio;

#define DEVICES_MAX (SPEC_SHARES_MAX + SPEC_DISKS_MAX + SPEC_NETS_MAX + 3)

struct slot {
	struct machine *machine;
	struct virtio_device *dev;
	struct virtio_mmio *mmio;
	unsigned gsi;
};

/* A named network, by its number in the spec.  Its link belongs to the device. */
struct named {
	struct machine *machine;
	struct link *link;	/* NULL: it is none */
	int fd;	/* to a new switch, on its way to the link's thread; -1: none.  Atomic */
};

struct machine {
	struct loop *loop;	/* borrowed */
	struct machine_events events;
	const struct engine_ops *engine;
	struct mem *mem;
	struct vm *vm;
	struct platform *platform;
	struct serial *serial;
	struct virtio_device *vsock, *balloon;	/* borrowed from their slots; NULL: none */
	struct slot slot[DEVICES_MAX];
	unsigned nslots;
	struct {
		struct virtio_device *dev;	/* borrowed from its slot */
		void *map;	/* owned, of machine_watch(); NULL: none */
		size_t map_len;
	} disk[SPEC_DISKS_MAX];
	struct virtio_device *share[SPEC_SHARES_MAX];	/* borrowed from their slots */
	struct debugger *debugger;	/* NULL unless the spec has a port for GDB */
	struct named named[SPEC_NETS_MAX];
	struct counts *counts;	/* NULL without networks */
	int counts_fd;	/* -1: given away or none */
	struct broker *broker;	/* sockets of user networks */
	struct worker io, net;	/* file systems and disks; networks */
	struct jail *jail;	/* borrowed, NULL: none */
	struct confine confine;	/* under which the threads come with a jail */
	struct vm_end end;
	bool stands;	/* from machine_stand() to machine_go_on() */
	struct {	/* from machine_checkpoint() to machine_stand() */
		uint64_t *bitmap;	/* owned, of pages yet to be sent; NULL: it is not being saved */
		int fd;	/* owned, -1: none */
		struct snapshot_id id;	/* until machine_go_on() */
	} saving;
	uint64_t interrupts;	/* of vCPUs when machine_is_idle() last looked */
	struct {	/* that was saved last, or that it came from */
		const uint8_t *memory;	/* owned mapping; no file is open in the jail.  NULL: none */
		struct snapshot_id id;
		uint32_t generation;	/* of the file with code */
		bool let_go;	/* of its memory, which machine_hold_snapshot() brings back */
	} snapshot;
	struct {	/* that this machine began with */
		bool recorded;
		uint32_t generation;	/* of the file with code for it, 0: there was none */
	} boot;
};

/*
 * Opens the snapshot of @spec, whose engine becomes the machine's: it was tried once.  0 or a negative
 * errno with a sentence; @ret_snapshot is to be closed then too.
 */
int machine_open_snapshot(struct machine *machine, const struct machine_spec *spec, struct snapshot *ret_snapshot,
			  struct err *err);

/* The VM of a guest from there: the processor that it has known. */
int machine_make_vm(struct machine *machine, const struct snapshot *snapshot, const struct machine_spec *spec, struct err *err);

/* State from @snapshot, of @spec, into a machine whose memory is from there already. */
int machine_restore(struct machine *machine, struct snapshot *snapshot, const struct machine_spec *spec, struct err *err);

/* Before the guest is loaded: what the engine has of other boots, and is to note of this one. */
void machine_expect_boot(struct machine *machine, const struct machine_spec *spec);

/* Ends all machine_watch(). */
void machine_watch_none(struct machine *machine);

/* There is none any more that machine_keep() could be for. */
void machine_forget_snapshot(struct machine *machine);

#endif /* MACHINE_INSIDE_H */
