/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM's generation id: 128 random bits in guest memory that are others in every copy of a guest, from before the
 * copy's first instruction.  A guest that finds them changed knows that it has a double somewhere, whose random
 * numbers, keys and sequence numbers would be its own.
 *
 *   drawn     when the guest boots, and when it goes on from what was saved
 *   found     by the ACPI device VM_Gen_Counter, whose ADDR names the place (vmm/acpi.c)
 *   told      by an interrupt of a generic event device, when programs of the guest run already; the id itself
 *             counts, also where nobody listens
 *
 * Source: "Virtual Machine Generation ID", Microsoft, 2012; ACPI 6.4, 5.6.9.
 */
#ifndef VMM_GENERATION_H
#define VMM_GENERATION_H

#include "vmm/boot.h"

struct mem;
struct vm;

#define GENERATION_AT 0xef000ull	/* its page has nothing else, and is no RAM to the guest */
#define GENERATION_GSI 3u
#define GENERATION_CHANGED 0x80	/* the value that the device is notified with */
_Static_assert(GENERATION_AT >= BOOT_TABLES && GENERATION_AT + 0x1000 <= BOOT_TABLES_END, "lies in reserved memory");

/* Writes a new id; no vCPU runs.  0, -EFAULT without memory there, or what the host's generator says. */
int generation_draw(struct mem *mem);

/* Tells the guest that it has changed.  At any time after the engine's state was set. */
void generation_tell(struct vm *vm);

#endif /* VMM_GENERATION_H */
