/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address decoding for memory-mapped and port I/O.
 *
 * A bus maps address ranges to device callbacks.  Callbacks run on the vCPU
 * thread that made the access, possibly on several at once: a device locks what
 * it shares and never blocks (long work goes to its event loop).
 *
 * Ranges and doorbells are added while no vCPU runs and stay as long as the bus.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct err;

struct bus_ops {
	/* Required.  @size is 1, 2, 4 or 8 bytes; @off is relative to the range.
	 * The access lies inside the range.  Returns the value, zero-extended. */
	uint64_t (*read)(void *dev, uint64_t off, unsigned size);
	/* Required.  Only the low @size bytes of @value are set. */
	void (*write)(void *dev, uint64_t off, unsigned size, uint64_t value);
};

struct bus_range {
	uint64_t base, size;
	const struct bus_ops *ops;
	void *dev;	/* borrowed */
	const char *name;	/* borrowed, for messages */
};

/* A write of any value to @addr only signals an eventfd, without a callback. */
struct bus_doorbell {
	uint64_t addr;
	unsigned size;	/* bytes, 1..8 */
	bool match;	/* only when the written value equals @value */
	uint64_t value;
	int fd;	/* eventfd, borrowed */
};

#define BUS_RANGES_MAX 128
#define BUS_DOORBELLS_MAX 256

struct bus {
	struct bus_range range[BUS_RANGES_MAX];	/* sorted by base */
	unsigned nranges;
	struct bus_doorbell doorbell[BUS_DOORBELLS_MAX];
	unsigned ndoorbells;
};

/* Returns 0, -EEXIST when the range overlaps another, -ENOSPC, -EINVAL (empty or wrapping). */
int bus_add(struct bus *bus, const struct bus_range *range, struct err *err);

/* Returns 0 or -ENOSPC.  Engines with a faster path register it with the host too. */
int bus_add_doorbell(struct bus *bus, const struct bus_doorbell *doorbell, struct err *err);

/*
 * Performs one access.  Where no device answers, reads give all ones and writes
 * vanish, as on a PC; the return value then is false.
 */
bool bus_read(const struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_value);
bool bus_write(const struct bus *bus, uint64_t addr, unsigned size, uint64_t value);

#endif /* VMM_BUS_H */
