/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the translator works on this host: a guest of a few instructions. */
#include "engine/dbt/vcpu.h"

#include "engine/dbt/engine_dbt.h"
#include "os/err.h"
#include "vmm/boot.h"
#include "vmm/guest_mem.h"
#include "vmm/vm.h"

#include <errno.h>
#include <semaphore.h>
#include <time.h>

#define PROBE_PORT 0x42u
#define PROBE_CODE 0x10000ull
#define PROBE_ANSWER 42u

/* Integer, stack, branch and SSE: 6 * 7 computed as doubles, told through a port. */
static const uint8_t probe_code[] = {
	0xbc, 0x00, 0x80, 0x01, 0x00,	/* mov esp, 0x18000 */
	0xb8, 0x06, 0x00, 0x00, 0x00,	/* mov eax, 6 */
	0xe8, 0x0a, 0x00, 0x00, 0x00,	/* call +10 */
	0xf2, 0x0f, 0x2c, 0xc0,	/* cvttsd2si eax, xmm0 */
	0xe6, PROBE_PORT,	/* out PROBE_PORT, al */
	0xf4,	/* hlt */
	0xeb, 0xfd,	/* jmp hlt */
	0x90,
	0xf2, 0x0f, 0x2a, 0xc0,	/* cvtsi2sd xmm0, eax */
	0xff, 0xc0,	/* inc eax */
	0xf2, 0x0f, 0x2a, 0xc8,	/* cvtsi2sd xmm1, eax */
	0xf2, 0x0f, 0x59, 0xc1,	/* mulsd xmm0, xmm1 */
	0xc3,	/* ret */
};

struct probe {
	struct vm *vm;
	uint64_t answer;
	sem_t ended;
};

static uint64_t probe_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return 0;
}

static void probe_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct probe *p = dev;

	(void)off;
	(void)size;
	p->answer = value;
	vm_request(p->vm, VM_REQUEST_POWEROFF);
}

static void probe_ended(void *ctx, const struct vm_end *end)
{
	(void)end;
	(void)sem_post(&((struct probe *)ctx)->ended);
}

static int run_probe(struct probe *p, struct mem *mem, struct err *err)
{
	static const struct bus_ops ops = { probe_read, probe_write };
	struct bus_range range = { .base = PROBE_PORT, .size = 1, .ops = &ops, .dev = p, .name = "probe" };
	struct vcpu_state state;
	struct timespec limit;
	int r = vm_create(&dbt_engine, mem, 1, &p->vm, err);

	if (r < 0)
		return r;
	p->vm->ended = probe_ended;
	p->vm->ended_ctx = p;
	r = bus_add(&p->vm->pio, &range, err);
	if (r == 0)
		r = boot_tables(mem, err);
	if (r == 0)
		r = mem_write(mem, PROBE_CODE, probe_code, sizeof(probe_code));
	boot_long_mode_state(0, PROBE_CODE, 0, &state);
	state.cr4 |= 3u << 9;	/* OSFXSR, OSXMMEXCPT */
	if (r == 0)
		r = dbt_set_state(&p->vm->vcpu[0], &state, err);
	if (r == 0)
		r = vm_start(p->vm, err);
	if (r == 0) {
		(void)clock_gettime(CLOCK_MONOTONIC, &limit);	/* somebody may set the other */
		limit.tv_sec += 5;
		if (sem_clockwait(&p->ended, CLOCK_MONOTONIC, &limit) < 0 || p->answer != PROBE_ANSWER)
			r = err_set(err, -EIO, "the probe guest did not compute 6 * 7 (please report this)");
	}
	vm_destroy(p->vm);
	return r;
}

int dbt_probe(struct err *err)
{
	struct probe p = { .answer = 0 };
	struct mem *mem;
	int r = check_host(err);

	if (r == 0)
		r = mem_create(2ull << 20, &mem, err);
	if (r < 0)
		return r;
	(void)sem_init(&p.ended, 0, 0);
	r = run_probe(&p, mem, err);
	(void)sem_destroy(&p.ended);
	mem_destroy(mem);
	return r;
}
