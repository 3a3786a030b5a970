/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/guest_machine.h"

#include "engine/dbt/engine_dbt.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/guest_kernel.h"
#include "vmm/platform.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>

#define RUN_NS 2000000ull	/* how long the guest may run until it is kicked */
#define TICK_NS 500000
#define HANG_NS 20000000000ull	/* a kick must have worked by then, on a busy host too */

struct runner {
	sem_t go, ended;
	struct machine *m;
	struct vcpu *vcpu;
	bool only_kicks;	/* nothing runs: see take_kicks() */
	enum vcpu_exit exit;
	struct err err;
};

static struct runner runners[MACHINE_CPUS_MAX];

static struct {
	pthread_mutex_t lock;	/* guards the others */
	struct machine *running;	/* NULL between runs */
	uint64_t since;	/* CLOCK_MONOTONIC, ns */
	bool kicked;
} watch = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void kick_all(struct machine *m)
{
	for (unsigned i = 0; i < m->vm->nvcpus; i++)
		m->vm->engine->vcpu_kick(&m->vm->vcpu[i]);
}

/* --- Devices --- */

static uint64_t device_read(void *dev, uint64_t off, unsigned size)
{
	struct machine *m = dev;

	atomic_fetch_add(&m->accesses, 1);
	return 0x0123456789abcdefull * (off + 1) & (size == 8 ? ~0ull : (1ull << 8 * size) - 1);
}

static void device_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct machine *m = dev;

	atomic_fetch_add(&m->accesses, 1);
	if (off == 8)
		vm_irq_set(m->vm, value & 31, value >> 5 & 1);
}

static void done_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct machine *m = dev;

	atomic_store(&m->done, true);
	kick_all(m);
}

static const struct bus_ops device_ops = { device_read, device_write };
static const struct bus_ops done_ops = { device_read, done_write };

/* --- Threads --- */

static void *runner_main(void *arg)
{
	struct runner *r = arg;

	for (;;) {
		while (sem_wait(&r->go) < 0)
			;
		r->exit = r->vcpu->vm->engine->vcpu_run(r->vcpu, &r->err);
		if (!r->only_kicks)
			kick_all(r->m);
		want(sem_post(&r->ended) == 0);
	}
	return NULL;
}

static void *watch_main(void *arg)
{
	const struct timespec tick = { .tv_nsec = TICK_NS };

	for (;;) {
		(void)nanosleep(&tick, NULL);
		pthread_mutex_lock(&watch.lock);
		if (watch.running) {
			uint64_t age = now_ns() - watch.since;

			want("a kick ends a run" && age < HANG_NS);
			if (age > RUN_NS) {
				watch.kicked = true;
				kick_all(watch.running);
			}
		}
		pthread_mutex_unlock(&watch.lock);
	}
	return NULL;
}

static void start_threads(void)
{
	pthread_t thread;

	for (unsigned i = 0; i < MACHINE_CPUS_MAX; i++) {
		want(sem_init(&runners[i].go, 0, 0) == 0 && sem_init(&runners[i].ended, 0, 0) == 0);
		want(pthread_create(&thread, NULL, runner_main, &runners[i]) == 0);
	}
	want(pthread_create(&thread, NULL, watch_main, NULL) == 0);
}

/* --- Machines --- */

struct machine *machine_create(unsigned ncpus)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct machine *m = calloc(1, sizeof(*m));

	(void)pthread_once(&once, start_threads);
	want(m && mem_create(MACHINE_RAM, &m->mem, NULL) == 0);
	want(vm_create(&dbt_engine, m->mem, ncpus, &m->vm, NULL) == 0);
	want(platform_create(m->vm, NULL, &m->platform, NULL) == 0);
	want(bus_add(&m->vm->mmio, &(struct bus_range){ MACHINE_MMIO, 4096, &device_ops, m, "device" }, NULL) == 0);
	want(bus_add(&m->vm->pio, &(struct bus_range){ DONE_PORT, 1, &done_ops, m, "end of a run" }, NULL) == 0);
	m->image = calloc(1, MACHINE_RAM);
	want(m->image);
	want(m->vm->engine->get_state(&m->vm->vcpu[0], &m->power_on, NULL) == 0);
	want(m->vm->engine->get_vm_state(m->vm, &m->vm_power_on, NULL) == 0);
	return m;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	vm_destroy(m->vm);
	platform_destroy(m->platform);
	mem_destroy(m->mem);
	free(m->image);
	free(m);
}

static void reset_memory(struct machine *m)
{
	for (unsigned p = machine_changed_page(m, 0); p < MACHINE_PAGES; p = machine_changed_page(m, p + 1))
		want(mem_write(m->mem, p * 4096ull, m->image + p * 4096ull, 4096) == 0);
}

void machine_reset(struct machine *m, const struct vcpu_state *states, const struct vm_state *vm_state)
{
	struct err err;

	reset_memory(m);
	atomic_store(&m->vm->request, VM_REQUEST_NONE);
	atomic_store(&m->accesses, 0);
	atomic_store(&m->done, false);
	want(m->vm->engine->set_vm_state(m->vm, vm_state, &err) == 0);
	for (unsigned i = 0; i < m->vm->nvcpus; i++) {
		struct vcpu *vcpu = &m->vm->vcpu[i];

		want(m->vm->engine->set_state(vcpu, &states[i], &err) == 0);
		free(atomic_exchange(&vcpu->start, NULL));
	}
}

static void start_runners(struct machine *m, bool only_kicks)
{
	for (unsigned i = 0; i < m->vm->nvcpus; i++) {
		runners[i].m = m;
		runners[i].vcpu = &m->vm->vcpu[i];
		runners[i].only_kicks = only_kicks;
		want(sem_post(&runners[i].go) == 0);
	}
}

static void wait_runners(struct machine *m)
{
	for (unsigned i = 0; i < m->vm->nvcpus; i++)
		while (sem_wait(&runners[i].ended) < 0)
			;
}

/* Kicks are sticky: the ones given too late for the last run are taken here, without running anything. */
static void take_kicks(struct machine *m)
{
	kick_all(m);
	start_runners(m, true);
	wait_runners(m);
	for (unsigned i = 0; i < m->vm->nvcpus; i++)
		want(runners[i].exit == VCPU_EXIT_KICKED);
}

static void set_running(struct machine *m)
{
	pthread_mutex_lock(&watch.lock);
	watch.running = m;
	if (m) {
		watch.since = now_ns();
		watch.kicked = false;
	}
	pthread_mutex_unlock(&watch.lock);
}

void machine_run(struct machine *m, unsigned pulses, struct machine_run *ret_run)
{
	unsigned n = m->vm->nvcpus;

	*ret_run = (struct machine_run){ .ncpus = n };
	take_kicks(m);
	set_running(m);
	start_runners(m, false);
	for (; pulses; pulses--) {
		vm_irq_pulse(m->vm, MACHINE_IRQ);
		(void)sched_yield();
	}
	wait_runners(m);
	for (unsigned i = 0; i < n; i++) {
		ret_run->exit[i] = runners[i].exit;
		ret_run->err[i] = runners[i].err;
	}
	set_running(NULL);
	ret_run->done = atomic_load(&m->done);
	ret_run->out_of_time = watch.kicked;
}

unsigned machine_changed_page(const struct machine *m, unsigned page)
{
	while (page < MACHINE_PAGES && memcmp(m->image + page * 4096ull, machine_page(m, page), 4096) == 0)
		page++;
	return page;
}

const uint8_t *machine_page(const struct machine *m, unsigned page)
{
	return m->mem->bank[0].host + page * 4096ull;
}
