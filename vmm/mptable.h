/* SPDX-License-Identifier: Apache-2.0 */
/* Intel MultiProcessor Specification 1.4 table, for kernels built without ACPI. */
#ifndef VMM_MPTABLE_H
#define VMM_MPTABLE_H

#include "vmm/guest_mem.h"

/* Where kernels search for the table: the last KiB below BOOT_TABLES_END. */
#define MPTABLE_BASE 0xffc00ull

/*
 * Writes processors, the IOAPIC, and every input of it as an ISA interrupt of the
 * same number, level or edge as the driver asks.  Returns 0 or -EFAULT.
 */
int mptable_build(struct mem *mem, unsigned nvcpus);

#endif /* VMM_MPTABLE_H */
