/* SPDX-License-Identifier: Apache-2.0 */
/* A range of pages whose protection and content are known at any time. */
#include "tests/stress/stress.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u
#define PAGES 2048u
#define LARGE 512u	/* pages that may be one of the processor's */

static struct {
	int prot;
	uint64_t seed;	/* of the content; 0: zeros */
} model[PAGES];

static uint8_t *area;
static sigjmp_buf on_fault;
static volatile uintptr_t fault_at;

static void faulted(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	fault_at = (uintptr_t)info->si_addr;
	siglongjmp(on_fault, 1);
}

static uint8_t *page_at(unsigned page)
{
	return area + (size_t)page * PAGE;
}

static bool read_faults(const volatile uint8_t *at)
{
	if (sigsetjmp(on_fault, 1))
		return true;
	(void)*at;
	return false;
}

static bool write_faults(volatile uint8_t *at)
{
	if (sigsetjmp(on_fault, 1))
		return true;
	*at = *at;
	return false;
}

static bool holds(unsigned page)
{
	static const uint8_t zeros[PAGE];

	return model[page].seed ? same_bytes(model[page].seed, page_at(page), PAGE) :
				  memcmp(page_at(page), zeros, PAGE) == 0;
}

static void check(unsigned page, unsigned off)
{
	uint8_t *at = page_at(page) + off;
	bool readable = model[page].prot & PROT_READ, writable = model[page].prot & PROT_WRITE;

	fault_at = 0;
	must(read_faults(at) == !readable);
	must(readable || fault_at == (uintptr_t)at);
	fault_at = 0;
	must(write_faults(at) == !writable);
	must(writable || fault_at == (uintptr_t)at);
	must(!readable || holds(page));
}

static void set_model(unsigned page, unsigned n, int prot, bool zero)
{
	for (; n; n--, page++) {
		model[page].prot = prot;
		if (zero)
			model[page].seed = 0;
	}
}

static void fill(struct rng *rng, unsigned page)
{
	if (!(model[page].prot & PROT_WRITE))
		return;
	model[page].seed = rng_next(rng) | 1;
	fill_bytes(model[page].seed, page_at(page), PAGE);
}

/* Moves pages somewhere else and back; the hole is filled meanwhile. */
static void move(unsigned page, unsigned n)
{
	size_t len = (size_t)n * PAGE;
	void *to = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(to != MAP_FAILED);
	if (mremap(page_at(page), len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
		must(errno == EFAULT && munmap(to, len) == 0);	/* two mappings, which the kernel has not merged */
		return;
	}
	must(mmap(page_at(page), len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page_at(page));
	must(!read_faults(page_at(page)) && *page_at(page) == 0);
	must(mremap(to, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(page)) == page_at(page));
}

/* Whether @n pages may be one mapping: mremap() takes no more. */
static bool is_uniform(unsigned page, unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		if (model[page + i].prot != model[page].prot)
			return false;
	return true;
}

static void discard(unsigned page, unsigned n)
{
	must(madvise(page_at(page), (size_t)n * PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < n; i++)
		model[page + i].seed = 0;
}

static void map_anew(unsigned page, unsigned n, int prot, bool unmap)
{
	size_t len = (size_t)n * PAGE;

	if (unmap) {
		must(munmap(page_at(page), len) == 0);
		must(read_faults(page_at(page)));
	}
	must(mmap(page_at(page), len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page_at(page));
	set_model(page, n, prot, true);
}

static void protect(unsigned page, unsigned n, int prot)
{
	must(mprotect(page_at(page), (size_t)n * PAGE, prot) == 0);
	set_model(page, n, prot, false);
}

static void change(struct rng *rng, unsigned page, unsigned n)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE };
	int prot = prots[rng_below(rng, 4)];

	switch (rng_below(rng, 5)) {
	case 0:
		map_anew(page, n, prot, false);
		break;
	case 1:
		map_anew(page, n, prot, true);
		break;
	case 2:
		protect(page, n, prot);
		break;
	case 3:
		discard(page, n);
		break;
	default:
		if (is_uniform(page, n))
			move(page, n);
		break;
	}
}

static void change_few(struct rng *rng)
{
	unsigned n = 1 + rng_below(rng, 32), page = rng_below(rng, PAGES - n);

	change(rng, page, n);
	for (unsigned i = 0; i < n; i++)
		if (rng_below(rng, 2))
			fill(rng, page + i);
}

/* A large page, of which the processor remembers all, and what is left of it then. */
static void change_large(struct rng *rng)
{
	unsigned page = rng_below(rng, PAGES / LARGE) * LARGE;

	map_anew(page, LARGE, PROT_READ | PROT_WRITE, false);
	(void)madvise(page_at(page), (size_t)LARGE * PAGE, MADV_HUGEPAGE);	/* kernels without them have others */
	for (unsigned i = 0; i < LARGE; i++)
		fill(rng, page + i);
	change(rng, page, LARGE);
	for (unsigned i = 0; i < LARGE; i++)
		check(page + i, rng_below(rng, PAGE));
}

void piece_memory(struct work *w)
{
	struct sigaction sa = { .sa_sigaction = faulted, .sa_flags = SA_SIGINFO | SA_NODEFER };

	must(sigaction(SIGSEGV, &sa, NULL) == 0);
	area = mmap(NULL, (size_t)(PAGES + LARGE) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(area != MAP_FAILED);
	area += -(uintptr_t)area % (LARGE * PAGE);
	for (; !time_is_over(w); w->rounds++) {
		if (rng_below(&w->rng, 64))
			change_few(&w->rng);
		else
			change_large(&w->rng);
		for (int i = 0; i < 8; i++)
			check(rng_below(&w->rng, PAGES), rng_below(&w->rng, PAGE));
	}
	for (unsigned i = 0; i < PAGES; i++)
		check(i, 0);
}
