/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine on the dbt engine that is used again and again: its memory and
 * processors are put back to given contents, then it runs for a bounded time.
 *
 *   [ image filled ] -> machine_reset() -> machine_run() -> machine_changed_page()...
 *
 * vCPUs run on threads of their own, so that the signal mask of the caller (a
 * fuzzer with an alarm) stays as it is.  A run that does not end within seconds of
 * its time, or an engine that fails, aborts the process: that is what is looked for.
 */
#ifndef TESTS_FUZZ_GUEST_MACHINE_H
#define TESTS_FUZZ_GUEST_MACHINE_H

#include "os/err.h"
#include "vmm/vm.h"

#define MACHINE_RAM (2u << 20)	/* bytes */
#define MACHINE_PAGES (MACHINE_RAM / 4096)
#define MACHINE_CPUS_MAX 2
#define MACHINE_IRQ 5u	/* IOAPIC input that a run may pulse */
#define MACHINE_MMIO 0xd0000000ull	/* one page of a device that answers anything */

struct machine {
	struct vm *vm;
	struct mem *mem;
	struct platform *platform;
	uint8_t *image;	/* MACHINE_RAM bytes: what the next run starts with */
	struct vcpu_state power_on;	/* of vCPU 0 when the machine was made */
	struct vm_state vm_power_on;
	_Atomic uint32_t accesses;	/* of ports and devices by the guest in this run */
	_Atomic bool done;	/* the guest wrote DONE_PORT in this run */
};

struct machine_run {
	unsigned ncpus;
	enum vcpu_exit exit[MACHINE_CPUS_MAX];
	struct err err[MACHINE_CPUS_MAX];	/* for VCPU_EXIT_ERROR */
	bool done, out_of_time;
};

/* Two machines at most exist at a time.  Aborts when the host refuses. */
struct machine *machine_create(unsigned ncpus);
void machine_destroy(struct machine *m);	/* NULL is fine */

/* Memory as in the image, vCPU i as in @states[i], interrupt controllers as given in @vm_state. */
void machine_reset(struct machine *m, const struct vcpu_state *states, const struct vm_state *vm_state);

/* Runs until every vCPU has stopped; when one stops the others are made to.  @pulses of MACHINE_IRQ. */
void machine_run(struct machine *m, unsigned pulses, struct machine_run *ret_run);

/* The first page at or after @page that the run has changed, or MACHINE_PAGES. */
unsigned machine_changed_page(const struct machine *m, unsigned page);
const uint8_t *machine_page(const struct machine *m, unsigned page);

#endif /* TESTS_FUZZ_GUEST_MACHINE_H */
