/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of a machine apart from its RAM: processors, interrupt controllers, clock, platform,
 * serial port and devices, in that order (the encoding is in state.c, and under the version
 * of machine/snapshot.h).
 */
#ifndef MACHINE_STATE_H
#define MACHINE_STATE_H

struct blob;
struct blob_reader;
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
 * something on the host that the guest knows, a file, is another by now, -EINVAL
 * when it is of another machine or garbage, -ENOTSUP when this host's processor is not
 * like the one it is from, with a sentence.
 */
int state_restore(const struct state_parts *parts, struct blob_reader *in, struct err *err);

#endif /* MACHINE_STATE_H */
