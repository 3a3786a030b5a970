/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/bus.h"

#include "base/checked.h"
#include "os/err.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* First range that ends after @addr, or bus->nranges. */
static unsigned find_slot(const struct bus *bus, uint64_t addr)
{
	unsigned lo = 0, hi = bus->nranges;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct bus_range *r = &bus->range[mid];

		if (r->base + (r->size - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static const struct bus_range *find_range(const struct bus *bus, uint64_t addr, unsigned size)
{
	unsigned i = find_slot(bus, addr);
	const struct bus_range *r = &bus->range[i];

	if (i == bus->nranges || addr < r->base || !range_ok(addr - r->base, size, r->size))
		return NULL;
	return r;
}

int bus_add(struct bus *bus, const struct bus_range *range, struct err *err)
{
	uint64_t last = range->base + (range->size - 1);
	unsigned i;

	if (range->size == 0 || last < range->base)
		return err_set(err, -EINVAL, "%s: empty or wrapping address range", range->name);
	if (bus->nranges == BUS_RANGES_MAX)
		return err_set(err, -ENOSPC, "%s: more than %d address ranges", range->name,
			       BUS_RANGES_MAX);
	i = find_slot(bus, range->base);
	if (i < bus->nranges && bus->range[i].base <= last)
		return err_set(err, -EEXIST, "%s: addresses 0x%llx-0x%llx overlap those of %s",
			       range->name, (unsigned long long)range->base,
			       (unsigned long long)last, bus->range[i].name);
	memmove(&bus->range[i + 1], &bus->range[i], (bus->nranges - i) * sizeof(bus->range[0]));
	bus->range[i] = *range;
	bus->nranges++;
	return 0;
}

int bus_add_doorbell(struct bus *bus, const struct bus_doorbell *doorbell, struct err *err)
{
	if (bus->ndoorbells == BUS_DOORBELLS_MAX)
		return err_set(err, -ENOSPC, "more than %d doorbells", BUS_DOORBELLS_MAX);
	bus->doorbell[bus->ndoorbells++] = *doorbell;
	return 0;
}

static bool ring_doorbell(const struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < bus->ndoorbells; i++) {
		const struct bus_doorbell *d = &bus->doorbell[i];
		const uint64_t one = 1;

		if (d->addr != addr || d->size != size || (d->match && d->value != value))
			continue;
		/* Fails only when the counter is full: the device has yet to see it. */
		(void)!write(d->fd, &one, sizeof(one));
		return true;
	}
	return false;
}

bool bus_read(const struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_value)
{
	const struct bus_range *r = find_range(bus, addr, size);
	uint64_t mask = size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;

	*ret_value = (r ? r->ops->read(r->dev, addr - r->base, size) : UINT64_MAX) & mask;
	return r != NULL;
}

bool bus_write(const struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
	const struct bus_range *r;

	value &= size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
	if (ring_doorbell(bus, addr, size, value))
		return true;
	r = find_range(bus, addr, size);
	if (r)
		r->ops->write(r->dev, addr - r->base, size, value);
	return r != NULL;
}
