/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of a machine apart from its RAM: processors, interrupt controllers, clock, platform,
 * serial port and devices, in that order (the encoding is in state.c, and under the version
 * of machine/snapshot.h).
 */
#ifndef MACHINE_STATE_H
#define MACHINE_STATE_H

#include <stddef.h>
#include <stdint.h>

struct blob;
struct blob_reader;
struct cpuid_table;
struct err;
struct platform;
struct serial;
struct virtio_mmio;
struct vm;

/* What a machine is made of, all borrowed. */
struct state_parts {
	struct vm *vm;
	struct platform *platform;
	struct serial *serial;
	struct virtio_mmio *const *mmio;
	unsigned nmmio;
};

/* Appends to @out; vCPUs and devices are paused.  0 or a negative errno with a sentence; check out->failed too. */
int state_save(const struct state_parts *parts, struct blob *out, struct err *err);

/*
 * Takes state over, before vCPUs run; guest memory holds its saved contents already.  0, 1 when
 * something on the host that the guest knows, a file, is another by now, 2 when the guest cannot find that out by
 * itself, -EINVAL
 * when it is of another machine or garbage, -ENOTSUP when this host's processor is not
 * like the one it is from, with a sentence.
 */
int state_restore(const struct state_parts *parts, struct blob_reader *in, struct err *err);

/* The CPUID of a saved guest, for vm_create_as().  0, or -EINVAL when that is no state. */
int state_cpuid(const uint8_t *state, size_t len, struct cpuid_table *ret_table);

/* Calls @fn for each part of a saved state, which may be garbage, in order.  0, or -EINVAL when it is no state to its end. */
typedef void (*state_part_fn)(void *ctx, const char *name, const uint8_t *bytes, size_t len);
int state_each(const uint8_t *state, size_t len, state_part_fn fn, void *ctx);

#endif /* MACHINE_STATE_H */
