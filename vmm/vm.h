/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine without devices: memory, buses, vCPUs and their threads.
 * machine/ fills it with devices; engines run its vCPUs.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "vmm/bus.h"
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
};

/* How the machine ended, given once to vm_ended_fn. */
struct vm_end {
	enum vcpu_exit exit;
	unsigned vcpu;
	char reason[232];	/* one sentence, "" for a plain power-off */
};

typedef void (*vm_ended_fn)(void *ctx, const struct vm_end *end);

struct vm {
	const struct engine_ops *engine;
	void *engine_data;	/* owned by the engine */
	struct mem *mem;	/* borrowed */
	struct bus mmio, pio;
	struct vcpu vcpu[VCPUS_MAX];
	unsigned nvcpus;
	_Atomic int request;	/* enum vm_request, set by devices */

	/* Called once, from a vCPU thread, when the guest stopped by itself. */
	vm_ended_fn ended;
	void *ended_ctx;
	_Atomic bool ended_called;
	_Atomic bool stopping;
	_Atomic int paused;	/* vCPU threads wait while non-zero */
	pthread_mutex_t lock;	/* guards the two below */
	pthread_cond_t changed;
	unsigned parked;	/* vCPU threads waiting because of paused */
};

/*
 * Makes a VM with @nvcpus vCPUs (1..VCPUS_MAX) on @engine over @mem (borrowed).
 * The vCPUs are in reset state and have no threads yet; only vCPU 0 is
 * MP_RUNNABLE, the others wait to be started.
 */
int vm_create(const struct engine_ops *engine, struct mem *mem, unsigned nvcpus,
	      struct vm **ret_vm, struct err *err);
void vm_destroy(struct vm *vm);	/* stops threads first; NULL is fine */

/* Starts one thread per vCPU. */
int vm_start(struct vm *vm, struct err *err);

/* Stops all vCPU threads and joins them.  Must not be called from one of them. */
void vm_stop(struct vm *vm);

/* Parks all vCPUs between two instructions; returns when all are parked. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* A device asks for reset or power-off; safe from a vCPU thread. */
void vm_request(struct vm *vm, enum vm_request request);

/* Drives an interrupt line; vm_irq_pulse() is an edge. */
void vm_irq_set(struct vm *vm, unsigned gsi, bool level);
void vm_irq_pulse(struct vm *vm, unsigned gsi);

#endif /* VMM_VM_H */
