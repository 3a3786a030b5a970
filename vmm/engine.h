/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How guest code runs.  An engine is an ops table; struct vm (vmm/vm.h) is what
 * it works on, struct vcpu its handle on one processor.
 *
 *   vm_create -> vcpu_create* -> set_state -> [ vcpu_run on its own thread ]*
 *             -> vcpu_destroy* -> vm_destroy
 *
 * Threads: vcpu_run() of one vCPU is called from one thread.  vcpu_kick() and
 * irq_set() may be called from any thread at any time between create and
 * destroy.  Everything else is called while the vCPU concerned does not run.
 *
 * MMIO and port accesses are performed inside vcpu_run() through vm->mmio and
 * vm->pio; HLT waits inside vcpu_run() too.
 */
#ifndef VMM_ENGINE_H
#define VMM_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct vm;
struct vcpu;
struct vcpu_state;
struct vm_state;

enum vcpu_exit {
	VCPU_EXIT_KICKED,	/* vcpu_kick() was called; state is between two instructions */
	VCPU_EXIT_SHUTDOWN,	/* triple fault */
	VCPU_EXIT_RESET,	/* a device asked for reset through vm_request() */
	VCPU_EXIT_POWEROFF,	/* the same for power-off */
	VCPU_EXIT_ERROR,	/* the engine cannot continue; err says why */
	VCPU_EXIT_DEBUG,	/* vcpu->stop says what the debugger outside the guest waited for */
};

/*
 * What a debugger outside the guest wants to be told of, instead of the guest.
 * All zero: nothing.  @dr and @dr7 are as in the debug registers (SDM vol. 3,
 * 17.2); the guest's own go on working beside them where the host can do both.
 */
struct vcpu_debug {
	bool int3;	/* report INT3, with RIP at it */
	bool inject_int3;	/* once: the INT3 just reported is the guest's own, let it have its #BP */
	bool single_step;	/* report after one instruction; interrupts wait meanwhile, unless in HLT */
	uint64_t dr[4], dr7;
};

enum vcpu_stop_kind {
	VCPU_STOP_STEP,
	VCPU_STOP_INT3,
	VCPU_STOP_BREAKPOINT,	/* hardware: RIP is at it, the instruction has not run */
	VCPU_STOP_WATCHPOINT,	/* hardware: the access was made */
};

/* Why VCPU_EXIT_DEBUG. */
struct vcpu_stop {
	enum vcpu_stop_kind kind;
	unsigned index;	/* of the hardware break- or watchpoint in vcpu_debug.dr[] */
};

/* Something an engine counts.  @name: lower case with underscores, static. */
struct engine_counter {
	const char *name;
	uint64_t value;
};

struct engine_ops {
	const char *name;	/* "kvm", "dbt" */

	/*
	 * Required.  Finds out whether this host can run an ordinary 64-bit guest
	 * on this engine, by running one.  0, or a negative errno with the reason
	 * in @err, worded for `roux doctor`.
	 */
	int (*probe)(struct err *err);

	/*
	 * Required.  vm->mem, vm->mmio, vm->pio, vm->cpuid and vm->tsc_khz are set;
	 * fills vm->engine_data and clears what it cannot do in vm->cpuid, which may lose more before
	 * vcpu_create().
	 */
	int (*vm_create)(struct vm *vm, struct err *err);
	void (*vm_destroy)(struct vm *vm);

	/* Required.  Fills vcpu->engine_data; the vCPU is in reset state, waiting for a
	 * start-up IPI unless it is vCPU 0.  vm->cpuid is final. */
	int (*vcpu_create)(struct vcpu *vcpu, struct err *err);
	void (*vcpu_destroy)(struct vcpu *vcpu);

	/* Required.  Runs guest code until something the caller must handle. */
	enum vcpu_exit (*vcpu_run)(struct vcpu *vcpu, struct err *err);

	/* Required.  Makes vcpu_run() return KICKED soon; sticky until it has. */
	void (*vcpu_kick)(struct vcpu *vcpu);

	/* Required. */
	int (*get_state)(struct vcpu *vcpu, struct vcpu_state *ret_state, struct err *err);
	int (*set_state)(struct vcpu *vcpu, const struct vcpu_state *state, struct err *err);

	/* Required, while no vCPU runs.  What is shared by all vCPUs; it is set before their own states. */
	int (*get_vm_state)(struct vm *vm, struct vm_state *ret_state, struct err *err);
	int (*set_vm_state)(struct vm *vm, const struct vm_state *state, struct err *err);

	/*
	 * Optional, while no vCPU runs and all wait for interrupts.  The guest's time goes on to the next one of its own
	 * timers, if that is within @most ns.  Returns by how much, in ns; 0: there is none; -EAGAIN: one has expired that its
	 * vCPU has yet to hear of.
	 */
	int64_t (*skip_time)(struct vm *vm, uint64_t most);

	/* Required.  From now on vcpu_run() reports what @debug asks for.  0 or a negative errno. */
	int (*debug)(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err);

	/* Required.  Drives interrupt line @gsi of the IOAPIC. */
	void (*irq_set)(struct vm *vm, unsigned gsi, bool level);

	/* Optional (NULL: MSI not offered).  Delivers a message-signalled interrupt. */
	void (*msi_send)(struct vm *vm, uint64_t addr, uint32_t data);

	/* Optional.  Tells the host about a doorbell already added to the bus. */
	int (*doorbell_add)(struct vm *vm, bool is_mmio, unsigned index, struct err *err);

	/*
	 * Required.  Dirty tracking, one bit a 4 KiB page from guest-physical 0,
	 * counting every page of RAM in bank order.  get adds to @bitmap and clears.
	 */
	int (*dirty_log_set)(struct vm *vm, bool on, struct err *err);
	int (*dirty_log_get)(struct vm *vm, uint64_t *bitmap, struct err *err);

	/*
	 * Optional.  Fills at most @max counters of the whole VM and returns how many.
	 * From any thread while vCPUs run: values may be a moment old.
	 */
	unsigned (*counters)(struct vm *vm, struct engine_counter *ret_counters, unsigned max);

	/*
	 * Optional, all or none, while no vCPU runs.  What a file may keep to save time for other VMs: those that begin
	 * with the same memory, or for the boots of others.
	 *
	 * record	in front of a boot, which is noted
	 * set_aside	what was noted is put away, to be used where guest memory is again as it was then.  Until that is
	 *		@done kept_bytes() and keep() are of it, and take_kept() of it suits guests that boot
	 * forget	begins anew, so that only what is used from then on is kept
	 * learned	forgets what is not true of @memory (RAM, bank after bank); returns how much is left that
	 *		take_kept() did not bring, in parts of a program: 0 when it is not worth a file.  NULL: it
	 *		is not more than this
	 * kept_bytes	of it, a multiple of the page size; 0: nothing
	 * keep		writes it, to zeroed memory
	 * take_kept	takes it over from bytes [@offset, @offset + @bytes) of file @fd, which must not change
	 *		later; guest memory is what it was (not for a boot), and set_vm_state() and set_state() follow.  A negative
	 *		errno with a sentence when it cannot: the VM is as before then.
	 */
	void (*record)(struct vm *vm);
	void (*set_aside)(struct vm *vm, bool done);
	void (*forget)(struct vm *vm);
	unsigned (*learned)(struct vm *vm, const uint8_t *memory);
	uint64_t (*kept_bytes)(struct vm *vm);
	void (*keep)(struct vm *vm, uint8_t *to);
	int (*take_kept)(struct vm *vm, int fd, uint64_t offset, uint64_t bytes, struct err *err);
};

#endif /* VMM_ENGINE_H */
