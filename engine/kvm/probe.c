/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev/kvm proves little: some hosts offer it without VMX or SVM below and cannot
 * run an ordinary operating system.  So one is run, of two hundred instructions.
 */
#include "engine/kvm/internal.h"

#include "base/checked.h"
#include "engine/kvm/kvm.h"
#include "os/err.h"
#include "vmm/boot.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define PROBE_PORT 0x500
#define PROBE_BASE 0x100000ull
#define PROBE_MEMORY (2ull << 20)	/* bytes */
#define PROBE_TIMEOUT_S 3

/* What probe_guest.S says it is about to do. */
enum stage {
	STAGE_NOTHING,
	STAGE_START,
	STAGE_SSE,
	STAGE_CMPXCHG16B,
	STAGE_INT3,
	STAGE_SYSCALL,
	STAGE_INT80,
	STAGE_TIMER,
	STAGE_DONE,
	STAGE_WRONG = 255,
};

static const char *const stage_names[] = {
	[STAGE_NOTHING] = "start in 64-bit mode",
	[STAGE_START] = "load descriptor tables",
	[STAGE_SSE] = "use SSE and XSAVE",
	[STAGE_CMPXCHG16B] = "do cmpxchg16b",
	[STAGE_INT3] = "take a breakpoint exception",
	[STAGE_SYSCALL] = "enter user mode and come back by syscall",
	[STAGE_INT80] = "come back from user mode by a software interrupt",
	[STAGE_TIMER] = "get a timer interrupt",
};

extern const uint8_t probe_guest[], probe_guest_end[];

struct probe {
	struct vm *vm;
	pthread_mutex_t lock;	/* guards the rest */
	pthread_cond_t changed;
	enum stage stage;	/* last one begun */
	bool wrong;	/* the guest found a wrong result in it */
	bool ended;
	struct vm_end end;
};

static uint64_t probe_read(void *dev, uint64_t off, unsigned size)
{
	return 0;
}

static void probe_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct probe *p = dev;

	pthread_mutex_lock(&p->lock);
	if (value == STAGE_WRONG)
		p->wrong = true;
	else
		p->stage = value <= STAGE_DONE ? (enum stage)value : p->stage;
	pthread_mutex_unlock(&p->lock);
	if (value >= STAGE_DONE)
		vm_request(p->vm, VM_REQUEST_POWEROFF);
}

static const struct bus_ops probe_ops = { probe_read, probe_write };

static void probe_ended(void *ctx, const struct vm_end *end)
{
	struct probe *p = ctx;

	pthread_mutex_lock(&p->lock);
	p->end = *end;
	p->ended = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

/* Waits for the guest's end; false when it hangs. */
static bool wait_for_end(struct probe *p)
{
	struct timespec until;
	int r = 0;
	bool ended;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);	/* somebody may set the other */
	until.tv_sec += PROBE_TIMEOUT_S;
	pthread_mutex_lock(&p->lock);
	while (!p->ended && r == 0)
		r = pthread_cond_clockwait(&p->changed, &p->lock, CLOCK_MONOTONIC, &until);
	ended = p->ended;
	pthread_mutex_unlock(&p->lock);
	return ended;
}

static int judge(const struct probe *p, bool ended, struct err *err)
{
	const char *what;

	if (p->stage == STAGE_DONE)
		return 0;
	what = stage_names[p->stage];
	if (!ended)
		return err_set(err, -ENOTSUP, "KVM on this host hangs when a guest wants to %s", what);
	if (p->wrong)
		return err_set(err, -ENOTSUP, "KVM on this host gives wrong results when a guest wants to %s",
			       what);
	return err_set(err, -ENOTSUP, "KVM on this host cannot let a guest %s (%s)", what,
		       p->end.reason);
}

static int run_probe(struct probe *p, struct mem *mem, struct err *err)
{
	size_t size = (size_t)(probe_guest_end - probe_guest);
	struct vcpu_state state;
	bool ended;
	int r;

	r = bus_add(&p->vm->pio, &(struct bus_range){ PROBE_PORT, 1, &probe_ops, p, "probe" }, err);
	if (r == 0)
		r = boot_tables(mem, err);
	if (r == 0)
		r = mem_write(mem, PROBE_BASE, probe_guest, size);
	if (r < 0)
		return r;
	boot_long_mode_state(0, PROBE_BASE, 0, &state);
	r = kvm_set_state(&p->vm->vcpu[0], &state, err);
	if (r < 0)
		return r;
	p->vm->ended = probe_ended;
	p->vm->ended_ctx = p;
	r = vm_start(p->vm, err);
	if (r < 0)
		return r;
	ended = wait_for_end(p);
	vm_stop(p->vm);
	return judge(p, ended, err);
}

int kvm_probe(struct err *err)
{
	struct probe p = { 0 };
	struct mem *mem;
	int r = mem_create(PROBE_MEMORY, &mem, err);

	if (r < 0)
		return r;
	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.changed, NULL);
	r = vm_create(&kvm_engine, mem, 1, &p.vm, err);
	if (r == 0) {
		r = run_probe(&p, mem, err);
		vm_destroy(p.vm);
	}
	pthread_cond_destroy(&p.changed);
	pthread_mutex_destroy(&p.lock);
	mem_destroy(mem);
	return r;
}
