/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables by which a guest finds its processors, interrupts and devices.
 *
 *   RSDP -> XSDT -> FADT (hardware-reduced) -> DSDT: virtio-mmio, COM1, _S5, generation id
 *                -> MADT: local APICs, IOAPIC, wake-up mailbox
 *   MP table, for kernels built without ACPI
 *
 * Source: ACPI 6.4, chapter 5; Intel MultiProcessor Specification 1.4.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "vmm/guest_mem.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

/* One virtio-mmio device, found by the driver as LNRO0005. */
struct acpi_device {
	uint32_t base, size;	/* register window, bytes */
	unsigned gsi;
	bool edge;	/* else level-triggered; active high */
};

struct acpi_spec {
	unsigned nvcpus;
	bool com1;
	bool generation;	/* id of vmm/generation.h */
	const struct acpi_device *device;	/* borrowed */
	unsigned ndevices;	/* at most ACPI_DEVICES_MAX */
};

#define ACPI_DEVICES_MAX 64

/*
 * Writes all tables to BOOT_TABLES.  Returns 0 with the address for
 * boot_spec.rsdp, -ENOSPC for too many devices, -EFAULT when there is no memory
 * there.
 */
int acpi_build(struct mem *mem, const struct acpi_spec *spec, gpa_t *ret_rsdp, struct err *err);

#endif /* VMM_ACPI_H */
