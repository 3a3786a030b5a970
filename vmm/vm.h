/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine without devices: memory, buses, vCPUs and their threads.
 * machine/ fills it with devices; engines run its vCPUs.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "vmm/bus.h"
#include "vmm/cpuid.h"
#include "vmm/engine.h"
#include "vmm/guest_mem.h"
#include "vmm/vcpu_state.h"

#include <pthread.h>
#include <stdatomic.h>

#define VCPUS_MAX 8

enum vm_request { VM_REQUEST_NONE, VM_REQUEST_RESET, VM_REQUEST_POWEROFF };

struct vcpu {
	struct vm *vm;	/* borrowed */
	unsigned index;	/* also the APIC id */
	void *engine_data;	/* owned by the engine */
	pthread_t thread;
	bool has_thread;
	struct vcpu_state *_Atomic start;	/* owned: state to take on, see vm_start_vcpu() */
	struct vcpu_stop stop;	/* set by the engine before VCPU_EXIT_DEBUG */
	_Atomic bool held;	/* stays parked when the others go on, see vm_hold() */
};

/* How the machine ended, given once to vm_ended_fn. */
struct vm_end {
	enum vcpu_exit exit;
	unsigned vcpu;
	char reason[232];	/* one sentence, "" for a plain power-off */
};

typedef void (*vm_ended_fn)(void *ctx, const struct vm_end *end);

/*
 * A vCPU met what vcpu_debug asked for: vcpu->stop says what.  On its thread; all
 * vCPUs are on their way to being parked, as by vm_pause(), and stay so until a
 * vm_resume() for this call.
 */
typedef void (*vm_debug_fn)(void *ctx, struct vcpu *vcpu);

struct vm {
	const struct engine_ops *engine;
	void *engine_data;	/* owned by the engine */
	struct mem *mem;	/* borrowed */
	struct bus mmio, pio;
	struct vcpu vcpu[VCPUS_MAX];
	unsigned nvcpus;

	/*
	 * What the guest's CPUID says and its TSC rate.  vm_create() fills both from
	 * the host before engine->vm_create(), which may take features away.
	 */
	struct cpuid_table cpuid;
	uint32_t tsc_khz;

	_Atomic int request;	/* enum vm_request, set by devices */

	/* Called once, from a vCPU thread, when the guest stopped by itself. */
	vm_ended_fn ended;
	void *ended_ctx;
	vm_debug_fn debug;	/* set before a vCPU's engine is asked for anything */
	void *debug_ctx;
	/*
	 * Optional, set before vm_start().  Called first on each vCPU's thread; a
	 * negative errno ends the machine.
	 */
	int (*thread_starts)(void *ctx);
	void *thread_ctx;
	_Atomic bool ended_called;
	_Atomic bool stopping;
	_Atomic int paused;	/* vCPU threads wait while non-zero */
	pthread_mutex_t lock;	/* guards the three below */
	pthread_cond_t changed;
	unsigned live;	/* vCPU threads that have not ended */
	unsigned parked;	/* of these, the ones waiting because of paused */
};

/*
 * Makes a VM with @nvcpus vCPUs (1..VCPUS_MAX) on @engine over @mem (borrowed).
 * The vCPUs are in reset state and have no threads yet; only vCPU 0 is
 * MP_RUNNABLE, the others wait to be started.
 */
int vm_create(const struct engine_ops *engine, struct mem *mem, unsigned nvcpus,
	      struct vm **ret_vm, struct err *err);

/*
 * The same with the CPUID of a VM that was saved, on whichever engine: @cpuid, copied; NULL: the host's.  -ENOTSUP with
 * a sentence when this engine on this host lacks a feature that is in it.
 */
int vm_create_as(const struct engine_ops *engine, struct mem *mem, unsigned nvcpus, const struct cpuid_table *cpuid,
		 struct vm **ret_vm, struct err *err);

void vm_destroy(struct vm *vm);	/* stops threads first; NULL is fine */

/*
 * Starts one thread per vCPU.  Returns 0, or a negative errno with no thread
 * left running.
 */
int vm_start(struct vm *vm, struct err *err);

/*
 * Lets vCPU @index take on @state (copied) on its own thread, at once.  This is
 * how a waiting processor is started; it does not wait for it to have happened.
 * Safe from a vCPU thread.  Returns 0, -EINVAL for no such vCPU, -EBUSY when an
 * earlier start has not been taken yet, -ENOMEM.
 */
int vm_start_vcpu(struct vm *vm, unsigned index, const struct vcpu_state *state);

/*
 * While paused: vCPUs that were told to start and have not seen it yet take on their state now, so that it is in what is
 * saved of them.  0, -ESHUTDOWN with a sentence when the machine was asked to end instead, or what an engine says.
 */
int vm_settle(struct vm *vm, struct err *err);

/* Stops all vCPU threads and joins them.  Must not be called from one of them. */
void vm_stop(struct vm *vm);

/*
 * Parks all vCPUs between two instructions; returns when all are parked.  Calls
 * nest.  Must not be called from a vCPU thread.
 */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* While paused: vCPU @index does (not) go on when the others are resumed. */
void vm_hold(struct vm *vm, unsigned index, bool hold);

/*
 * A device asks for reset or power-off; safe from any thread.  The first request
 * wins.  vCPUs are kicked, so engines need not look at vm->request.
 */
void vm_request(struct vm *vm, enum vm_request request);

/* Drives an interrupt line; vm_irq_pulse() is an edge. */
void vm_irq_set(struct vm *vm, unsigned gsi, bool level);
void vm_irq_pulse(struct vm *vm, unsigned gsi);

#endif /* VMM_VM_H */
